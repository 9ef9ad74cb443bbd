"""The ledger `model_updates`: one row for what each micro-batch did to the model."""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from recsys.contracts import (
    ARTIFACTS,
    BATCH,
    DECISIONS,
    EVENTS,
    GENERATION,
    INGESTED_AT,
    INPUT,
    MODEL_UPDATES,
    SETTINGS,
    LedgerRow,
    StepId,
)
from recsys.tables.conditions import between
from recsys.tables.delta import Tables

SET_ASIDE, RETURNED = "set_aside", "returned/"

_NUMBERS = (GENERATION, BATCH, "log_version", EVENTS, "users", "items", "duration_ms")
_COLUMNS = pa.schema(
    [
        *((name, pa.int64()) for name in _NUMBERS),
        ("metrics", pa.map_(pa.string(), pa.float64())),
        ("model_version", pa.string()),
        ("state_uri", pa.string()),
        (INGESTED_AT, pa.timestamp("us", "UTC")),
        (DECISIONS, pa.list_(pa.string())),
        (INPUT, pa.string()),
        (SETTINGS, pa.map_(pa.string(), pa.string())),
        (ARTIFACTS, pa.map_(pa.string(), pa.string())),
    ]
)


def append(tables: Tables, rows: Sequence[LedgerRow], app_id: str, txn_version: int) -> int:
    """Append rows once, in one commit.

    Args:
        tables: The tables.
        rows: The rows, in order.
        app_id: Identifies the writer; the same after every restart.
        txn_version: Number of the last row of this writer; it increases from commit to commit.

    Returns:
        Delta version of the ledger that holds them.
    """
    return tables.append(
        MODEL_UPDATES, pa.Table.from_pylist([_values(row) for row in rows], _COLUMNS), app_id, txn_version
    )


def read(tables: Tables, generation: int, after: int) -> list[LedgerRow]:
    """Read the rows of a generation after a batch id, in order."""
    rows = tables.rows(MODEL_UPDATES, _COLUMNS.names, [[(GENERATION, "==", generation), (BATCH, ">", after)]])
    return sorted((_row(values) for values in rows.to_pylist()), key=lambda row: row.step)


def newest(tables: Tables, steps: Sequence[StepId]) -> list[LedgerRow]:
    """Read the newest rows, in order.

    Args:
        tables: The tables.
        steps: The newest steps of the ledger, in order.
    """
    firsts: dict[int, int] = {}
    for step in steps:
        firsts.setdefault(step.generation, step.batch_id)
    return [row for generation, first in firsts.items() for row in read(tables, generation, after=first - 1)]


def last_row(tables: Tables) -> LedgerRow | None:
    """The row of the latest step; None if the ledger is empty."""
    span = tables.span(MODEL_UPDATES)
    return None if span is None else read(tables, span[1].generation, after=span[1].batch_id - 1)[-1]


def events(tables: Tables, after: StepId | None, through: StepId | None) -> dict[StepId, int]:
    """Number of events of each batch after a step, through another one; None: without that bound."""
    rows = tables.rows(MODEL_UPDATES, [GENERATION, BATCH, EVENTS], between(after, through)).to_pylist()
    return {StepId(row[GENERATION], row[BATCH]): row[EVENTS] for row in rows}


def is_set_aside(row: LedgerRow) -> bool:
    """Whether the model has not learned a batch, because it could not."""
    return SET_ASIDE in row.metrics


def set_aside(tables: Tables) -> set[StepId]:
    """Steps of all batches that the model has not learned when they came, because it could not."""
    rows = tables.rows(MODEL_UPDATES, [GENERATION, BATCH, "metrics"])
    metrics = rows["metrics"]
    rows = rows.filter(pc.is_valid(pc.map_lookup(metrics, pa.scalar(SET_ASIDE, metrics.type.key_type), "first")))
    return {StepId(*step) for step in zip(*(rows[name].to_pylist() for name in (GENERATION, BATCH)), strict=True)}


def returned(row: LedgerRow) -> dict[int, bool]:
    """Batches that were set aside and came back with this one, by id: whether they were learned then."""
    found = {int(name.removeprefix(RETURNED)): on for name, on in row.metrics.items() if name.startswith(RETURNED)}
    return {batch_id: bool(learned) for batch_id, learned in sorted(found.items())}


def first_step(tables: Tables, generation: int) -> StepId:
    """Earliest step of a generation in the ledger.

    Raises:
        LookupError: it has no row of that generation.
    """
    span = tables.span(MODEL_UPDATES, generation)
    if span is None:
        raise LookupError(f"generation {generation} is not in the ledger")
    return span[0]


def _values(row: LedgerRow) -> dict[str, Any]:
    return {
        GENERATION: row.step.generation,
        BATCH: row.step.batch_id,
        "log_version": row.log_version,
        EVENTS: row.events,
        "users": row.users,
        "items": row.items,
        "duration_ms": row.duration_ms,
        "metrics": row.metrics,
        "model_version": row.model_version,
        "state_uri": row.state_uri,
        INGESTED_AT: row.ingested_at,
        DECISIONS: list(row.decisions),
        INPUT: row.input,
        SETTINGS: row.settings,
        ARTIFACTS: row.artifacts,
    }


def _row(values: dict[str, Any]) -> LedgerRow:
    step = StepId(values.pop(GENERATION), values.pop(BATCH))
    # Columns are null in rows that are older.
    values |= {"metrics": dict(values["metrics"]), DECISIONS: tuple(values[DECISIONS] or ())}
    values |= {name: dict(values[name] or ()) for name in (SETTINGS, ARTIFACTS)}
    return LedgerRow(step=step, **values)
