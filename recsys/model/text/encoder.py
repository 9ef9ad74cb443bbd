"""Embeddings of item texts by a pretrained sentence encoder; each text is encoded once and kept on disk."""

import hashlib
import importlib.util
import logging
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from tqdm import tqdm

from recsys.config import Settings
from recsys.errors import ConfigError, InputError
from recsys.model.common.arrays import Float32Array
from recsys.model.common.device import resolve_device
from recsys.model.text.adapter import merge_adapter
from recsys.storage import Place, at_hand, items_folder, written

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

_log = logging.getLogger(__name__)

_TEXTS_AT_ONCE = 256
# Formats that can carry code; only safetensors and JSON are ever read.
_UNSAFE = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.pickle", "*.ckpt")
# What an encoder is made of, for its fingerprint.
_PARTS = (".safetensors", ".json", ".txt", ".model")
_KEY_BYTES = 16


@dataclass(frozen=True)
class Catalog:
    """Items with a text, cold ones and others.

    Attributes:
        ids: n distinct ids.
        texts: n texts, none of them blank.
    """

    ids: list[str]
    texts: list[str]

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def of(cls, ids: Sequence[str], titles: Sequence[str | None], texts: Sequence[str | None]) -> "Catalog":
        """Join title and text of each item; an item with neither is left out, and of equal ids the last one counts.

        Args:
            ids, titles, texts: n each; None or blank where missing. A title that the text contains is not repeated.
        """
        joined = {}
        for item, title, text in zip(ids, titles, texts, strict=True):
            title, text = (title or "").strip(), (text or "").strip()
            whole = text if title.casefold() in text.casefold() else f"{title}. {text}".removesuffix(". ")
            if whole:
                joined[item] = whole
        return cls(list(joined), list(joined.values()))


class TextEmbeddings:
    """Embeddings of texts by one encoder, with a cache under `<storage.root>/items`.

    The encoder is loaded only when a text is not in the cache. The last bits of an embedding depend on the other texts
    of its batch; the cache keeps the first result, so that it stays the same.

    Args:
        settings: Uses the sections `items` and `storage`, and `device`.
        adapter: Folder that `adapter.train_adapter` wrote; None: the encoder without an adapter.

    Raises:
        ConfigError: the packages of the extra `text` are missing, or the device is not there.
        InputError: there is no such encoder.
    """

    def __init__(self, settings: Settings, adapter: Place | None = None) -> None:
        self._device = str(resolve_device(settings.device))
        self._folder, self._adapter = encoder_folder(settings.items.encoder), adapter
        with self._adapter_at_hand() as near:
            name = f"embeddings-{_fingerprint([self._folder, *([near] if near else [])])}.safetensors"
        self.path = items_folder(settings.storage.root) / name
        keys, self._values = _read(self.path)
        self._rows = {key: row for row, key in enumerate(keys)}

    def of(self, texts: Sequence[str]) -> Float32Array:
        """Unit vectors (n, d) of n texts; new ones are encoded and added to the file.

        Raises:
            ConfigError: the packages of the extra `text` are missing.
            InputError: the encoder cannot be loaded.
        """
        keys = [_key(text) for text in texts]
        new = {key: text for key, text in zip(keys, texts, strict=True) if key not in self._rows}
        if new:
            with self._adapter_at_hand() as near:
                encoder = load_encoder(self._folder, near, self._device)
            added = encode(encoder, list(new.values()))
            self._values = np.concatenate([self._values.reshape(-1, added.shape[1]), added])
            self._rows |= {key: len(self._rows) + place for place, key in enumerate(new)}
            _write(self.path, list(self._rows), self._values)
        return self._values[np.fromiter(map(self._rows.__getitem__, keys), np.int64, len(keys))]

    def _adapter_at_hand(self) -> AbstractContextManager[Path | None]:
        return nullcontext() if self._adapter is None else at_hand(self._adapter)


