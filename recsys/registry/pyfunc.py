"""The served model. This file travels inside the artifact, so it imports numpy, pandas, safetensors and MLflow only.

MLflow runs the file when the artifact is loaded (models-from-code): nothing is unpickled. Beside it lie `scorers/`,
which computes the scores, and the arrays: those that the scorers name, and

| name                                     | shape            | type            |
|------------------------------------------|------------------|-----------------|
| `kind`                                   | (bytes,)         | uint8           |
| `user_ids_bytes`, `item_ids_bytes`       | (bytes,)         | uint8           |
| `user_ids_offsets`, `item_ids_offsets`   | (users|items + 1,) | int64         |
| `item_popularity`                        | (items,)         | float32         |
| `seen_offsets`, `seen_items`             | (users + 1,), (seen,) | int64, int32 |
"""

import importlib.util
import sys
import uuid
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel, PythonModelContext
from safetensors.numpy import load_file

Array = npt.NDArray[Any]

UNKNOWN = -1
# Scores of a block fit the cache where the catalogue allows it; very few users at once would waste the multiplication.
BLOCK_BYTES = 8 << 20
USERS_PER_BLOCK = 64


class Scorer(Protocol):
    """What `scorers.VersionScorer` is."""

    def score(self, rows: Array) -> Array:
        """(n, items) float32 for rows (n,) of users, -1 for unknown ones."""


@dataclass(frozen=True)
class Rankings:
    """Lists of n users, best first, one after the other.

    Attributes:
        lengths: (n,) int64, length of each user's list.
        items: (sum of lengths,) int64, rows of the item arrays.
        scores: (sum of lengths,) float32.
    """

    lengths: npt.NDArray[np.int64]
    items: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float32]


