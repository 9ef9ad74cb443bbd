"""The tasks of a served version: columns of a request in, columns of the answer out."""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from .arrays import Array, Lists
from .ids import unpack_ids
from .inputs import MOST_RECENT, Columns, RefusedError, flags, id_lists, lengths, required_ids
from .ranker import UNKNOWN, Ranker, Rankings, Wishes
from .similar import nearest_items, vectors

Answer = dict[str, Any]


class Answers:
    """Answers requests, with one line for each that cannot be answered (`RefusedError`).

    Args:
        ranker: The version's.
        k: Length of a list for which nothing else is asked.
        exclude_seen: Whether the user's own items are left out where nothing else is asked.
        stamp: What names the version in explanations.
    """

    def __init__(self, ranker: Ranker, k: int, exclude_seen: bool, stamp: Mapping[str, Any]) -> None:
        self._ranker, self._k, self._exclude_seen, self._stamp = ranker, k, exclude_seen, dict(stamp)

    # Only requests by id need these; a job that scores all users by row does not pay for them.

    @cached_property
    def _item_ids(self) -> Array:
        return np.array(self._ids("item"), object)

    @cached_property
    def _item_rows(self) -> dict[str, int]:
        return {item: row for row, item in enumerate(self._item_ids)}

    @cached_property
    def _user_rows(self) -> dict[str, int]:
        return {user: row for row, user in enumerate(self._ids("user"))}

    def _ids(self, side: str) -> list[str]:
        arrays = self._ranker.arrays
        return unpack_ids(arrays[f"{side}_ids_bytes"], arrays[f"{side}_ids_offsets"])

    def of(self, task: Any, columns: Columns) -> Answer:
        """Answer a request.

        Args:
            task: The name of a method below.
            columns: Its columns, by name.

        Returns:
            Columns, one row for each row of the request, in its order.

        Raises:
            RefusedError: there is no such task, or it cannot be answered.
        """
        tasks: dict[str, Callable[[Columns], Answer]] = {
            "recommend": self.recommend,
            "similar_items": self.similar_items,
            "score": self.score,
            "item_vectors": self.item_vectors,
            "user_vectors": self.user_vectors,
        }
        if task not in tasks:
            raise RefusedError(f"there is no task {task!r:.60}: give one of {', '.join(tasks)}")
        return tasks[task](columns)

    def recommend(self, columns: Columns) -> Answer:
        """Rank items for users.

        Args:
            columns: `user_id` and, optionally, `k`, `exclude_seen`, `candidates`, `exclude_items`, `recent_items`,
                `explain`, `origin`.

        Returns:
            `user_id`, `item_ids`, `scores`, lists best first; with a column `explain`, `explanations`; with a column
            `origin`, `ranking` and `propensity`.
        """
        users, rows = self._users(columns)
        k, exclude_seen = lengths(columns, self._k), flags(columns, "exclude_seen", self._exclude_seen)
        candidates, wishes = id_lists(columns, "candidates"), self._wishes(columns, len(rows))
        explain, origin = flags(columns, "explain", False), flags(columns, "origin", False)
        answer: Answer = {"user_id": users}
        texts = {"explain": "explanations", "origin": "ranking"}
        names = ["item_ids", "scores", *(text for name, text in texts.items() if name in columns)]
        # Without an explanation, empty text: Spark would be given a missing one as the text "None".
        answer |= {name: np.full(len(rows), "", dtype=object) for name in names}
        if "origin" in columns:
            answer["propensity"] = np.full(len(rows), np.nan)
        given = np.array([some is not None for some in candidates], dtype=bool)
        wished = (wishes.recent.lengths + wishes.excluded.lengths) > 0
        for with_candidates, with_wishes in ((False, False), (False, True), (True, False), (True, True)):
            own = np.flatnonzero((given == with_candidates) & (wished == with_wishes))
            if not len(own):
                continue
            asked = wishes.of_users(own) if with_wishes else None
            if with_candidates:
                some = [self._rows_of(candidates[place] or []) for place in own.tolist()]
                ranked = self._ranker.rank_candidates(rows[own], k[own], exclude_seen[own], some, asked)
            else:
                ranked = self._ranker.rank(rows[own], k[own], exclude_seen[own], asked)
            answer["item_ids"][own] = _split(self._item_ids[ranked.items], ranked.lengths)
            answer["scores"][own] = _split(ranked.scores.astype(np.float64), ranked.lengths)
            if explain[own].any():
                answer["explanations"][own] = self._explained(rows[own], ranked, asked, explain[own])
            if origin[own].any():
                answer["ranking"][own], answer["propensity"][own] = self._origin(rows[own], asked, origin[own])
        return answer

    def similar_items(self, columns: Columns) -> Answer:
        """The items most like `item_id`, `k` of them: `item_id`, `item_ids`, `scores`; none for an unknown item."""
        items, rows = self._items(columns)
        lists, scores = list[list[str]](), list[list[float]]()
        for row, k in zip(rows.tolist(), lengths(columns, self._k).tolist(), strict=True):
            found = nearest_items(self._ranker.arrays, row, k) if row != UNKNOWN else (np.zeros(0, int), np.zeros(0))
            if found is None:
                raise RefusedError("this model compares no items: set model.kind to mixture, als, ncf or cooccurrence")
            lists.append(self._item_ids[found[0]].tolist())
            scores.append(found[1].tolist())
        return {"item_id": items, "item_ids": _objects(lists), "scores": _objects(scores)}

    def score(self, columns: Columns) -> Answer:
        """The scores of pairs `user_id`, `item_id`, also after `recent_items`; NaN for unknown items."""
        users, rows = self._users(columns)
        items, item_rows = self._items(columns)
        wishes, scores = self._wishes(columns, len(rows)), np.full(len(rows), np.nan)
        recent = wishes.recent.lengths > 0
        for with_recent in (False, True):
            own = np.flatnonzero((recent == with_recent) & (item_rows != UNKNOWN))
            if len(own):
                asked = wishes.of_users(own) if with_recent else None
                scores[own] = self._ranker.score(rows[own], item_rows[own], asked)
        return {"user_id": users, "item_id": items, "score": scores}

    def item_vectors(self, columns: Columns) -> Answer:
        """The factors of `item_id`: `item_id`, `vector`; null for unknown items."""
        items, rows = self._items(columns)
        factors = vectors(self._ranker.arrays)
        if factors is None:
            raise RefusedError(_NO_VECTORS)
        return {"item_id": items, "vector": _vectors(factors[rows] if len(factors) else factors, rows != UNKNOWN)}

    def user_vectors(self, columns: Columns) -> Answer:
        """The factors of `user_id`, also after `recent_items`: `user_id`, `vector`; null if nothing is known."""
        users, rows = self._users(columns)
        factors = self._ranker.user_vectors(rows, self._wishes(columns, len(rows)))
        if factors is None:
            raise RefusedError(_NO_VECTORS)
        return {"user_id": users, "vector": _vectors(factors, np.asarray(factors.any(axis=1)))}

    def _users(self, columns: Columns) -> tuple[list[str | None], Array]:
        """Ids and rows (n,) of users; a missing id is one that nobody knows."""
        users = required_ids(columns, "user_id")
        known = (UNKNOWN if user is None else self._user_rows.get(user, UNKNOWN) for user in users)
        return users, np.fromiter(known, dtype=np.int64, count=len(users))

    def _items(self, columns: Columns) -> tuple[list[str | None], Array]:
        """Ids and rows (n,) of items."""
        items = required_ids(columns, "item_id")
        known = (UNKNOWN if item is None else self._item_rows.get(item, UNKNOWN) for item in items)
        return items, np.fromiter(known, dtype=np.int64, count=len(items))

    def _rows_of(self, item_ids: Sequence[str]) -> Array:
        """Rows of the known ones among items."""
        known = (self._item_rows.get(item, UNKNOWN) for item in item_ids)
        return np.array([row for row in known if row != UNKNOWN], dtype=np.int64)

    def _wishes(self, columns: Columns, count: int) -> Wishes:
        recent = [self._rows_of((some or [])[-MOST_RECENT:]) for some in id_lists(columns, "recent_items")]
        excluded = [self._rows_of(some or []) for some in id_lists(columns, "exclude_items")]
        return Wishes(_lists(recent, count), _lists(excluded, count))

    def _origin(self, rows: Array, asked: Wishes | None, wanted: Array) -> tuple[Array, Array]:
        """The ranking (n,) that serves each user, empty where that is not wanted, and its chance (n,).

        Without a chance, NaN, are those who are not wanted, and unknown users: there is one draw for all of them.
        """
        found = self._ranker.served_by(rows, None if asked is None else asked.recent)
        names = np.array(found.names, dtype=object)[found.choices]
        return np.where(wanted, names, ""), np.where(wanted & (rows != UNKNOWN), found.chances, np.nan)

    def _explained(self, rows: Array, ranked: Rankings, asked: Wishes | None, wanted: Array) -> Array:
        """(n,) explanations of lists as JSON, empty where none is wanted."""
        own = np.flatnonzero(wanted)
        lists = Lists.of(ranked.lengths, ranked.items)
        part, asked = lists.of_users(own), None if asked is None else asked.of_users(own)
        scores = np.split(ranked.scores, lists.offsets[1:-1])
        parts = self._ranker.contributions(rows[own], part, asked)
        reasons = self._ranker.reasons(rows[own], part, asked)
        told = np.full(len(rows), "", dtype=object)
        for place, user in enumerate(own.tolist()):
            entries = slice(*part.offsets[place : place + 2].tolist())
            told_items = zip(part.items[entries], scores[user].tolist(), parts[entries], reasons[entries], strict=True)
            items = [
                {
                    "item_id": self._item_ids[item],
                    "score": score,
                    "contributions": contributions,
                    "because": [
                        {"item_id": self._item_ids[one.item], "member": one.member, "weight": one.weight}
                        for one in because
                    ],
                }
                for item, score, contributions, because in told_items
            ]
            told[user] = json.dumps({"version": self._stamp, "items": items})
        return told


_NO_VECTORS = "this model has no vectors: set model.kind to mixture, als or ncf"


def _lists(rows: list[Array], count: int) -> Lists:
    joined = np.concatenate([np.zeros(0, dtype=np.int64), *rows])
    return Lists.of(np.array([len(one) for one in rows] or np.zeros(count), dtype=np.int64), joined)


def _objects(values: Sequence[Any]) -> Array:
    """(n,) values, whatever they are, one each."""
    return np.fromiter(values, dtype=object, count=len(values))


def _split(values: Array, lengths: Array) -> Array:
    """An array of lists with the given lengths."""
    flat, ends = values.tolist(), np.cumsum(lengths).tolist()
    return _objects([flat[end - length : end] for length, end in zip(lengths.tolist(), ends, strict=True)])


def _vectors(rows: Array, known: Array) -> Array:
    """(n,) lists of numbers, None for what is unknown."""
    vectors_ = rows.astype(np.float64).tolist()
    return _objects([vector if here else None for vector, here in zip(vectors_, known.tolist(), strict=True)])
