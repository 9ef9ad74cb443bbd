"""A micro-batch between Spark and the model."""

import time
from collections.abc import Mapping
from dataclasses import dataclass

from recsys.config.experiment import Experiment
from recsys.contracts import INTERACTION_LOG, InteractionBatch, StepId
from recsys.tables import exposures, log, quarantine
from recsys.tables.checkpoint import Plan
from recsys.tables.delta import Tables


@dataclass(frozen=True)
class StoredBatch:
    """A micro-batch as the tables store it.

    Attributes:
        rows: rows of the batch in the log, for the model.
        log_version: Delta version of the log that holds them.
        records: number of records read; quarantined: number of bad ones among them, reasons: the same by reason.
        exposure: what it says about recommendations that were shown, for the ledger.
        plan: what the batch was planned to read.
        began: when its processing began, by `time.perf_counter`.
        seconds: wall time spent in Spark.
    """

    rows: InteractionBatch
    log_version: int
    records: int
    quarantined: int
    reasons: Mapping[str, int]
    exposure: Mapping[str, float]
    plan: Plan
    began: float
    seconds: float


def from_log(tables: Tables, experiment: Experiment, step: StepId, plan: Plan, began: float) -> StoredBatch:
    """A batch that is in the log. The log decides, not a second reading of the source.

    Bad records are written before the log is.

    Args:
        tables: the Delta tables.
        experiment: the arms whose exposures are counted.
        step: its step.
        plan: what it was planned to read.
        began: when its processing began, by `time.perf_counter`.
    """
    started = time.perf_counter()
    rows = log.to_batch(log.read_batch(tables, step))
    rejected = quarantine.of_batch(tables, step)
    quarantined = rejected.count()
    return StoredBatch(
        rows=rows,
        log_version=tables.version(INTERACTION_LOG),
        records=rows.records + quarantined,
        quarantined=quarantined,
        reasons=quarantine.reasons(rejected) if quarantined else {},
        exposure=exposures.figures(tables, step, experiment),
        plan=plan,
        began=began,
        seconds=time.perf_counter() - started,
    )
