"""A model as it is served: what a registered version holds."""

from dataclasses import dataclass

import numpy as np

from .arrays import Array, Arrays
from .ids import pack_ids, unpack_ids

_SIDES = ("user", "item")


@dataclass(frozen=True)
class Served:
    """A model as it is served.

    Attributes:
        kind: `model.kind` of what made it, a key of `version.KINDS`.
        user_ids, item_ids: ids in the order of the rows of the arrays.
        arrays: those of the kind's scorer and of `version.SHARED`, see `version.declared_axes`.
    """

    kind: str
    user_ids: list[str]
    item_ids: list[str]
    arrays: Arrays

    def packed(self) -> dict[str, Array]:
        """Everything as arrays, as the artifact of a version holds it."""
        packed = {"kind": np.frombuffer(self.kind.encode(), dtype=np.uint8).copy(), **self.arrays}
        for side, ids in zip(_SIDES, (self.user_ids, self.item_ids), strict=True):
            packed[f"{side}_ids_bytes"], packed[f"{side}_ids_offsets"] = pack_ids(ids)
        return packed

    @classmethod
    def of_packed(cls, packed: Arrays) -> "Served":
        """Undo `packed`.

        Raises:
            KeyError: something is missing.
        """
        users, items = (unpack_ids(packed[f"{side}_ids_bytes"], packed[f"{side}_ids_offsets"]) for side in _SIDES)
        other = {"kind", *(f"{side}_ids_{what}" for side in _SIDES for what in ("bytes", "offsets"))}
        return cls(kind_of(packed), users, items, {name: array for name, array in packed.items() if name not in other})


def kind_of(packed: Arrays) -> str:
    """The kind of a packed model."""
    return str(packed["kind"].tobytes().decode())
