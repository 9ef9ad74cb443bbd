"""A history in bulk: its good events counted by instant, cut by time, and written to the log in one commit."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from recsys.config.sections import EventWeight
from recsys.contracts import BATCH, EVENT_TIME, EVENTS, GENERATION, INGESTED_AT, INTERACTION_LOG, ITEM, REASONS, USER
from recsys.tables.clean import TOTALS, aggregate, is_good, weigh
from recsys.tables.delta import Tables

# One file of the log holds about so many events, and whole batches as far as possible.
_EVENTS_PER_FILE = 2_000_000
_INSTANT = "instant"


@dataclass(frozen=True)
class HistoryCounts:
    """What a history holds, after de-duplication.

    Attributes:
        times: (n,) int64, the instants of good events, ascending, in microseconds since 1970 UTC.
        events: (n,) int64, good events at each of them.
        quarantined: bad records.
        ingested_at: when Spark planned the reading (UTC); None if there was no record.
    """

    times: npt.NDArray[np.int64]
    events: npt.NDArray[np.int64]
    quarantined: int
    ingested_at: datetime | None


def count(tagged: DataFrame) -> HistoryCounts:
    """Count the records of a history, in one Spark action.

    Args:
        tagged: in the columns of `clean.tag`.
    """
    instant = F.when(is_good(), F.unix_micros(EVENT_TIME)).alias(_INSTANT)
    counted = tagged.groupBy(instant).agg(F.count("*").alias(EVENTS), F.max(INGESTED_AT).alias(INGESTED_AT)).toArrow()
    bad = pc.is_null(counted[_INSTANT])
    good = counted.filter(pc.invert(bad)).sort_by(_INSTANT)
    return HistoryCounts(
        times=good[_INSTANT].to_numpy(),
        events=good[EVENTS].to_numpy(),
        quarantined=pc.sum(counted[EVENTS].filter(bad)).as_py() or 0,
        ingested_at=pc.max(counted[INGESTED_AT]).as_py(),
    )


def reasons(tagged: DataFrame) -> dict[str, int]:
    """How many records each reason speaks against, the most frequent first."""
    counted = tagged.select(F.explode(REASONS).alias(REASONS)).groupBy(REASONS).count()
    rows: pa.Table = counted.orderBy(F.desc("count"), REASONS).toArrow()
    return dict(zip(rows[REASONS].to_pylist(), rows["count"].to_pylist(), strict=True))


def append(
    tables: Tables,
    tagged: DataFrame,
    weights: Mapping[str, EventWeight],
    counts: HistoryCounts,
    starts: npt.NDArray[np.int64],
    app_id: str,
) -> int:
    """Append all batches of a history to the log, once and in one commit, as the first batches of generation 0.

    Args:
        tables: the tables.
        tagged: in the columns of `clean.tag`.
        weights: of each event type.
        counts: as `count` returned them.
        starts: (batches,) positions in `counts.times` at which a batch begins.
        app_id: identifies the stream; the last batch id is the version of the transaction.

    Returns:
        Delta version of the log that holds the history; its latest if it was there.
    """
    batch = batch_of(F.unix_micros(EVENT_TIME), counts.times[starts].tolist()).cast("bigint").alias(BATCH)
    numbered = weigh(tagged.filter(is_good()), weights).select("*", batch)
    rows = aggregate(numbered, [BATCH]).select(F.lit(0).cast("bigint").alias(GENERATION), BATCH, *TOTALS)
    files = -(-int(counts.events.sum()) // _EVENTS_PER_FILE)
    rows = rows.coalesce(1) if files == 1 else rows.repartitionByRange(files, BATCH)
    return tables.append(INTERACTION_LOG, rows.sortWithinPartitions(BATCH, USER, ITEM), app_id, len(starts) - 1)


def batch_of(instant: Column, starts: Sequence[int], first: int = 0) -> Column:
    """The number of the last batch that begins at an instant or before it: nested comparisons, log2(n) for each row.

    Args:
        instant: a whole number, at or after the first start.
        starts: ascending.
        first: number of the first of these batches.
    """
    if len(starts) == 1:
        return F.lit(first)
    middle = len(starts) // 2
    earlier, later = batch_of(instant, starts[:middle], first), batch_of(instant, starts[middle:], first + middle)
    return F.when(instant < F.lit(starts[middle]), earlier).otherwise(later)
