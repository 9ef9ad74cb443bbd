"""The table `alerts`: when the feed was broken, and why."""

import pyarrow as pa

from recsys.contracts import ALERTS, BATCH, GENERATION, Alert, StepId
from recsys.tables.conditions import of_step
from recsys.tables.delta import Tables

_COLUMNS = pa.schema(
    [
        (GENERATION, pa.int64()),
        (BATCH, pa.int64()),
        ("kind", pa.string()),
        ("message", pa.string()),
        ("value", pa.float64()),
        ("limit", pa.float64()),
        ("at", pa.timestamp("us", "UTC")),
    ]
)


def append(tables: Tables, alert: Alert, app_id: str) -> int:
    """Append an alert once.

    Args:
        tables: The tables.
        alert: The alert; its batch id is the transaction version.
        app_id: Identifies the stream and the kind of alert.

    Returns:
        Delta version of `alerts` that holds it.
    """
    row = {
        GENERATION: alert.step.generation,
        BATCH: alert.step.batch_id,
        "kind": alert.kind,
        "message": alert.message,
        "value": alert.value,
        "limit": alert.limit,
        "at": alert.at,
    }
    return tables.append(ALERTS, pa.Table.from_pylist([row], _COLUMNS), app_id, alert.step.batch_id)


def kinds(tables: Tables, step: StepId) -> set[str]:
    """Kinds of the alerts of a batch."""
    return set(tables.rows(ALERTS, ["kind"], of_step(step))["kind"].to_pylist())


def read(tables: Tables) -> list[Alert]:
    """All alerts, in order of time."""
    rows = tables.rows(ALERTS, _COLUMNS.names).to_pylist()
    found = (Alert(step=StepId(row.pop(GENERATION), row.pop(BATCH)), **row) for row in rows)
    return sorted(found, key=lambda alert: (alert.at, alert.step, alert.kind))
