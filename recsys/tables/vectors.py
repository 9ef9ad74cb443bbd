"""The tables `item_vectors` and `user_vectors`: factors for vector search, written only where they have changed."""

from pyspark.sql import DataFrame

from recsys.contracts import VECTOR_SCHEMAS
from recsys.tables import keyed
from recsys.tables.delta import Tables
from recsys.tables.keyed import Synced


def sync(tables: Tables, name: str, frame: DataFrame) -> Synced:
    """Make one of the tables hold these vectors, in one commit, see `keyed.sync`.

    Args:
        tables: The tables.
        name: `item_vectors` or `user_vectors`.
        frame: One row per id: the id, `vector`, `model_name`, `model_version`.
    """
    columns = [definition.split()[0] for definition in VECTOR_SCHEMAS[name].split(",")]
    changed = "NOT (old.vector <=> new.vector) OR old.model_name <> new.model_name"
    return keyed.sync(tables, name, frame.select(*columns), columns[0], changed)
