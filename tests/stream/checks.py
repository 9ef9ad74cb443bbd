"""What tests of the stream look at afterward."""

from collections.abc import Callable

import numpy as np
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from safetensors.numpy import load_file

from recsys.config import Settings
from recsys.contracts import INTERACTION_LOG, MODEL_UPDATES, StepId
from recsys.model import snapshot
from recsys.serving.stored import restored
from recsys.storage import at_hand, snapshot_folder
from recsys.tables.delta import Tables

MakeSettings = Callable[..., Settings]


def totals_of_log(tables: Tables) -> DataFrame:
    return (
        tables.read(INTERACTION_LOG)
        .groupBy("user_id", "item_id")
        .agg(
            F.sum("weight").alias("weight"),
            F.sum("events").alias("events"),
            F.min("first_event_time").alias("first_event_time"),
            F.max("last_event_time").alias("last_event_time"),
            F.sum("impressions").alias("impressions"),
        )
    )


def steps(tables: Tables) -> list[tuple[int, int]]:
    return sorted((row.generation, row.batch_id) for row in tables.read(MODEL_UPDATES).collect())


def arrays(settings: Settings, step: StepId) -> dict[str, np.ndarray]:
    with at_hand(snapshot.path_for(snapshot_folder(settings.storage.root), step)) as file:
        return restored(load_file(file))
