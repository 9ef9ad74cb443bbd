import numpy as np
import pyarrow as pa
import pytest

from recsys.contracts import INTERACTION_LOG, INTERACTIONS, WEIGHT_PARTS, StepId
from recsys.tables.delta import Tables
from recsys.tables.totals import refresh, refreshed_through
from tests.tables.helpers import append_batches

# As fine as weights of events can be.
ROWS = [
    [(f"u{number}", f"i{number % 3}", weight) for number, weight in zip(order, weights, strict=True)]
    for order, weights in zip(
        (np.random.default_rng(seed).permutation(4) for seed in range(6)),
        np.random.default_rng(9).integers(-30, 100, (6, 4)) / WEIGHT_PARTS,
        strict=True,
    )
]


def written(tables: Tables) -> pa.Table:
    return tables.read(INTERACTIONS).toArrow().sort_by([("user_id", "ascending"), ("item_id", "ascending")])


@pytest.mark.parametrize("schedule", [[6], [1, 2, 3, 4, 5, 6], [2, 5, 6], [0, 6]])
def test_any_schedule_gives_the_sums_of_the_log(tables: Tables, schedule: list[int]) -> None:
    done = 0
    for end in schedule:
        append_batches(tables, ROWS[done:end], first=done)
        done = end
        assert refresh(tables) == (StepId(0, end - 1) if end else None)
    sums: dict[tuple[str, str], float] = {}
    for rows in ROWS:
        for user, item, weight in rows:
            sums[user, item] = sums[user, item] + weight if (user, item) in sums else weight
    found = written(tables).to_pylist()
    assert {(row["user_id"], row["item_id"]): row["weight"] for row in found} == sums
    assert sum(row["events"] for row in found) == tables.read(INTERACTION_LOG).count()


def test_a_refresh_with_nothing_new_makes_no_commit(tables: Tables) -> None:
    append_batches(tables, ROWS[:1])
    refresh(tables)
    before = tables.version(INTERACTIONS)
    assert refresh(tables) == StepId(0, 0)
    assert tables.version(INTERACTIONS) == before


def test_upkeep_of_the_totals_does_not_hide_how_far_they_go(tables: Tables) -> None:
    append_batches(tables, ROWS[:2])
    refresh(tables)
    tables.handle(INTERACTIONS).optimize().executeCompaction()
    tables.spark.sql(f"ALTER TABLE delta.`{tables.location(INTERACTIONS)}` SET TBLPROPERTIES (note = 'mine')")
    assert refreshed_through(tables) == StepId(0, 1)


def test_totals_that_somebody_else_changed_are_recomputed(tables: Tables) -> None:
    append_batches(tables, ROWS[:3])
    refresh(tables)
    right = written(tables)
    tables.handle(INTERACTIONS).delete("item_id = 'i0'")
    assert refreshed_through(tables) is None
    refresh(tables)
    assert written(tables).equals(right)
