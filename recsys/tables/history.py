"""A history in bulk: counts its good events by instant, cuts them by time, and writes them to the log in one commit."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from recsys.config.sections import EventWeight
from recsys.contracts import BATCH, EVENT_TIME, EVENTS, GENERATION, INTERACTION_LOG, ITEM, LIST_ID, USER
from recsys.tables.clean import TOTALS, aggregate, is_good, is_listed, weigh
from recsys.tables.delta import Tables

# Approximate number of events per file of the log; a batch is in one file where possible.
_EVENTS_PER_FILE = 2_000_000
_INSTANT = "instant"
_LISTED = "listed"


@dataclass(frozen=True)
class HistoryCounts:
    """Counts of a history, after de-duplication.

    Attributes:
        times: (n,) int64, distinct times of good events, ascending, in microseconds since 1970 UTC.
        events: (n,) int64, number of good events at each time.
        quarantined: number of bad records.
        listed: number of good records that say which recommendations they answer.
    """

    times: npt.NDArray[np.int64]
    events: npt.NDArray[np.int64]
    quarantined: int
    listed: int = 0


def count(tagged: DataFrame) -> HistoryCounts:
    """Count the records of a history, in one Spark action.

    Args:
        tagged: with the columns of `clean.tag`.
    """
    instant = F.when(is_good(), F.unix_micros(EVENT_TIME)).alias(_INSTANT)
    listed = F.count_if(is_listed()) if LIST_ID in tagged.columns else F.lit(0)
    counted = tagged.groupBy(instant).agg(F.count("*").alias(EVENTS), listed.alias(_LISTED)).toArrow()
    bad = pc.is_null(counted[_INSTANT])
    good = counted.filter(pc.invert(bad)).sort_by(_INSTANT)
    return HistoryCounts(
        times=good[_INSTANT].to_numpy(),
        events=good[EVENTS].to_numpy(),
        quarantined=pc.sum(counted[EVENTS].filter(bad)).as_py() or 0,
        listed=pc.sum(counted[_LISTED]).as_py() or 0,
    )


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
        weights: weight of each event type.
        counts: from `count`.
        starts: (batches,) positions in `counts.times` at which a batch begins.
        app_id: identifies the stream; the last batch id is the transaction version.

    Returns:
        Delta version of the log that holds the history; the latest version if it was there already.
    """
    batch = batch_of(F.unix_micros(EVENT_TIME), counts.times[starts].tolist()).cast("bigint").alias(BATCH)
    numbered = weigh(tagged.filter(is_good()), weights).select("*", batch)
    rows = aggregate(numbered, [BATCH]).select(F.lit(0).cast("bigint").alias(GENERATION), BATCH, *TOTALS)
    files = -(-int(counts.events.sum()) // _EVENTS_PER_FILE)
    rows = rows.coalesce(1) if files == 1 else rows.repartitionByRange(files, BATCH)
    return tables.append(INTERACTION_LOG, rows.sortWithinPartitions(BATCH, USER, ITEM), app_id, len(starts) - 1)


def batch_of(instant: Column, starts: Sequence[int], first: int = 0) -> Column:
    """Number of the batch that an instant belongs to, by nested comparisons: log2(n) per row.

    Args:
        instant: an integer, at or after the first start.
        starts: ascending.
        first: number of the first batch.
    """
    if len(starts) == 1:
        return F.lit(first)
    middle = len(starts) // 2
    earlier, later = batch_of(instant, starts[:middle], first), batch_of(instant, starts[middle:], first + middle)
    return F.when(instant < F.lit(starts[middle]), earlier).otherwise(later)
