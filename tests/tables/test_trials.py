"""Trials are appended once, and come back batch by batch."""

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np

from recsys.contracts import TRIALS, StepId, TrialBatch, TrialKey
from recsys.tables import trials
from recsys.tables.delta import Tables

KEY = TrialKey("recsys", "2", None)
OTHER = TrialKey("recsys", "3", "1")


def measured(key: TrialKey, generation: int, batch_id: int) -> TrialBatch:
    """What a batch adds: three users, one of them unknown."""
    against = None if key.against is None else np.array([0.1, 0.2, 0.3])
    return TrialBatch(
        key=key,
        step=StepId(generation, batch_id),
        user_ids=["ann", "bob's", "eve"],
        ndcg=np.array([0.5, 0.0, 1.0]) / (1 + batch_id),
        against=against,
        popularity=np.array([0.0, 0.25, 0.5]),
        known=np.array([True, False, True]),
        at=datetime(2026, 1, 1, 12, batch_id, tzinfo=UTC),
    )


def plain(batch: TrialBatch) -> dict[str, object]:
    return {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in vars(batch).items()}


def test_a_trial_comes_back_from_a_step_on_and_nothing_of_another_one(tables: Tables) -> None:
    written = [measured(KEY, 0, 7), measured(OTHER, 0, 7), measured(KEY, 0, 8), measured(KEY, 1, 2)]
    trials.append(tables, written[:2], "test", 7)
    trials.append(tables, written[:2], "test", 7)
    trials.append(tables, written[2:], "test", 8)
    assert tables.count(TRIALS) == 12
    found = trials.read(tables, KEY, StepId(0, 6))
    assert [plain(batch) for batch in found] == [plain(batch) for batch in written if batch.key == KEY]
    assert [batch.step for batch in trials.read(tables, KEY, StepId(0, 7))] == [StepId(0, 8), StepId(1, 2)]
    assert [plain(batch) for batch in trials.read(tables, OTHER, StepId(0, 0))] == [plain(written[1])]
    assert trials.read(tables, replace(KEY, model_name="another"), StepId(0, 0)) == []
