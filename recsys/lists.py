"""Ids as they are handed in, and the lists that come out."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from recsys.contracts import ITEM, USER
from recsys.errors import InputError
from recsys.frames import to_frame
from recsys.serving.similar import nearest_items

if TYPE_CHECKING:
    import pandas as pd

RANK, SCORE = "rank", "score"
# Whole numbers below it are exact as floating-point numbers.
_EXACT = 2**53


def similar_frame(
    item_id: str | int, row: int, arrays: Mapping[str, npt.NDArray[Any]], ids: Sequence[str], k: int
) -> "pd.DataFrame":
    """The items nearest to another one: `rank`, `item_id`, `score`.

    Args:
        item_id: The item, as it was asked for.
        row: Its row, -1 if the model does not know it.
        arrays: What `nearest_items` reads.
        ids: Ids of the items by row.
        k: Length of the list.

    Raises:
        InputError: the model does not know the item, or its kind compares no items.
    """
    if row < 0:
        raise InputError(f"the model knows no item '{item_id}'")
    found = nearest_items(arrays, row, k)
    if found is None:
        raise InputError("this model compares no items: set model.kind to mixture, als, ncf or cooccurrence")
    rows, scores = found
    columns = {RANK: np.arange(1, len(rows) + 1), ITEM: [ids[row] for row in rows.tolist()], SCORE: scores}
    frame: pd.DataFrame = to_frame(columns)
    return frame


def lists_frame(
    users: Sequence[str],
    lists: Sequence[Sequence[tuple[str, float]]],
    explanations: Sequence[str] | None = None,
    titles: Mapping[str, str] | None = None,
) -> "pd.DataFrame":
    """Lists of n users, item ids and scores, one after the other: `user_id`, `rank`, `item_id`, `score`.

    With titles by item, also `title`, null for an item without; with explanations, one for each, also `explanation`.
    """
    lengths = [len(own) for own in lists]
    columns = {
        USER: [user for user, own in zip(users, lists, strict=True) for _ in own],
        RANK: np.concatenate([np.arange(0), *(np.arange(1, length + 1) for length in lengths)]),
        ITEM: [item for own in lists for item, _ in own],
        **({"title": [titles.get(item) for own in lists for item, _ in own]} if titles else {}),
        SCORE: np.array([score for own in lists for _, score in own], dtype=np.float64),
        **({} if explanations is None else {"explanation": list(explanations)}),
    }
    frame: pd.DataFrame = to_frame(columns)
    return frame


@dataclass(frozen=True)
class AskedFor:
    """What is asked for beside users and length; lists of items hold for all users of a call.

    Attributes:
        exclude_seen: leave out what the users have interacted with; None: as the model was set.
        candidates: choose among these items; exclude_items: recommend none of these; recent_items: what the users have
            done since the model was made, latest last.
        explain: say why.
    """

    exclude_seen: bool | None = None
    candidates: Iterable[str | int] | None = None
    exclude_items: Iterable[str | int] | None = None
    recent_items: Iterable[str | int] | None = None
    explain: bool = False

    @property
    def plain(self) -> bool:
        """Whether nothing is asked for."""
        given = (self.exclude_seen, self.candidates, self.exclude_items, self.recent_items)
        return not self.explain and all(one is None for one in given)

    def columns(self, users: Sequence[str], k: int | None) -> dict[str, list[Any]]:
        """Columns of the task `recommend`, see `serving.Answers`.

        Raises:
            InputError: something is no id, or `k` no length.
        """
        given = {name: getattr(self, name) for name in ("candidates", "exclude_items", "recent_items")}
        lists = {name: as_ids(some, name) for name, some in given.items() if some is not None}
        same: dict[str, Any] = {"k": None if k is None else as_length(k), "exclude_seen": self.exclude_seen, **lists}
        same |= {"explain": self.explain or None}
        columns = {name: [value] * len(users) for name, value in same.items() if value is not None}
        return {"user_id": list(users), **columns}


def answered_frame(
    users: Sequence[str], found: Any, stamp: dict[str, Any], titles: Mapping[str, str] | None = None
) -> "pd.DataFrame":
    """The answer of the task `recommend` as a frame, see `lists_frame`.

    Args:
        users: n ids.
        found: the answer, columns by name.
        stamp: what explanations say of the model.
        titles: by item.
    """
    lists = [list(zip(*own, strict=True)) for own in zip(found["item_ids"], found["scores"], strict=True)]
    told = [json.loads(text) for text in found["explanations"]] if "explanations" in found else None
    kept = ("contributions", "because")
    return lists_frame(
        users,
        lists,
        None
        if told is None
        else [json.dumps({name: one[name] for name in kept} | stamp) for own in told for one in own["items"]],
        titles,
    )


def as_pairs(
    user_ids: str | int | Iterable[str | int],
    item_ids: str | int | Iterable[str | int],
    recent_items: Iterable[str | int] | None,
) -> dict[str, list[Any]]:
    """Columns of the task `score`: as many users as items, or one user for all items.

    Raises:
        InputError: something is no id, or there are other numbers of them.
    """
    users, items = as_ids(user_ids), as_ids(item_ids, "item_ids")
    users = users * len(items) if len(users) == 1 else users
    if len(users) != len(items):
        raise InputError(f"there are {len(users)} user_ids and {len(items)} item_ids: give pairs, or one user")
    recent = None if recent_items is None else as_ids(recent_items, "recent_items")
    return {"user_id": users, "item_id": items, "recent_items": [recent] * len(users)}


def as_ids(given: Any, name: str = "user_ids") -> list[str]:
    """Ids as text, of a single one or of several.

    Args:
        given: What was handed in.
        name: As which argument.

    Raises:
        InputError: there is something else.
    """
    if isinstance(given, str) or np.isscalar(given):
        return [as_id(given)]
    if hasattr(given, "columns") or not isinstance(given, Iterable):
        raise InputError(f"{name} is a {type(given).__name__}: give a list, or one column, of ids")
    return [as_id(one) for one in (given.to_pylist() if hasattr(given, "to_pylist") else given)]


def as_id(given: Any) -> str:
    """An id as text, whole numbers as `fit` reads them.

    Raises:
        InputError: it is neither.
    """
    if isinstance(given, str):
        return given
    if isinstance(given, int | np.integer) and not isinstance(given, bool):
        return str(int(given))
    if isinstance(given, float | np.floating) and float(given).is_integer() and abs(float(given)) < _EXACT:
        return str(int(given))  # A column of whole numbers with gaps.
    raise InputError(f"an id is text or a whole number, not {given!r:.80}")


def as_length(given: Any) -> int:
    """The length of a list.

    Raises:
        InputError: it is no whole number from 1 on.
    """
    if not isinstance(given, int | np.integer) or isinstance(given, bool) or given < 1:
        raise InputError(f"k is a whole number from 1 on, not {given!r:.80}")
    return int(given)
