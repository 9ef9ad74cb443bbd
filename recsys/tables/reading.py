"""Tables for a job that only reads them."""

from recsys.config import Settings
from recsys.tables.delta import Tables, read_on_driver


def tables_to_read(settings: Settings) -> Tables:
    """The tables of a stream; Spark starts only where the driver cannot read them by itself."""
    if read_on_driver(settings.storage):
        return Tables(None, settings.storage)
    from recsys.tables.session import build_session

    return Tables(build_session(settings), settings.storage)
