"""Generated events as the log has them. Apart from `generate`, which needs no Spark."""

import pandas as pd
import pyarrow as pa

from bench.harness.generate import named
from recsys.contracts import EVENTS, FIRST_TIME, IMPRESSIONS, ITEM, LAST_TIME, USER, WEIGHT
from recsys.tables.log import ROWS


def logged(drawn: pd.DataFrame) -> pa.Table:
    """What `generate.draw` gives, as the rows of one batch of the log; a purchase weighs 1."""
    sums = drawn.groupby(["user", "item"], sort=False)["time"].agg(["count", "min", "max"]).reset_index()
    columns = {
        USER: named(sums["user"], "u"),
        ITEM: named(sums["item"], "i"),
        WEIGHT: sums["count"].astype(float),
        EVENTS: sums["count"],
        FIRST_TIME: sums["min"],
        LAST_TIME: sums["max"],
        IMPRESSIONS: [0] * len(sums),
    }
    return pa.table(columns).cast(ROWS).sort_by([(USER, "ascending"), (ITEM, "ascending")]).combine_chunks()
