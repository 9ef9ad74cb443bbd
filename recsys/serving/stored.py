"""The arrays of a version as its artifact stores them: no wider than needed, and compressed.

What an array may lose is declared with its axes, and so is what may help to store it: that the entries of a row may
change places, or that it often equals another one. The rest is exact: whole numbers take as few bytes as hold them, and
Zstandard finds what repeats. It is given the numbers as they are or the differences of neighboring ones, in order or
byte by byte (as the shuffle filter of HDF5 does), whichever makes a sample of the array smallest.
"""

import json
import math
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from typing import Any, NamedTuple

import numpy as np

from .arrays import Array, Arrays
from .axes import Axes, Declared, Loss, declared_name

# What an artifact calls its file of arrays.
ARRAYS_FILE = "arrays.safetensors"
# How arrays are stored: JSON text, {name: {"type", "values", "shape", "loss", "codec", "layout"}}. Arrays that it does
# not name are as they were.
FORMS = "forms"
# Smaller arrays stay as they are.
_SMALL_BYTES = 1 << 12
_CODEC = "zstd"
# Its levels: for what is written once and read often, and for what is mostly never read.
SMALL, QUICK = 5, 1
# Arrays that are compressed at once, each with a copy of its own.
_THREADS = 2
# Numbers of an array on which layouts are tried.
_SAMPLE = 1 << 14
_INTEGERS = ("u1", "i1", "u2", "i2", "u4", "i4")
_LEVELS = 2**14 - 1
# Of logarithms: of all, and of a factor of 2.
_STEPS, _STEPS_PER_DOUBLING = 2**16 - 2, 2**12
_SCALE, _RANGE = "@scale", "@range"


class _Layout(NamedTuple):
    """How the bits of numbers are laid out before they are compressed.

    Attributes:
        like: the array whose bits, number by number, are subtracted; None for none.
        differences: whether the preceding number's bits are subtracted.
        by_byte: first bytes of all numbers, then all second ones, and so on.
    """

    like: str | None
    differences: bool
    by_byte: bool


# Of versions that do not say.
_EARLIER = _Layout(like=None, differences=False, by_byte=True)
# Of arrays that are not declared.
_EXACT = Axes(())


def stored(arrays: Arrays, declared: Declared, effort: int = SMALL) -> dict[str, Array]:
    """Arrays as they are stored.

    Args:
        arrays: By name.
        declared: What each of them may lose, and what helps to store it; others are stored exactly, as they are.
        effort: `SMALL` or `QUICK`.
    """
    found: dict[str, Array] = {}
    forms: dict[str, dict[str, Any]] = {}
    bits: dict[str, Array] = {}
    axes = {name: declared.get(declared_name(name), _EXACT) for name in arrays}
    for name, array in _sorted(arrays, axes).items():
        if array.nbytes < _SMALL_BYTES:
            found[name] = array
            continue
        loss = axes[name].loss if array.dtype.kind == "f" else Loss.NONE
        values, beside = _ROUND[loss](array) if array.dtype.kind == "f" else (_narrowed(array), {})
        found |= {f"{name}{suffix}": extra for suffix, extra in beside.items()}
        types = {"type": array.dtype.str, "values": values.dtype.str}
        forms[name] = {**types, "shape": array.shape, "loss": loss.name, "codec": _CODEC}
        bits[name] = np.ascontiguousarray(values).reshape(-1).view(f"u{values.itemsize}")

    def packed(name: str) -> Array:
        layout = forms[name]["layout"] = _smallest(name, axes[name].like, bits, effort)
        return _compressed(_laid_out(bits[name], layout, bits), effort)

    with ThreadPoolExecutor(_THREADS) as pool:  # the codec lets other threads run
        found |= dict(zip(bits, pool.map(packed, bits), strict=True))
    return found | {FORMS: np.frombuffer(json.dumps(forms).encode(), np.uint8).copy()}


def restored(arrays: Arrays) -> dict[str, Array]:
    """Undo `stored`, but for what was lost; arrays that were never stored by it are returned as they are."""
    if FORMS not in arrays:
        return dict(arrays)
    forms: Mapping[str, Any] = json.loads(arrays[FORMS].tobytes())
    layouts = {name: _Layout(*form.get("layout", _EARLIER)) for name, form in forms.items()}

    def unpacked(name: str) -> Array:
        return _back_in_order(_decompressed(arrays[name], forms[name]), forms[name], layouts[name])

    with ThreadPoolExecutor(_THREADS) as pool:
        bits = dict(zip(forms, pool.map(unpacked, forms), strict=True))
    extra = {f"{name}{suffix}" for name in forms for suffix in (_SCALE, _RANGE)} | {FORMS}
    # Copied: what is mapped would follow what becomes of the file.
    found = {name: array.copy() for name, array in arrays.items() if name not in extra}
    for name, form in forms.items():
        like = layouts[name].like
        own = bits[name] if like is None else bits[name] + bits[like]
        values = own.view(form["values"]).reshape(form["shape"])
        found[name] = _BACK[Loss[form["loss"]]](values, arrays, name).astype(form["type"], copy=False)
    return found


