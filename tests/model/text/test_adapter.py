"""The adapter: it learns, it is kept and found again, and it leaves the encoder alone."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel

from recsys.config import Settings
from recsys.contracts import StepId
from recsys.errors import ConfigError, InputError
from recsys.model.text import adapter
from recsys.model.text.adapter import train_adapter
from recsys.model.text.encoder import TextEmbeddings, load_encoder
from recsys.storage import adapter_folder

WORDS = ["apple", "pear", "plum", "hammer", "saw", "drill", "nail", "car", "bus", "train", "bike"]
ADJECTIVES = ["red", "small", "old", "good", "big", "cheap"]
TEXTS = [f"{adjective} {word}" for word in WORDS for adjective in ADJECTIVES][:64]
# What an item is to its users depends on the adjective first of all, on the word half as much.
FACTORS = np.array(
    [
        [*(1.0 * (adjective == own) for adjective in ADJECTIVES), *(0.5 * (word == thing) for word in WORDS)]
        for own, thing in (text.split() for text in TEXTS)
    ],
    dtype=np.float32,
)


def settings_in(root: Path, folder: Path, **chosen: object) -> Settings:
    values = {"epochs": 3, "rank": 4, "learning_rate": 2e-3} | chosen
    return Settings.model_validate(
        {"storage": {"root": str(root)}, "items": {"encoder": str(folder), "adapter": values}, "device": "cpu"}
    )


def contents(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in path.iterdir()}


@pytest.fixture(scope="module")
def folder(encoder: Path) -> Path:
    return encoder


@pytest.fixture(scope="module")
def trained(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Settings, Path]:
    settings = settings_in(tmp_path_factory.mktemp("trained"), folder)
    encoder = load_encoder(folder, None, "cpu")
    before = encoder.encode(TEXTS)
    random = torch.random.get_rng_state()
    path = train_adapter(encoder, TEXTS, FACTORS, settings, StepId(3, -1))
    assert torch.equal(torch.random.get_rng_state(), random)
    # The encoder is the same as before.
    assert np.array_equal(encoder.encode(TEXTS), before)
    return settings, path


def test_the_loss_falls(trained: tuple[Settings, Path]) -> None:
    losses = json.loads((trained[1] / "training.json").read_text("utf-8"))["loss"]
    assert len(losses) == 3
    assert losses[2] < 0.7 * losses[0]


def test_embeddings_are_those_of_the_adapted_encoder(trained: tuple[Settings, Path], folder: Path) -> None:
    settings, path = trained
    plain, adapted = TextEmbeddings(settings), TextEmbeddings(settings, path)
    assert plain.path != adapted.path
    before, after = plain.of(TEXTS), adapted.of(TEXTS)
    assert np.abs(after - before).max() > 0.05
    # The adapter beside the weights instead of merged into them.
    encoder = load_encoder(folder, None, "cpu")
    PeftModel.from_pretrained(encoder[0].auto_model, str(path))
    np.testing.assert_allclose(encoder.encode(TEXTS), after, atol=1e-5)


def test_it_is_kept_without_code_and_without_a_place(trained: tuple[Settings, Path]) -> None:
    settings, path = trained
    assert path == adapter_folder(settings.storage.root, 3)
    assert {file.suffix for file in path.iterdir()} <= {".safetensors", ".json"}
    assert json.loads((path / "adapter_config.json").read_text("utf-8"))["base_model_name_or_path"] is None
    assert sorted(file.name for file in path.parent.iterdir() if file.is_dir()) == [path.name]


def test_training_again_gives_the_same(trained: tuple[Settings, Path], folder: Path, tmp_path: Path) -> None:
    settings = settings_in(tmp_path, folder)
    # What an attempt left behind is replaced.
    adapter_folder(settings.storage.root, 3).mkdir(parents=True)
    (adapter_folder(settings.storage.root, 3) / "stale.json").write_text("{}", "utf-8")
    path = train_adapter(load_encoder(folder, None, "cpu"), TEXTS, FACTORS, settings, StepId(3, -1))
    assert contents(path) == contents(trained[1])


def test_only_the_first_items_are_learned(folder: Path, tmp_path: Path) -> None:
    encoder = load_encoder(folder, None, "cpu")
    paths = []
    for count in (40, 64):
        settings = settings_in(tmp_path / str(count), folder, items=40, epochs=1)
        paths.append(train_adapter(encoder, TEXTS[:count], FACTORS[:count], settings, StepId(1, 0)))
    assert contents(paths[0]) == contents(paths[1])


def test_what_cannot_be_adapted_is_left_as_it_was(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = load_encoder(folder, None, "cpu")
    before = encoder.encode(TEXTS[:2])
    monkeypatch.setattr(adapter, "_ATTENTION", {"nothing"})
    with pytest.raises(ConfigError, match="items.adapter.enabled"):
        train_adapter(encoder, TEXTS, FACTORS, settings_in(tmp_path, folder), StepId(1, 0))
    monkeypatch.undo()
    monkeypatch.setattr(adapter, "_pass", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        train_adapter(encoder, TEXTS, FACTORS, settings_in(tmp_path, folder), StepId(1, 0))
    assert np.array_equal(encoder.encode(TEXTS[:2]), before)
    assert not list(tmp_path.rglob("*.safetensors"))


def test_a_folder_without_an_adapter_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no adapter"):
        load_encoder(folder, tmp_path, "cpu")
