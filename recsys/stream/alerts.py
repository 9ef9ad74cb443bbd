"""When a feed is broken: a function of the counts of its batches and the settings.

A share is above its limit only if it is so both in the batch and in the latest batches that have at least
`quarantine.window_records` records together. So a small bad batch among good ones is no alert, and a good batch ends
the alerts, however bad the ones before it were.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime

from recsys.config import Settings
from recsys.contracts import Alert, LedgerRow, StepId

UNKNOWN_TYPE = "unknown event_type"
_RECORDS, _REFUSED, _REASON = "records", "quarantined", "quarantined/"


def batch_alerts(rows: Sequence[LedgerRow], settings: Settings) -> list[Alert]:
    """Alerts about the records of a batch.

    Args:
        rows: rows of the ledger, in order; the last one is judged, the others are the window.
        settings: the section quarantine.
    """
    limits = settings.quarantine
    row = rows[-1]
    found = []
    refused = _share_above(_counts(rows, _REFUSED), limits.max_share, limits.window_records)
    if refused is not None and limits.max_share is not None:
        reasons = {name: count for name, count in row.metrics.items() if name.startswith(_REASON)}
        mostly = max(reasons, key=lambda name: reasons[name], default="").removeprefix(_REASON)
        message = (
            f"{_of(row.metrics[_REFUSED], row.metrics[_RECORDS])} records of batch {row.step} were refused, mostly for "
            f"'{mostly}', and quarantine.max_share is {limits.max_share:g}: see the table quarantine, and mend the "
            f"producer or the setting"
        )
        found.append(Alert(row.step, "quarantine", message, refused, limits.max_share, row.ingested_at))
    counts = _counts(rows, f"{_REASON}{UNKNOWN_TYPE}")
    unknown = _share_above(counts, limits.max_unknown_type_share, limits.window_records)
    if unknown is not None and limits.max_unknown_type_share is not None:
        message = (
            f"{_of(unknown * row.metrics[_RECORDS], row.metrics[_RECORDS])} records of batch {row.step} have an event "
            f"type that is not in weights, and quarantine.max_unknown_type_share is {limits.max_unknown_type_share:g}: "
            f"add the type to weights, or mend the producer or the limit"
        )
        found.append(Alert(row.step, "unknown_types", message, unknown, limits.max_unknown_type_share, row.ingested_at))
    return found


def duplicate_alert(rows: Sequence[LedgerRow], dropped: Mapping[StepId, int], settings: Settings) -> Alert | None:
    """An alert about the duplicates among the records of a batch.

    Args:
        rows: rows of the ledger, in order; the last one is judged, the others are the window.
        dropped: duplicates dropped from each batch, as far as it is known.
        settings: the sections feed and quarantine.
    """
    limit, row = settings.feed.max_duplicate_share, rows[-1]
    counts = (
        (dropped[one.step], dropped[one.step] + one.metrics.get(_RECORDS, 0.0))
        for one in reversed(rows)
        if one.step in dropped
    )
    share = _share_above(counts, limit, settings.quarantine.window_records)
    if share is None or limit is None:
        return None
    number = dropped[row.step]
    message = (
        f"{_of(number, number + row.metrics.get(_RECORDS, 0.0))} records of batch {row.step} had come before and were "
        f"dropped, and feed.max_duplicate_share is {limit:g}: see whether a producer sends everything again"
    )
    return Alert(row.step, "duplicates", message, share, limit, row.ingested_at)


def silence_alert(last: StepId, silent_since: float, now: float, settings: Settings) -> Alert | None:
    """An alert about the time without any record.

    Args:
        last: the last batch.
        silent_since: when the last records came, or the stream began; seconds since 1970.
        now: the same for the present.
        settings: the section feed.
    """
    limit, silence = settings.feed.max_silence_seconds, now - silent_since
    if limit is None or silence <= limit:
        return None
    message = (
        f"no record has come for {silence:.0f} s after batch {last}, and feed.max_silence_seconds is {limit:g}: see "
        f"whether the producer runs and writes to {settings.source.place}"
    )
    return Alert(last, "silence", message, silence, limit, datetime.fromtimestamp(now, UTC))


def _counts(rows: Sequence[LedgerRow], name: str) -> Iterator[tuple[float, float]]:
    """Of each batch with records, newest first, a count and the number of records."""
    return ((row.metrics.get(name, 0.0), row.metrics.get(_RECORDS, 0.0)) for row in reversed(rows))


def _share_above(counts: Iterable[tuple[float, float]], limit: float | None, window: int) -> float | None:
    """The share in the newest batch, if it and that of the window are above the limit."""
    if limit is None:
        return None
    newest = None
    part = whole = 0.0
    for some, all_ in counts:
        if newest is None:
            newest = some / all_ if all_ else 0.0
        part, whole = part + some, whole + all_
        if whole >= window:
            break
    return newest if newest is not None and newest > limit and part > limit * whole else None


def _of(part: float, whole: float) -> str:
    return f"{part:.0f} of {whole:.0f}"