def _sorted(arrays: Arrays, axes: Mapping[str, Axes]) -> dict[str, Array]:
    """Arrays, the rows of those that are `sorted_by` another one in the descending order of its rows."""
    found, orders = dict(arrays), dict[str, Array]()
    for name in arrays:
        by = axes[name].sorted_by
        if by is not None:
            if by not in orders:
                orders[by] = np.argsort(-arrays[by], axis=-1, kind="stable")
            found[name] = np.take_along_axis(arrays[name], orders[by], axis=-1)
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
    """Multiples of a 16,383rd of the largest number of each row."""
    scale = np.abs(array).max(axis=-1, keepdims=True, initial=0) / _LEVELS
    return np.rint(array / np.where(scale > 0, scale, 1)).astype(np.int16), {_SCALE: scale.astype(np.float32)}


def _logarithmic(array: Array) -> tuple[Array, dict[str, Array]]:
    """Powers of 2 with equal steps from the smallest positive number on, and 0 as such."""
    if not array.size or array.min() < 0 or not array.any():
        return array, {}
    logs = np.log2(array, where=array > 0, out=np.zeros(array.shape))
    low, high = logs[array > 0].min(), logs[array > 0].max()
    high = max(high, low + _STEPS / _STEPS_PER_DOUBLING)
    steps = np.rint((logs - low) * _STEPS / (high - low)) + 1
    return np.where(array > 0, steps, 0).astype(np.uint16), {_RANGE: np.array([low, high])}


def _from_rows(values: Array, arrays: Arrays, name: str) -> Array:
    product: Array = values * arrays[f"{name}{_SCALE}"]
    return product


def _from_logarithms(values: Array, arrays: Arrays, name: str) -> Array:
    if f"{name}{_RANGE}" not in arrays:
        return values
    low, high = arrays[f"{name}{_RANGE}"].tolist()
    # Every step once, so that a number always comes back as the same one.
    powers = np.exp2(low + (np.arange(2**16) - 1) * (high - low) / _STEPS)
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


def _smallest(name: str, like: str | None, bits: Arrays, effort: int) -> _Layout:
    """The layout in which a sample of an array takes the fewest bytes.

    Args:
        name: of the array.
        like: name of the array that it often equals.
        bits: (n,) of all arrays, as unsigned whole numbers.
        effort: of the codec.
    """
    likes: list[str | None] = [None]
    start = max((bits[name].size - _SAMPLE) // 2, 0)
    sample = {name: bits[name][start : start + _SAMPLE]}
    if like is not None and like in bits and (bits[like].size, bits[like].dtype) == (bits[name].size, bits[name].dtype):
        likes, sample = [None, like], sample | {like: bits[like][start : start + _SAMPLE]}
    layouts = [_Layout(*choice) for choice in product(likes, (False, True), (False, True))]
    return min(layouts, key=lambda layout: _compressed(_laid_out(sample[name], layout, sample), effort).size)


def _laid_out(own: Array, layout: _Layout, bits: Arrays) -> Array:
    """The bytes of bits (n,) in a layout; what they are like is found among the bits of all arrays."""
    if layout.like is not None:
        own = own - bits[layout.like]
    if layout.differences:
        own, before = own.copy(), own
        own[1:] -= before[:-1]
    return own.view(np.uint8).reshape(-1, own.itemsize).T if layout.by_byte else own


def _back_in_order(content: Array, form: Mapping[str, Any], layout: _Layout) -> Array:
    """Undo `_laid_out`, but for what they are like."""
    size = np.dtype(form["values"]).itemsize
    if layout.by_byte:
        content = np.ascontiguousarray(content.reshape(size, -1).T).reshape(-1)
    own = content.view(f"u{size}")
    return np.cumsum(own, dtype=own.dtype) if layout.differences else own


def _compressed(content: Array, effort: int) -> Array:
    """The bytes of an array, compressed."""
    import pyarrow as pa  # The live model, which shares this folder, does without.

    codec = pa.Codec(_CODEC, compression_level=effort)
    return np.frombuffer(codec.compress(content.tobytes(), asbytes=True), np.uint8).copy()


def _decompressed(compressed: Array, form: Mapping[str, Any]) -> Array:
    """Undo `_compressed`: (b,) bytes."""
    import pyarrow as pa

    size = math.prod(form["shape"]) * np.dtype(form["values"]).itemsize
    content: Array = np.frombuffer(pa.decompress(pa.py_buffer(compressed), size, codec=form["codec"]), np.uint8)
    return content
