"""The bench of top-k lists, on small numbers."""

import numpy as np

from bench.speed import topk
from recsys.contracts import InteractionBatch
from recsys.serving import Served


def test_events_of_a_pair_become_one_row() -> None:
    rows = InteractionBatch(["b", "a", "b"], ["x", "x", "x"], np.ones(3), np.ones(3, dtype=np.int64), np.arange(3.0))
    found = topk.summed(rows)
    assert (found.user_ids, found.item_ids) == (["a", "b"], ["x", "x"])
    assert (found.weights.tolist(), found.events.tolist()) == ([1.0, 2.0], [1, 2])


def test_factors_alone_and_factors_of_no_structure_keep_users_and_items() -> None:
    arrays = {
        "als.user_factors": np.zeros((2, 4), dtype=np.float32),
        "als.item_factors": np.zeros((3, 4), dtype=np.float32),
        "item_popularity": np.zeros(3, dtype=np.float32),
        "seen_offsets": np.zeros(3, dtype=np.int64),
        "seen_items": np.zeros(0, dtype=np.int32),
    }
    served = Served("mixture", ["u", "v"], ["x", "y", "z"], arrays)
    alone = topk.of_factors(topk.flat(served))
    assert alone.kind == "als"
    assert alone.arrays["item_factors"].shape == (3, 4)
    assert alone.arrays["item_factors"].std() > 0.3
