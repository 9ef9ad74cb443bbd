"""Everything with tables in a catalog, named on three levels, as in Unity Catalog; here the catalog is Spark's own."""

from pathlib import Path

from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from recsys.batch_scoring import chosen_version, score
from recsys.contracts import INTERACTION_LOG, MODEL_UPDATES, QUARANTINE, RECOMMENDATIONS
from recsys.stream.job import run_stream
from recsys.stream.maintenance import maintain
from recsys.stream.rebuild import rebuild
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
        register={"every_batches": 2},
        mlflow={"model_name": "main.live.recommender"},
    )
    tables = Tables(spark, made.storage)
    spark.sql("CREATE DATABASE live")
    try:
        write_stream(Path(made.source.path), files=2)
        assert run_stream(made).champion_version is not None
        write_lines(Path(made.source.path), 2, ["no record"])
        assert run_stream(made).batches == 1, "a second start goes on"
        assert steps(tables) == [(0, 0), (0, 1), (0, 2)]
        assert tables.read(QUARANTINE).count() == 1
        events = tables.read(INTERACTION_LOG).agg(F.sum("events")).first()
        assert events is not None
        assert events[0] == 2 * 120
        scored = score(tables, chosen_version(made), made)
        assert spark.table("spark_catalog.live.recommendations").count() == scored.run.users > 0
        assert any(line.startswith("would compact") for line in maintain(made, dry_run=True))
        assert rebuild(made).generation == 1
        assert steps(tables)[-1][0] == 1
        assert not (tmp_path / "recsys" / "tables").exists()
        assert tables.location(MODEL_UPDATES) == "spark_catalog.live.model_updates"
        assert tables.location(RECOMMENDATIONS) == "spark_catalog.live.recommendations"
    finally:
        spark.sql("DROP DATABASE live CASCADE")
