"""Reads what the report shows: the ledger, other tables, the registry, and lists of the champion."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import pandas as pd
import pyarrow as pa

from recsys.config import Settings
from recsys.contracts import ALERTS, MODEL_UPDATES, SCORING_RUNS, TRIALS, Alert, LedgerRow, StepId, TrialKey
from recsys.errors import InputError, RecsysError
from recsys.evaluate import arm_rates, click_rates
from recsys.item_texts import read_titles
from recsys.registry import overview, versions
from recsys.report.samples import SampleList, sample_lists
from recsys.tables import alerts, exposures, ledger, scoring_runs, trials
from recsys.tables.delta import Tables
from recsys.tables.reading import tables_to_read
from recsys.tables.scoring_runs import ScoringRun

# The newest rows of the ledger that are read: the page shows how a stream does, and tells how many came before.
NEWEST = 5_000
# Of them, the newest with so many impressions and clicks are read by list.
MOST_SHOWN = 5_000_000

Read = TypeVar("Read")


@dataclass(frozen=True)
class Sources:
    """What the page is made from. Where something could not be read, it is the line that says why.

    Attributes:
        rows: Newest rows of the ledger, in order.
        batches: Number of rows that the ledger has; events: events in them.
        trials: What each batch measured for the gate.
        runs: Runs of batch scoring, in order.
        alerts: Alerts about the feed, in order.
        versions: Registered versions, newest first, with the columns of `overview.HEAD`.
        click_rates: Of the lists that were shown in these batches, as `evaluate.click_rates` has them, in rows.
        arm_rates: The same by arm of the experiment, as `evaluate.arm_rates` has them; none without one.
        samples: Lists of the champion.
    """

    rows: list[LedgerRow]
    batches: int
    events: int
    trials: Mapping[StepId, list[TrialKey]]
    runs: list[ScoringRun]
    alerts: list[Alert]
    versions: list[tuple[str, ...]] | str
    click_rates: list[dict[str, Any]]
    arm_rates: list[dict[str, Any]]
    samples: list[SampleList] | str


def read_sources(settings: Settings) -> Sources:
    """Read all of it; Spark starts only where the driver cannot read the tables by itself.

    Raises:
        InputError: there is no ledger.
    """
    tables = tables_to_read(settings)
    if not tables.exists(MODEL_UPDATES):
        key = "storage.catalog" if settings.storage.catalog else "storage.root"
        raise InputError(f"there is no ledger {tables.location(MODEL_UPDATES)}: set {key} to that of a stream that ran")
    events = dict(sorted(ledger.events(tables, None, None).items()))
    rows = ledger.newest(tables, list(events)[-NEWEST:])
    shown = _shown(tables, rows)
    return Sources(
        rows=rows,
        batches=len(events),
        events=sum(events.values()),
        trials=trials.measured(tables) if tables.exists(TRIALS) else {},
        runs=scoring_runs.read(tables) if tables.exists(SCORING_RUNS) else [],
        alerts=alerts.read(tables) if tables.exists(ALERTS) else [],
        versions=_tried(lambda: _versions(settings)),
        click_rates=[] if shown is None else _records(click_rates(shown)),
        arm_rates=[] if shown is None or not settings.experiment.arms else _records(arm_rates(shown, settings)),
        samples=_tried(lambda: sample_lists(settings, tables, rows, read_titles(settings.items))),
    )


def _shown(tables: Tables, rows: Sequence[LedgerRow]) -> pa.Table | None:
    """What was shown in the newest batches, as many as fit into memory; None if nothing was."""
    first, lists = None, 0.0
    for row in reversed(rows):
        lists += sum(row.metrics.get(name, 0.0) for name in exposures.METRICS.values())
        if first is not None and lists > MOST_SHOWN:
            break
        first = row.step
    if first is None or not lists:
        return None
    return exposures.newest(tables, StepId(first.generation, first.batch_id - 1))


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return [dict(zip(frame.columns, row, strict=True)) for row in frame.itertuples(index=False)]


def _versions(settings: Settings) -> list[tuple[str, ...]]:
    name = settings.mlflow.model_name
    return overview.listed(versions.connect_to_existing(settings, versions.champion_uri(name)), name)


def _tried(read: Callable[[], Read]) -> Read | str:
    """What can be read, or why not: a page about an incident has to show the rest."""
    try:
        return read()
    except RecsysError as error:
        return str(error)