def encoder_folder(name: str) -> Path:
    """Where an encoder lies: a local folder as it is, else a model of the hub, downloaded unless it was before.

    Raises:
        ConfigError: the packages of the extra `text` are missing.
        InputError: there is no such folder or model, or it has weights that are not in safetensors.
    """
    folder = Path(name)
    if not folder.is_dir():
        _require_packages()
        from huggingface_hub import snapshot_download

        try:
            folder = Path(snapshot_download(name, ignore_patterns=[*_UNSAFE, "*.onnx", "openvino/*", "*.h5", "*.ot"]))
        except (OSError, ValueError) as error:
            raise InputError(f"cannot find the encoder {name}: {' '.join(str(error).split())}") from error
    if not (folder / "modules.json").is_file():
        raise InputError(f"{folder} is no sentence encoder: it has no modules.json")
    unsafe = [file for pattern in _UNSAFE for file in folder.rglob(pattern) if not _has_safe_twin(file)]
    if unsafe:
        raise InputError(f"{unsafe[0]} is not read: convert the encoder's weights to safetensors")
    return folder


def load_encoder(folder: Path, adapter: Path | None, device: str) -> "SentenceTransformer":
    """Load an encoder from its folder, an adapter merged into its weights.

    Raises:
        ConfigError: the packages of the extra `text` are missing.
        InputError: the files cannot be used.
    """
    _require_packages()
    from sentence_transformers import SentenceTransformer

    try:
        encoder = SentenceTransformer(
            str(folder),
            device=device,
            trust_remote_code=False,
            local_files_only=True,
            model_kwargs={"use_safetensors": True},
        )
        if adapter:
            merge_adapter(encoder, adapter)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise InputError(f"cannot load the encoder {folder}: {' '.join(str(error).split())}") from error
    return encoder


def encode(encoder: "SentenceTransformer", texts: Sequence[str]) -> Float32Array:
    """Unit vectors (n, d) of n texts, n > 0, with a progress bar."""
    parts = [
        encoder.encode(list(texts[begin : begin + _TEXTS_AT_ONCE]), normalize_embeddings=True, show_progress_bar=False)
        for begin in tqdm(range(0, len(texts), _TEXTS_AT_ONCE), desc="encode items", unit_scale=_TEXTS_AT_ONCE)
    ]
    return np.concatenate(parts).astype(np.float32)


def _require_packages() -> None:
    missing = [name for name in ("sentence_transformers", "peft") if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(f"item text needs {missing[0]}: pip install 'recsys-stream[text]'")


def _has_safe_twin(file: Path) -> bool:
    """Whether the same weights lie beside a file as safetensors, which are preferred."""
    return any(file.parent.glob("*.safetensors"))


def _fingerprint(folders: Sequence[Path]) -> str:
    """Sixteen hex digits that change with any file an encoder or adapter is made of."""
    digest = hashlib.sha256()
    for folder in folders:
        for file in sorted(path for path in folder.rglob("*") if path.suffix in _PARTS):
            with file.open("rb") as opened:
                content = hashlib.file_digest(opened, "sha256").hexdigest()
            digest.update(f"{file.relative_to(folder).as_posix()} {content}\n".encode())
    return digest.hexdigest()[:16]


def _key(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:_KEY_BYTES]


def _read(path: Place) -> tuple[list[bytes], Float32Array]:
    """Keys and embeddings (n, d) of a file, none where it is missing or damaged: it only saves time."""
    try:
        with at_hand(path) as file:
            arrays = load_file(file)
        keys: npt.NDArray[np.uint8] = arrays["keys"]
        return [key.tobytes() for key in keys], arrays["embeddings"]
    except FileNotFoundError:
        pass
    except (OSError, SafetensorError, KeyError) as error:
        _log.warning("items are encoded again, since %s cannot be read: %s", path, error)
    return [], np.zeros((0, 0), dtype=np.float32)


def _write(path: Place, keys: Sequence[bytes], embeddings: Float32Array) -> None:
    """Replace the file. At any instant there is the old one or the new one."""
    table = np.frombuffer(b"".join(keys), dtype=np.uint8).reshape(-1, _KEY_BYTES)
    with written(path) as file:
        save_file({"keys": table, "embeddings": embeddings}, file)
