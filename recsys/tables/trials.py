"""The table `trials`: how the challengers on trial did, one row for each evaluated user and batch."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pyarrow as pa

from recsys.contracts import (
    AGAINST,
    BATCH,
    GENERATION,
    INGESTED_AT,
    TRIALS,
    USER,
    StepId,
    TrialBatch,
    TrialKey,
)
from recsys.tables.conditions import between
from recsys.tables.delta import Tables

_COLUMNS = pa.schema(
    [
        (GENERATION, pa.int64()),
        (BATCH, pa.int64()),
        (USER, pa.string()),
        ("model_name", pa.string()),
        ("model_version", pa.string()),
        (AGAINST, pa.string()),
        ("ndcg", pa.float64()),
        ("ndcg_against", pa.float64()),
        ("ndcg_popularity", pa.float64()),
        ("known", pa.bool_()),
        (INGESTED_AT, pa.timestamp("us", "UTC")),
    ]
)
_IN_ORDER = [(column, "ascending") for column in (GENERATION, BATCH, USER)]


def append(tables: Tables, batches: Sequence[TrialBatch], app_id: str, txn_version: int) -> int:
    """Append batches of trials once, in one commit.

    Args:
        tables: The tables.
        batches: The batches, in order.
        app_id: Identifies the writer; the same after every restart.
        txn_version: Number of the last batch of this writer; it increases from commit to commit.

    Returns:
        Delta version of `trials` that holds them.
    """
    return tables.append(TRIALS, pa.concat_tables([_rows(batch) for batch in batches]), app_id, txn_version)


def read(tables: Tables, key: TrialKey, after: StepId) -> list[TrialBatch]:
    """Read the batches of a trial after a step, in order, their users in the order of ids."""
    rows = tables.rows(TRIALS, _COLUMNS.names, between(after, None))
    wanted = zip(*(rows[name].to_pylist() for name in ("model_name", "model_version", AGAINST)), strict=True)
    rows = rows.filter(pa.array([TrialKey(*values) == key for values in wanted], pa.bool_())).sort_by(_IN_ORDER)
    steps = list(zip(rows[GENERATION].to_pylist(), rows[BATCH].to_pylist(), strict=True))
    begins = [place for place, step in enumerate(steps) if not place or steps[place - 1] != step]
    return [_batch(key, rows.slice(begin, end - begin)) for begin, end in pairwise([*begins, len(steps)])]


def measured(tables: Tables) -> dict[StepId, list[TrialKey]]:
    """The trials and watches that each batch was part of, in the order of the batches."""
    names = [GENERATION, BATCH, "model_name", "model_version", AGAINST]
    rows = tables.rows(TRIALS, names).group_by(names).aggregate([])
    found: dict[StepId, list[TrialKey]] = {}
    for generation, batch_id, *key in zip(*(rows[name].to_pylist() for name in names), strict=True):
        found.setdefault(StepId(generation, batch_id), []).append(TrialKey(*key))
    return dict(sorted(found.items()))


def _rows(batch: TrialBatch) -> pa.Table:
    users = len(batch.user_ids)
    values = {
        GENERATION: [batch.step.generation] * users,
        BATCH: [batch.step.batch_id] * users,
        USER: list(batch.user_ids),
        "model_name": [batch.key.model_name] * users,
        "model_version": [batch.key.version] * users,
        AGAINST: [batch.key.against] * users,
        "ndcg": batch.ndcg,
        "ndcg_against": [None] * users if batch.against is None else batch.against,
        "ndcg_popularity": batch.popularity,
        "known": batch.known,
        INGESTED_AT: [batch.at] * users,
    }
    return pa.table(values, _COLUMNS)


def _batch(key: TrialKey, rows: pa.Table) -> TrialBatch:
    def column(name: str) -> np.ndarray:
        return np.asarray(rows[name].to_numpy())

    return TrialBatch(
        key=key,
        step=StepId(rows[GENERATION][0].as_py(), rows[BATCH][0].as_py()),
        user_ids=rows[USER].to_pylist(),
        ndcg=column("ndcg"),
        against=None if key.against is None else column("ndcg_against"),
        popularity=column("ndcg_popularity"),
        known=column("known").astype(bool),
        at=rows[INGESTED_AT][0].as_py(),
    )
