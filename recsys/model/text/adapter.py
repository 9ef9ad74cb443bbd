"""A LoRA adapter that fits a sentence encoder to the factors of items; only a rebuild trains one."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from tqdm import tqdm

from recsys.config import Settings
from recsys.contracts import StepId
from recsys.errors import ConfigError
from recsys.model.common.arrays import Float32Array, IntArray
from recsys.model.common.randomness import Purpose, generator
from recsys.storage import Place, adapter_folder, written_folder

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from transformers import PreTrainedModel

# Names that the usual encoders give to the projections of their attention.
_ATTENTION = {"query", "key", "value", "query_proj", "key_proj", "value_proj", "q_proj", "k_proj", "v_proj"} | {
    "q_lin", "k_lin", "v_lin", "q", "k", "v", "in_proj", "Wqkv", "qkv_proj", "query_key_value"
}  # fmt: skip
_BATCH, _TEMPERATURE = 32, 0.1
_RECORD = "training.json"
# The file of peft that is written last, so that a folder with it is whole.
WEIGHTS = "adapter_model.safetensors"


def merge_adapter(encoder: "SentenceTransformer", folder: Path) -> None:
    """Add a stored adapter to the weights of an encoder, in place.

    Raises:
        OSError, ValueError: the folder holds no adapter in safetensors, or one of another encoder.
    """
    from peft import PeftModel

    if not (folder / WEIGHTS).is_file():
        raise OSError(f"{folder} holds no adapter")
    PeftModel.from_pretrained(_network(encoder), str(folder)).merge_and_unload()


def train_adapter(
    encoder: "SentenceTransformer", texts: Sequence[str], factors: Float32Array, settings: Settings, step: StepId
) -> Place:
    """Train an adapter of the encoder's attention, so that the embeddings of texts resemble the factors of their items.

    The projected embedding of a text should point to the factors of its own item, and away from those of the other
    items of its batch. The factors are centered on their mean. The projection starts as the ridge regression of the
    factors on the embeddings without an adapter. It is discarded after training: `ColdStart` learns its own.

    Source: LoRA of Hu et al. 2022, "LoRA: low-rank adaptation of large language models"; InfoNCE loss of van den Oord
    et al. 2018, "Representation learning with contrastive predictive coding".

    Args:
        encoder: The pretrained encoder; it is unchanged afterward.
        texts: n >= 2 texts, those of the items with the most users first; the first `items.adapter.items` are used.
        factors: (n, f) factors of their items.
        settings: Uses the sections `items` and `storage`, and `seed`.
        step: Step of the rebuild; its generation names the adapter, and it seeds the order of the texts.

    Returns:
        The folder of the adapter, in the format of peft, with the mean loss of each pass in `training.json`.

    Raises:
        ConfigError: the encoder has no attention that can be adapted.
    """
    from peft import LoraConfig, get_peft_model

    chosen = settings.items.adapter
    texts, targets = texts[: chosen.items], _directions(factors[: chosen.items]).to(encoder.device)
    layers = _attention(encoder)
    if not layers:
        raise ConfigError(f"setting 'items.adapter.enabled': cannot adapt the encoder {settings.items.encoder}")
    projection = _ridge(encoder, texts, targets, settings.items.regularization)
    drawing = generator(settings.seed, step, Purpose.ADAPTER)
    with torch.random.fork_rng():
        torch.manual_seed(int(drawing.integers(1 << 32)))
        config = LoraConfig(r=chosen.rank, lora_alpha=2 * chosen.rank, target_modules=layers)
        adapted = get_peft_model(_network(encoder), config)
    weights = [weight for weight in adapted.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW([*weights, projection], lr=chosen.learning_rate)
    losses = []
    folder = adapter_folder(settings.storage.root, step.generation)
    try:
        # Without dropout only the order is random.
        encoder.eval()
        for _ in range(chosen.epochs):
            order = drawing.permutation(len(texts))
            losses.append(_pass(encoder, texts, targets, projection, optimizer, order))
        with written_folder(folder, last=WEIGHTS) as files:
            adapted.save_pretrained(str(files))
            _tidy(files)
            (files / _RECORD).write_text(json.dumps({"loss": losses}), encoding="utf-8")
    finally:
        adapted.unload()
    return folder


def _tidy(folder: Path) -> None:
    """Make the files of equal adapters equal: without the path of the encoder, and with names in order."""
    (folder / "README.md").unlink(missing_ok=True)
    file = folder / "adapter_config.json"
    config = json.loads(file.read_text("utf-8"))
    config |= {"base_model_name_or_path": None, "target_modules": sorted(config["target_modules"])}
    file.write_text(json.dumps(config, indent=2, sort_keys=True), encoding="utf-8")


def _network(encoder: "SentenceTransformer") -> "PreTrainedModel":
    """The transformer of an encoder, without tokenizer and pooling."""
    return cast("PreTrainedModel", encoder[0].auto_model)


def _attention(encoder: "SentenceTransformer") -> list[str]:
    """Names of the layers that an adapter is added to."""
    modules = _network(encoder).named_modules()
    names = {name.rpartition(".")[2] for name, module in modules if isinstance(module, torch.nn.Linear)}
    return sorted(names & _ATTENTION)


def _directions(factors: Float32Array) -> torch.Tensor:
    """(n, f) unit vectors: how factors (n, f) differ from their mean."""
    values = torch.from_numpy(np.ascontiguousarray(factors))
    return torch.nn.functional.normalize(values - values.mean(dim=0), dim=1)


def _ridge(
    encoder: "SentenceTransformer", texts: Sequence[str], targets: torch.Tensor, regularization: float
) -> torch.Tensor:
    """The projection (d, f) to begin with, as a leaf that can be trained."""
    inputs = encoder.encode(list(texts), convert_to_tensor=True, show_progress_bar=False).to(torch.float64)
    penalty = regularization * torch.eye(inputs.shape[1], dtype=torch.float64, device=inputs.device)
    solved = torch.linalg.solve(inputs.T @ inputs + penalty, inputs.T @ targets.to(torch.float64))
    projection: torch.Tensor = solved.to(torch.float32).requires_grad_()
    return projection


def _pass(
    encoder: "SentenceTransformer",
    texts: Sequence[str],
    targets: torch.Tensor,
    projection: torch.Tensor,
    optimizer: torch.optim.Optimizer,
    order: IntArray,
) -> float:
    """Learn all texts once in the given order; the mean loss of the batches."""
    losses = []
    for begin in tqdm(range(0, len(order), _BATCH), desc="train adapter", unit_scale=_BATCH):
        places = order[begin : begin + _BATCH]
        features = encoder.preprocess([texts[place] for place in places])
        inputs = {
            name: value.to(encoder.device) if torch.is_tensor(value) else value for name, value in features.items()
        }
        embeddings = encoder(inputs)["sentence_embedding"]
        own = targets[torch.from_numpy(places).to(targets.device)]
        likeness = torch.nn.functional.normalize(embeddings @ projection, dim=1) @ own.T / _TEMPERATURE
        loss = torch.nn.functional.cross_entropy(likeness, torch.arange(len(places), device=likeness.device))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(loss.item())
    return float(np.mean(losses))
