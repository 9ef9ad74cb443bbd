"""Where notebooks keep things: names of Unity Catalog on Databricks, a folder elsewhere."""

from collections.abc import Mapping

from recsys.errors import ConfigError

_EVENTS = "events"
_READ = ("USE SCHEMA", "SELECT", "EXECUTE")


def places(chosen: Mapping[str, str]) -> list[str]:
    """Overrides for `load_settings`: where events, tables, files and the model are; databricks.yml uses the same names.

    Args:
        chosen: Values of the widgets: `catalog`, `schema`, `volume` (of checkpoint and snapshots), `model`; without a
            catalog, `folder`.

    Raises:
        ConfigError: neither a catalog nor a folder is chosen.

    Examples:
        >>> places({"catalog": "", "schema": "recsys", "volume": "state", "model": "recommender", "folder": "/data"})
        ['source.path=/data/events', 'storage.root=/data/recsys', 'mlflow.model_name=recommender']
    """
    catalog, schema, model = chosen["catalog"], chosen["schema"], chosen["model"]
    if catalog:
        volumes = f"/Volumes/{catalog}/{schema}"
        return [
            f"source.path={volumes}/{_EVENTS}",
            f"storage.root={volumes}/{chosen['volume']}/recsys",
            f"storage.catalog={catalog}.{schema}",
            "mlflow.tracking_uri=databricks",
            f"mlflow.experiment=/Shared/{schema}",
            f"mlflow.model_name={catalog}.{schema}.{model}",
        ]
    folder = chosen["folder"]
    if not folder:
        raise ConfigError(
            "choose a catalog (widget or RECSYS_NOTEBOOK_CATALOG), or without Databricks a folder "
            "(RECSYS_NOTEBOOK_FOLDER), such as the one that the quickstart has printed"
        )
    return [f"source.path={folder}/{_EVENTS}", f"storage.root={folder}/recsys", f"mlflow.model_name={model}"]


def setup_statements(chosen: Mapping[str, str], readers: str = "", producers: str = "") -> list[str]:
    """SQL that makes schema and volumes in a catalog that exists, and says who may use them.

    Args:
        chosen: Values of the widgets, as for `places`.
        readers: Group or user that may read the tables and load the model; empty: nobody besides the owner.
        producers: Group or user that may write events, and nothing else; empty: nobody besides the owner.

    Examples:
        >>> setup_statements({"catalog": "main", "schema": "shop", "volume": "state"})[1]
        'CREATE VOLUME IF NOT EXISTS `main`.`shop`.`events`'
    """
    schema = f"{_quoted(chosen['catalog'])}.{_quoted(chosen['schema'])}"
    events, state = (f"{schema}.{_quoted(name)}" for name in (_EVENTS, chosen["volume"]))
    made = [
        f"CREATE SCHEMA IF NOT EXISTS {schema}",
        f"CREATE VOLUME IF NOT EXISTS {events}",
        f"CREATE VOLUME IF NOT EXISTS {state}",
    ]
    read = [f"GRANT {', '.join(_READ)} ON SCHEMA {schema} TO {_quoted(readers)}"] if readers else []
    write = [
        f"GRANT USE SCHEMA ON SCHEMA {schema} TO {_quoted(producers)}",
        f"GRANT READ VOLUME, WRITE VOLUME ON VOLUME {events} TO {_quoted(producers)}",
    ]
    return [*made, *read, *(write if producers else [])]


def _quoted(name: str) -> str:
    return f"`{name.replace('`', '``')}`"