class Ranker:
    """Ranks items for users, in blocks of users so that memory stays bounded.

    Args:
        arrays: all arrays of the version.
        scorer: made from them.
    """

    def __init__(self, arrays: dict[str, Array], scorer: Scorer) -> None:
        self.arrays = arrays
        self.users = len(arrays["user_ids_offsets"]) - 1
        self.items = len(arrays["item_ids_offsets"]) - 1
        self._scorer = scorer

    def rank(self, rows: Array, k: Array, exclude_seen: Array) -> Rankings:
        """Rank the whole catalogue.

        Equal scores are ordered by item row. A list is shorter than `k` when the catalogue is, or when most was seen.

        Args:
            rows: (n,) int64, rows of the users, -1 for an unknown one.
            k: (n,) int64, wanted lengths, at least 1.
            exclude_seen: (n,) bool, leave out the user's own items.
        """
        if self.items == 0 or len(rows) == 0:
            return _nothing(len(rows))
        return _joined([self._rank_block(rows[block], k[block], exclude_seen[block]) for block in self._blocks(rows)])

    def rank_candidates(self, rows: Array, k: Array, exclude_seen: Array, candidates: list[Array]) -> Rankings:
        """Rank some items per user; arguments as in `rank`, `candidates` holds n arrays of item rows."""
        if self.items == 0 or len(rows) == 0:
            return _nothing(len(rows))
        item = np.concatenate(candidates)
        position = np.repeat(np.arange(len(rows)), [len(some) for some in candidates])
        pairs = np.unique(position * self.items + item)
        seen_position, seen_item = self._seen(rows, exclude_seen)
        pairs = pairs[~np.isin(pairs, seen_position * self.items + seen_item)]
        position, item = np.divmod(pairs, self.items)
        score = np.empty(len(pairs), dtype=np.float32)
        for block in self._blocks(rows):
            own = slice(*np.searchsorted(position, (block.start, block.stop)))
            score[own] = self._scorer.score(rows[block])[position[own] - block.start, item[own]]
        return _best_first(position, item, score, k)

    def _blocks(self, rows: Array) -> list[slice]:
        size = max(USERS_PER_BLOCK, BLOCK_BYTES // (4 * self.items))
        return [slice(start, start + size) for start in range(0, len(rows), size)]

    def _rank_block(self, rows: Array, k: Array, exclude_seen: Array) -> Rankings:
        scores = self._scorer.score(rows)
        seen_position, seen_item = self._seen(rows, exclude_seen)
        scores[seen_position, seen_item] = -np.inf
        position, item = _contenders(scores, min(int(k.max()), self.items))
        return _best_first(position, item, scores[position, item], k)

    def _seen(self, rows: Array, exclude_seen: Array) -> tuple[Array, Array]:
        """Pairs (position in `rows`, item row) to leave out."""
        position = np.flatnonzero(exclude_seen & (rows != UNKNOWN))
        start = self.arrays["seen_offsets"][rows[position]]
        length = self.arrays["seen_offsets"][rows[position] + 1] - start
        within = np.arange(length.sum()) - np.repeat(np.cumsum(length) - length, length)
        return np.repeat(position, length), self.arrays["seen_items"][np.repeat(start, length) + within]


class ServedModel(PythonModel):
    """MLflow's face of the ranker. Settings (MLflow's `model_config`): `k`, `exclude_seen`."""

    def load_context(self, context: PythonModelContext) -> None:
        """Read what lies beside this file in the artifact."""
        arrays = load_file(context.artifacts["arrays"])
        self.ranker = Ranker(arrays, _package(Path(context.artifacts["scorers"])).VersionScorer(arrays))
        self._k = int(context.model_config["k"])
        self._exclude_seen = bool(context.model_config["exclude_seen"])

    # Only what is asked by id needs these; whoever scores all users by row does not pay for them.

    @cached_property
    def _item_ids(self) -> Array:
        return np.array(_unpack(self.ranker.arrays["item_ids_bytes"], self.ranker.arrays["item_ids_offsets"]), object)

    @cached_property
    def _item_rows(self) -> dict[str, int]:
        return {item: row for row, item in enumerate(self._item_ids)}

    @cached_property
    def _user_rows(self) -> dict[str, int]:
        user_ids = _unpack(self.ranker.arrays["user_ids_bytes"], self.ranker.arrays["user_ids_offsets"])
        return {user: row for row, user in enumerate(user_ids)}

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Recommend items.

        Args:
            context: unused, MLflow's.
            model_input: `user_id` and, where wanted, `k`, `exclude_seen` and `candidates` (lists of item ids; unknown
                ones are left out). A missing value means the artifact's setting, or the whole catalogue.
            params: unused, MLflow's.

        Returns:
            `user_id`, `item_ids`, `scores`: one row per row of the input, lists best first. Users that are unknown
            get the most popular items.

        Raises:
            ValueError: no column `user_id`, or a `k` below 1.
        """
        if "user_id" not in model_input:
            raise ValueError("the input has no column 'user_id'")
        users = model_input["user_id"].tolist()
        count = len(users)
        rows = np.fromiter((self._user_rows.get(user, UNKNOWN) for user in users), dtype=np.int64, count=count)
        k = _filled(model_input, "k", self._k).astype(np.int64)
        if count and k.min() < 1:
            raise ValueError(f"k must be at least 1, not {k.min()}")
        exclude_seen = _filled(model_input, "exclude_seen", self._exclude_seen).astype(bool)
        candidates = _filled(model_input, "candidates", None)
        given = np.fromiter((some is not None for some in candidates), dtype=bool, count=count)
        item_ids, scores = np.empty(count, dtype=object), np.empty(count, dtype=object)
        ranked = self.ranker.rank(rows[~given], k[~given], exclude_seen[~given])
        item_ids[~given], scores[~given] = self._lists(ranked)
        some_rows = [self._rows_of(some) for some in candidates[given]]
        ranked = self.ranker.rank_candidates(rows[given], k[given], exclude_seen[given], some_rows)
        item_ids[given], scores[given] = self._lists(ranked)
        return pd.DataFrame({"user_id": users, "item_ids": item_ids, "scores": scores})

    def _rows_of(self, item_ids: Any) -> Array:
        known = (self._item_rows.get(item, UNKNOWN) for item in item_ids)
        return np.array([row for row in known if row != UNKNOWN], dtype=np.int64)

    def _lists(self, ranked: Rankings) -> tuple[Array, Array]:
        return (
            _split(self._item_ids[ranked.items], ranked.lengths),
            _split(ranked.scores.astype(np.float64), ranked.lengths),
        )


def _package(folder: Path) -> ModuleType:
    """Import a folder as a package under a name of its own: each version keeps to the code that came with it."""
    name = f"scorers_{uuid.uuid4().hex}"
    spec = importlib.util.spec_from_file_location(
        name, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec is not None
    assert spec.loader is not None
    package = importlib.util.module_from_spec(spec)
    sys.modules[name] = package
    spec.loader.exec_module(package)
    return package


def _contenders(scores: Array, k: int) -> tuple[Array, Array]:
    """Pairs (row, column) that hold each row's k best finite scores, all those equal to the k-th, and a few more.

    The k-th largest maximum of any disjoint groups of columns is never above the k-th largest score, so comparing with
    it loses nothing; partitioning the maxima is several times faster than partitioning the row.
    """
    width = max(1, scores.shape[1] // (8 * k))
    groups = scores.shape[1] // width
    maxima = scores[:, : width * groups].reshape(len(scores), width, groups).max(axis=1)
    bound = np.partition(maxima, groups - k, axis=1)[:, groups - k]
    # Nothing that is left out (-inf) may come back where fewer than k are left.
    bound = np.maximum(bound, np.finfo(scores.dtype).min)
    flat = np.flatnonzero(scores >= bound[:, None])
    row, column = np.divmod(flat, scores.shape[1])
    return row, column


def _best_first(position: Array, item: Array, score: Array, k: Array) -> Rankings:
    """Sort pairs by list, falling score, item; cut each list at its k."""
    order = np.lexsort((item, -score, position))
    position = position[order]
    lengths = np.bincount(position, minlength=len(k))
    place = np.arange(len(order)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    kept = order[place < k[position]]
    return Rankings(np.minimum(lengths, k), item[kept].astype(np.int64), score[kept])


def _nothing(users: int) -> Rankings:
    return Rankings(np.zeros(users, np.int64), np.empty(0, np.int64), np.empty(0, np.float32))


def _joined(parts: list[Rankings]) -> Rankings:
    return Rankings(
        np.concatenate([part.lengths for part in parts]),
        np.concatenate([part.items for part in parts]),
        np.concatenate([part.scores for part in parts]),
    )


def _split(values: Array, lengths: Array) -> Array:
    """An array of lists, of the given lengths."""
    flat, ends = values.tolist(), np.cumsum(lengths).tolist()
    lists = (flat[end - length : end] for length, end in zip(lengths.tolist(), ends, strict=True))
    return np.fromiter(lists, dtype=object, count=len(lengths))


def _filled(frame: pd.DataFrame, column: str, default: Any) -> Array:
    """A column as an array of objects, the default in place of missing values and of a missing column."""
    values = np.empty(len(frame), dtype=object)
    values[:] = default
    if column in frame:
        given = frame[column].notna().to_numpy()
        values[given] = frame[column].astype(object).to_numpy()[given]
    return values


def _unpack(text: Array, offsets: Array) -> list[str]:
    data = text.tobytes()
    bounds = offsets.tolist()
    return [data[start:end].decode("utf-8", "surrogatepass") for start, end in pairwise(bounds)]


set_model(ServedModel())
