"""Numbers and times as text."""

import math
from datetime import datetime

_STEPS = ((86_400 * 365.25, "years"), (86_400, "days"), (3_600, "h"), (60, "min"), (1, "s"))


def share(value: float) -> str:
    """0.1234 as `12.3%`."""
    return "–" if math.isnan(value) else f"{value:.1%}".replace(".0%", "%")


def ndcg(value: float) -> str:
    """0.2331 as `.233`, as everywhere in the documents."""
    return "–" if math.isnan(value) else f"{value:.3f}".removeprefix("0")


def duration(seconds: float) -> str:
    """Seconds in the largest unit of which there are at least two; below two seconds in milliseconds."""
    if math.isnan(seconds):
        return "–"
    if seconds < 2:
        return f"{1000 * seconds:,.0f} ms"
    size, unit = next(step for step in _STEPS if seconds >= 2 * step[0])
    return f"{seconds / size:.1f} {unit}" if seconds < 10 * size else f"{seconds / size:,.0f} {unit}"


def moment(at: datetime) -> str:
    """A time as text; times of the tables are in UTC."""
    return f"{at:%Y-%m-%d %H:%M} UTC"
