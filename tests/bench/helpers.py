"""Streams that the tests of benches learn from."""

import numpy as np
import pandas as pd

from bench.harness import streams
from recsys.config import Settings
from recsys.contracts import InteractionBatch

DAY = 86_400.0


def generated(events: int, seed: int = 0, users: int = 60, items: int = 90) -> pd.DataFrame:
    """Three groups of users with their own preferences, popular and rare users and items, an event an hour."""
    generator = np.random.default_rng(seed)
    user = np.minimum(generator.zipf(1.3, events), users)
    item = user % 3 + 3 * (np.minimum(generator.zipf(1.3, events), items // 3) - 1)
    return pd.DataFrame(
        {
            "user": [f"u{code}" for code in user],
            "item": [f"i{code}" for code in item],
            "weight": 1.0,
            "time": 3600.0 * np.arange(events),
        }
    )


def small_settings(**sections: dict[str, object]) -> Settings:
    model = {"factors": 4, "rebuild_sweeps": 2}
    return Settings.model_validate({"device": "cpu", "model": model, "recommend": {"exclude_seen": False}, **sections})


def batch_of(*pairs: tuple[str, str, float]) -> InteractionBatch:
    rows = [(user, item, weight, DAY) for user, item, weight in pairs]
    return whole(pd.DataFrame(rows, columns=["user", "item", "weight", "time"]))


def whole(events: pd.DataFrame) -> InteractionBatch:
    """All events as one batch."""
    (batch,) = streams.batches(events, len(events))
    return batch
