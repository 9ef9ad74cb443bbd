"""The arrays of a version as its artifact stores them: no wider than needed, and compressed.

What an array may lose is declared with its axes. The rest is exact: whole numbers take as few bytes as hold them, and
Zstandard, byte by byte of the numbers (as the shuffle filter of HDF5 does), finds what repeats.
"""

import json
import math
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from .arrays import Array, Arrays
from .axes import Declared, Loss, declared_name

# What an artifact calls its file of arrays.
ARRAYS_FILE = "arrays.safetensors"
# How arrays are stored: JSON text, {name: {"type", "values", "shape", "loss", "codec"}}. Arrays that it does not name
# are as they were.
FORMS = "forms"
# Smaller arrays stay as they are.
_SMALL_BYTES = 1 << 12
# At its lowest level: as small as by zlib, in a quarter of the time.
_CODEC = "zstd"
_INTEGERS = ("u1", "i1", "u2", "i2", "u4", "i4")
_LEVELS = 2**15 - 1
_SCALE, _RANGE = "@scale", "@range"


def stored(arrays: Arrays, declared: Declared) -> dict[str, Array]:
    """Arrays as they are stored.

    Args:
        arrays: By name.
        declared: What each of them may lose; others are stored exactly.
    """
    found: dict[str, Array] = {}
    forms: dict[str, dict[str, Any]] = {}
    flat: dict[str, Array] = {}
    for name, array in arrays.items():
        axes = declared.get(declared_name(name))
        loss = Loss.NONE if axes is None or array.dtype.kind != "f" else axes.loss
        if array.nbytes < _SMALL_BYTES:
            found[name] = array
            continue
        values, beside = _ROUND[loss](array) if array.dtype.kind == "f" else (_narrowed(array), {})
        found |= {f"{name}{suffix}": extra for suffix, extra in beside.items()}
        types = {"type": array.dtype.str, "values": values.dtype.str}
        forms[name] = {**types, "shape": array.shape, "loss": loss.name, "codec": _CODEC}
        flat[name] = values
    with ThreadPoolExecutor() as pool:  # the codec lets other threads run
        found |= dict(zip(flat, pool.map(_compressed, flat.values()), strict=True))
    return found | {FORMS: np.frombuffer(json.dumps(forms).encode(), np.uint8).copy()}


def restored(arrays: Arrays) -> dict[str, Array]:
    """Undo `stored`, but for what was lost; arrays that were never stored by it are returned as they are."""
    if FORMS not in arrays:
        return dict(arrays)
    forms: Mapping[str, Any] = json.loads(arrays[FORMS].tobytes())
    with ThreadPoolExecutor() as pool:
        values = dict(zip(forms, pool.map(lambda name: _decompressed(arrays[name], forms[name]), forms), strict=True))
    extra = {f"{name}{suffix}" for name in forms for suffix in (_SCALE, _RANGE)} | {FORMS}
    # Copied: what is mapped would follow what becomes of the file.
    found = {name: array.copy() for name, array in arrays.items() if name not in extra}
    for name, form in forms.items():
        found[name] = _BACK[Loss[form["loss"]]](values[name], arrays, name).astype(form["type"], copy=False)
    return found


def _narrowed(array: Array) -> Array:
    """Whole numbers in the smallest type that holds them; other arrays as they are."""
    if array.dtype.kind not in "iu" or not array.size:
        return array
    least, most = int(array.min()), int(array.max())
    for kind in _INTEGERS:
        limits = np.iinfo(kind)
        if limits.min <= least and most <= limits.max:
            return array.astype(kind)
    return array


def _exact(array: Array) -> tuple[Array, dict[str, Array]]:
    """Numbers that are whole as such, others as they are."""
    whole = np.isfinite(array).all() and bool((np.abs(array) < 2**31).all()) and bool((array == np.rint(array)).all())
    # A negative zero would come back as a positive one.
    if whole and not np.signbit(array[array == 0]).any():
        return _narrowed(array.astype(np.int64)), {}
    return array, {}


def _single(array: Array) -> tuple[Array, dict[str, Array]]:
    """Whole numbers as such, others in single precision."""
    values, _ = _exact(array)
    return (values.astype(np.float32) if values.dtype.kind == "f" else values), {}


def _by_row(array: Array) -> tuple[Array, dict[str, Array]]:
    """Multiples of a 32,767th of the largest number of each row."""
    scale = np.abs(array).max(axis=-1, keepdims=True, initial=0) / _LEVELS
    return np.rint(array / np.where(scale > 0, scale, 1)).astype(np.int16), {_SCALE: scale.astype(np.float32)}


def _logarithmic(array: Array) -> tuple[Array, dict[str, Array]]:
    """Powers with equal steps between the smallest and the largest positive number, in 65,535 steps; 0 as such."""
    if not array.size or array.min() < 0 or not array.any():
        return array, {}
    logs = np.log2(array, where=array > 0, out=np.zeros(array.shape))
    low, high = logs[array > 0].min(), logs[array > 0].max()
    steps = np.rint((logs - low) * (2**16 - 2) / max(high - low, 1e-300)) + 1
    return np.where(array > 0, steps, 0).astype(np.uint16), {_RANGE: np.array([low, high])}


def _from_rows(values: Array, arrays: Arrays, name: str) -> Array:
    product: Array = values * arrays[f"{name}{_SCALE}"]
    return product


def _from_logarithms(values: Array, arrays: Arrays, name: str) -> Array:
    if f"{name}{_RANGE}" not in arrays:
        return values
    low, high = arrays[f"{name}{_RANGE}"].tolist()
    # Every step once, so that a number always comes back as the same one.
    powers = np.exp2(low + (np.arange(2**16) - 1) * (high - low) / (2**16 - 2))
    powers[0] = 0
    found: Array = powers[values]
    return found


def _as_they_are(values: Array, arrays: Arrays, name: str) -> Array:
    return values


_ROUND = {Loss.NONE: _exact, Loss.SINGLE: _single, Loss.BY_ROW: _by_row, Loss.LOGARITHMIC: _logarithmic}
_BACK = {
    Loss.NONE: _as_they_are,
    Loss.SINGLE: _as_they_are,
    Loss.BY_ROW: _from_rows,
    Loss.LOGARITHMIC: _from_logarithms,
}


def _compressed(values: Array) -> Array:
    """First bytes of all numbers, then all second ones, and so on, compressed."""
    import pyarrow as pa  # The live model, which shares this folder, does without.

    bytes_ = np.ascontiguousarray(values).view(np.uint8).reshape(-1, values.itemsize)
    return np.frombuffer(pa.compress(bytes_.T.tobytes(), codec=_CODEC, asbytes=True), np.uint8).copy()


def _decompressed(compressed: Array, form: Mapping[str, Any]) -> Array:
    """Undo `_compressed`."""
    import pyarrow as pa

    kind = np.dtype(form["values"])
    size = math.prod(form["shape"]) * kind.itemsize
    content = pa.decompress(pa.py_buffer(compressed), size, codec=form["codec"])
    bytes_ = np.frombuffer(content, np.uint8).reshape(kind.itemsize, -1)
    values: Array = np.ascontiguousarray(bytes_.T).reshape(-1).view(kind).reshape(form["shape"])
    return values
