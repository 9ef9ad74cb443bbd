"""What the axes of a version's arrays stand for, so that items can be added to all of them and none is missed."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum

import numpy as np

from .arrays import Array, Arrays

USERS, ITEMS = "users", "items"


class NewItem(Enum):
    """What an array holds for a cold item, one that nobody has interacted with."""

    ZERO = "nothing was counted for it"
    # Its age is 0; a clock that stands at 0 for it would make it the oldest item of all.
    NOW = "the value of the scorer's array `clock`, as if it had appeared just now"
    # Zeros would be an item unlike any that the scorer has seen; the mean is an item of which it knows nothing special.
    MEAN = "the mean of the known items"
    TEXT = "what is predicted from its text"
    VECTOR = "the coded vector of its text, or of its own"


class Loss(Enum):
    """What an array may lose when a version is stored."""

    NONE = "nothing"
    SINGLE = "what single precision does not hold"
    BY_ROW = "less than a 32,000th of the largest number of the row"
    LOGARITHMIC = "a relative error of some 0.01 percent, where the largest number is below 65,000 times the smallest"


@dataclass(frozen=True)
class Axes:
    """The axes of one array.

    Attributes:
        names: of the axes in order; `USERS` and `ITEMS` have one entry for each user or item of the version.
        new_item: what a cold item gets; for arrays with an axis `ITEMS`, and for no others.
        loss: what it may lose when it is stored.
        sorted_by: the array of the same shape by whose numbers each row may be sorted when it is stored, as where an
            entry stands says nothing; arrays with the same entries are sorted by the same one.
        like: the array of the same shape that it often equals, number by number.
    """

    names: tuple[str, ...]
    new_item: NewItem | None = None
    loss: Loss = Loss.NONE
    sorted_by: str | None = None
    like: str | None = None

    def __post_init__(self) -> None:
        if self.names.count(ITEMS) != (self.new_item is not None):
            raise ValueError(f"axes {self.names} need a value for new items exactly where they have one axis '{ITEMS}'")


Declared = Mapping[str, Axes]


def declared_name(name: str) -> str:
    """The name under which an array is declared: numbers between points, as of layers, are written `N`."""
    return ".".join("N" if word.isdigit() else word for word in name.split("."))


def of_members(members: Mapping[str, Declared]) -> dict[str, Axes]:
    """The axes of arrays whose names begin with the name of a member and a point."""
    found = dict[str, Axes]()
    for member, own in members.items():
        for name, axes in own.items():
            sorted_by, like = (other and f"{member}.{other}" for other in (axes.sorted_by, axes.like))
            found[f"{member}.{name}"] = replace(axes, sorted_by=sorted_by, like=like)
    return found


def with_new_items(arrays: Arrays, declared: Declared, count: int, from_text: Arrays) -> dict[str, Array]:
    """Add cold items at the end of every array that runs along items.

    Args:
        arrays: All arrays of a version.
        declared: The axes of each, and maybe of others.
        count: How many items are added.
        from_text: The added entries of the arrays whose `new_item` is `TEXT` or `VECTOR`.

    Raises:
        KeyError: an array is not declared.
    """
    extended = dict(arrays)
    for name, array in arrays.items():
        axes = declared[declared_name(name)]
        if axes.new_item is None:
            continue
        axis = axes.names.index(ITEMS)
        if axes.new_item in (NewItem.TEXT, NewItem.VECTOR):
            added = from_text[name]
        else:
            shape = [*array.shape[:axis], count, *array.shape[axis + 1 :]]
            added = np.broadcast_to(_value(arrays, name, axes.new_item, axis), shape).astype(array.dtype)
        extended[name] = np.concatenate([array, added], axis=axis)
    return extended


def _value(arrays: Arrays, name: str, new_item: NewItem, axis: int) -> Array:
    """What every new item gets, to be broadcast."""
    if new_item is NewItem.MEAN:
        return np.asarray(arrays[name].mean(axis=axis, keepdims=True, dtype=np.float64))
    if new_item is NewItem.NOW:
        member, point, _ = name.rpartition(".")
        return np.asarray(arrays[f"{member}{point}clock"][0])
    return np.zeros(())
