"""The table `recommendations`: a row for each user, written only where a list has changed."""

from pyspark.sql import DataFrame

from recsys.contracts import (
    EXPLORED_CHANCE,
    EXPLORED_PLACE,
    ITEM,
    LIST_ID,
    PROPENSITY,
    RANKING,
    RECOMMENDATIONS,
    USER,
)
from recsys.exposure import CONTROL_MARK, ITEM_DIGITS
from recsys.tables import keyed
from recsys.tables.delta import Tables
from recsys.tables.keyed import Synced

_IS_CONTROL = f"substr({{}}.{LIST_ID}, -{ITEM_DIGITS + 1}, 1) = '{CONTROL_MARK}'"
# Another version, another time or another score alone is no other list.
_CHANGED = (
    f"NOT (old.items.{ITEM} <=> new.items.{ITEM}) OR old.model_name <> new.model_name "
    # What an earlier release has written has no id yet.
    f"OR (old.{LIST_ID} IS NULL AND new.{LIST_ID} IS NOT NULL) "
    # Only its id makes a list a control.
    f"OR NOT (({_IS_CONTROL.format('old')}) <=> ({_IS_CONTROL.format('new')}))"
)


def sync(tables: Tables, frame: DataFrame, others_stay: bool = False) -> Synced:
    """Make the table hold these lists, in one commit, see `keyed.sync`.

    The row of a user whose items are the same, in the same order, stays as it is, with the version and the scores of
    the run that made it.

    Args:
        tables: The tables.
        frame: One row per user, with the columns of the table.
        others_stay: Keep the lists of users whom the frame does not have.
    """
    origin = LIST_ID, RANKING, PROPENSITY, EXPLORED_PLACE, EXPLORED_CHANCE
    rows = frame.select(USER, "items", "model_name", "model_version", "scored_at", *origin)
    return keyed.sync(tables, RECOMMENDATIONS, rows, USER, _CHANGED, others_stay)
