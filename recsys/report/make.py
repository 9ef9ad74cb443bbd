"""Makes the report of a stream, and writes it."""

from datetime import UTC, datetime
from pathlib import Path

from recsys.config import Settings
from recsys.errors import InputError, OutsideDownError, is_outage
from recsys.registry.versions import code_version
from recsys.report import words
from recsys.report.page import page
from recsys.report.sections import sections, tiles
from recsys.report.sources import Sources, read_sources
from recsys.storage import Place, report_file, written


def write_report(settings: Settings, output: Path | None = None) -> Place:
    """Write the report of the stream that the settings describe.

    Args:
        settings: All settings.
        output: The file, which is replaced in one step; None: `plots/report.html` under `storage.root`.

    Returns:
        The file.

    Raises:
        InputError: there is no ledger, or the file cannot be written.
        OutsideDownError: the storage does not answer.
    """
    place = output or report_file(settings.storage.root)
    text = report(read_sources(settings), settings, datetime.now(UTC))
    try:
        with written(place) as file:
            file.write_text(text, "utf-8")
    except OSError as error:
        kind = OutsideDownError if is_outage(error) else InputError
        raise kind(f"cannot write the report {place}: {error.strerror or error}") from error
    return place


def report(sources: Sources, settings: Settings, at: datetime) -> str:
    """The report as HTML.

    Args:
        sources: What it shows.
        settings: All settings.
        at: The time, for the page to tell.
    """
    rows = sources.rows
    spoken = f"{settings.model.kind}, {sources.batches:,} batches"
    if rows:
        spoken += f", {words.moment(rows[0].ingested_at)} to {words.moment(rows[-1].ingested_at)}"
    if len(rows) < sources.batches:
        spoken += f"; shown are the last {len(rows):,}"
    made = f"Made {words.moment(at)} by recsys {code_version()} from the tables and the registry of this stream."
    title = f"Recommender “{settings.mlflow.model_name}”"
    return page(title, spoken, made, tiles(sources, settings), sections(sources, settings))
