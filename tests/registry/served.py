"""Arrays to serve, and how slowly but plainly they are ranked."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from recsys.exposure import Origin
from recsys.registry.decisions import RegistryDecision
from recsys.registry.versions import Version

BY_TEST = RegistryDecision("test", "to see what happens")


def as_given(row: dict[str, Any], version: Version) -> dict[str, Any]:
    """A list that a version was asked for with `origin`, as the server gives it: with an id, if the user is known."""
    given = {name: value for name, value in row.items() if name not in ("ranking", "propensity")}
    if np.isnan(row["propensity"]):
        return given
    origin = Origin(version.name, version.version, row["ranking"], row["propensity"])
    return {**given, "list_id": origin.list_id(json.dumps([row["user_id"], row["item_ids"]]))}


def pack(ids: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    encoded = [one.encode("utf-8", "surrogatepass") for one in ids]
    offsets = np.cumsum([0, *map(len, encoded)], dtype=np.int64)
    return np.frombuffer(b"".join(encoded), dtype=np.uint8).copy(), offsets


def served_arrays(
    user_ids: Sequence[str], item_ids: Sequence[str], seed: int = 0, factors: int = 4
) -> dict[str, np.ndarray]:
    """Small whole numbers as factors, so that scores are exact and ties are common; every fifth user has none."""
    rng = np.random.default_rng(seed)
    users, items = len(user_ids), len(item_ids)
    seen = [np.sort(rng.permutation(items)[: rng.integers(0, items // 2 + 1)]) for _ in range(users)]
    arrays: dict[str, Any] = {
        "kind": np.frombuffer(b"als", dtype=np.uint8).copy(),
        "user_factors": rng.integers(-2, 3, (users, factors)).astype(np.float32),
        "item_factors": rng.integers(-2, 3, (items, factors)).astype(np.float32),
        "item_popularity": rng.integers(0, 4, items).astype(np.float32),
        "seen_offsets": np.cumsum([0, *map(len, seen)], dtype=np.int64),
        "seen_items": np.concatenate([np.empty(0, dtype=np.int32), *seen]).astype(np.int32),
    }
    arrays["user_factors"][::5] = 0
    arrays["user_ids_bytes"], arrays["user_ids_offsets"] = pack(user_ids)
    arrays["item_ids_bytes"], arrays["item_ids_offsets"] = pack(item_ids)
    return arrays


def slow_ranking(
    arrays: dict[str, np.ndarray], user: int, k: int, exclude_seen: bool, candidates: Sequence[int] | None = None
) -> tuple[list[int], list[float]]:
    """Item rows and scores for a user's row, -1 for an unknown user: what the ranker must return, item by item."""
    factors = arrays["user_factors"][user] if user >= 0 else np.zeros(arrays["item_factors"].shape[1])
    offsets = arrays["seen_offsets"]
    seen = (
        set(arrays["seen_items"][offsets[user] : offsets[user + 1]].tolist()) if user >= 0 and exclude_seen else set()
    )
    # Who has no factors, or only such as say nothing, gets what is popular.
    known = (arrays["item_factors"] @ factors).any()
    items = range(len(arrays["item_popularity"])) if candidates is None else set(candidates)
    scores = {
        item: float(factors @ arrays["item_factors"][item]) if known else float(arrays["item_popularity"][item])
        for item in items
        if item not in seen
    }
    best = sorted(scores, key=lambda item: (-scores[item], item))[:k]
    return best, [scores[item] for item in best]
