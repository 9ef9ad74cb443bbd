"""A stream with tables in a catalog, named on three levels, as in Unity Catalog; here the catalog is Spark's own."""

from pathlib import Path

from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from recsys.batch_scoring import chosen_version, score
from recsys.contracts import INTERACTION_LOG, QUARANTINE
from recsys.stream.job import run_stream
from recsys.tables.delta import Tables
from tests.stream.checks import MakeSettings, steps
from tests.streams import write_lines, write_stream


def test_a_stream_lives_in_a_catalog(spark: SparkSession, settings: MakeSettings, tmp_path: Path) -> None:
    made = settings(
        tmp_path,
        source={"options": {"maxFilesPerTrigger": "1"}, "columns": {"event_id": None}},
        weights={"view": 1, "purchase": 3},
        storage={"catalog": "spark_catalog.live"},
        recommend={"k": 5, "exclude_seen": False},
        register={"every_batches": 1},
        mlflow={"model_name": "main.live.recommender"},
    )
    tables = Tables(spark, made.storage)
    spark.sql("CREATE DATABASE live")
    try:
        write_stream(Path(made.source.path), files=1)
        assert run_stream(made).champion_version is not None
        write_lines(Path(made.source.path), 1, ["no record"])
        assert run_stream(made).batches == 1, "a second start goes on"
        assert steps(tables) == [(0, 0), (0, 1)]
        assert tables.read(QUARANTINE).count() == 1
        events = tables.read(INTERACTION_LOG).agg(F.sum("events")).first()
        assert events is not None
        assert events[0] == 120
        scored = score(tables, chosen_version(made), made)
        assert spark.table("spark_catalog.live.recommendations").count() == scored.run.users > 0
        assert not (tmp_path / "recsys" / "tables").exists()
    finally:
        spark.sql("DROP DATABASE live CASCADE")
