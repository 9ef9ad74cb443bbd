"""Which lists were shown, and what became of them: counted by list, once, whatever comes back."""

from collections.abc import Callable
from pathlib import Path

from pyspark.sql import SparkSession

from recsys.config import Settings
from recsys.contracts import EXPOSURES, Left, StepId
from recsys.tables import exposures, log
from recsys.tables.clean import tag
from recsys.tables.conditions import of_step
from recsys.tables.delta import Tables
from tests.tables.helpers import event
from tests.tables.test_clean import as_text

OURS, STRANGE = f"recsys/3:als:2.500000e-01:{'0' * 16}", "of another system"
ITEMS = ["x", "y", "z"]


def test_lists_are_counted_once_and_what_was_left_is_told_from_what_was_taken(
    spark: SparkSession, settings: Callable[..., Settings], tables: Tables, tmp_path: Path
) -> None:
    configured = settings(tmp_path)
    shown = [event(user_id="u", item_id=item, event_type="impression", list_id=OURS) for item in ITEMS]
    again = event(user_id="u", item_id="x", event_type="impression", event_time="2024-05-01T09:00:00Z")
    taken = [event(user_id="u", item_id="x", event_type=kind, list_id=OURS) for kind in ("click", "purchase", "hate")]
    others = [event(user_id="v", list_id=STRANGE), event(user_id="v", list_id=" "), event(user_id=None, list_id=OURS)]
    tagged = tag(as_text(spark, *shown, again, *taken, *others), configured).persist()
    rows, counts = log.collect(tagged, configured.weights)
    assert (counts.records, counts.quarantined, counts.listed) == (10, 1, 7)
    batch = log.to_batch(rows)
    assert batch.left == Left(["u", "u"], ["y", "z"], 4)
    assert list(zip(batch.user_ids, batch.events.tolist(), strict=True)) == [("u", 3), ("v", 2)]
    assert batch.records == 9

    for in_bulk in (False, True):  # A batch that comes again writes nothing.
        exposures.append(tables, tagged, configured.weights, StepId(0, 7), "app", in_bulk)
    exposures.append(tables, tagged, configured.weights, StepId(0, 1), "history", in_bulk=True)
    columns = [name for name in tables.columns(EXPOSURES) if name != "batch_id"]
    rows_of = [tables.rows(EXPOSURES, columns, of_step(StepId(0, batch))).sort_by("user_id") for batch in (7, 1)]
    assert rows_of[0].equals(rows_of[1]), "Spark and the driver count alike"
    names = ["user_id", "list_id", "model_version", "propensity", "impressions", "clicks"]
    found = tables.rows(EXPOSURES, names, of_step(StepId(0, 7)))
    assert [tuple(row.values()) for row in found.sort_by("user_id").to_pylist()] == [
        ("u", OURS, "3", 0.25, 3, 1),  # One item, in two ways; the dislike is no click.
        ("v", STRANGE, None, None, 0, 1),
    ]
    sums = {"exposure/impressions": 3.0, "exposure/clicks": 2.0}
    assert exposures.figures(tables, StepId(0, 7), configured.experiment) == sums
    assert exposures.figures(tables, StepId(0, 8), configured.experiment) == {}
    tagged.unpersist()
