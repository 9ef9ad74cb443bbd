"""Generated events: Zipf users and items, in groups whose preferences drift."""

import numpy as np
import numpy.typing as npt
import pandas as pd

START = pd.Timestamp("2025-01-01T00:00:00Z")
SECONDS_PER_EVENT = 0.5


def zipf_codes(generator: np.random.Generator, size: int, n: int, exponent: float) -> npt.NDArray[np.int64]:
    """Draw `size` codes below `n`; code r has a probability that falls as (r + 10) ** -exponent."""
    probabilities = (np.arange(n) + 10.0) ** -exponent
    cumulative = np.cumsum(probabilities / probabilities.sum())
    return np.minimum(np.searchsorted(cumulative, generator.random(size)), n - 1)


def draw(
    size: int, users: int, items: int, seed: int, start: int = 0, groups: int = 40, drift: float = 0.2
) -> pd.DataFrame:
    """A stream of `size` purchases, in the order of time, as numbers.

    Every user belongs to a group, every group prefers its own items, and in a group the favorites move on
    through its items as time passes. One event in five ignores the groups.

    Args:
        size: number of events; users, items: how many there are.
        seed: of all random choices.
        start: number of the first event in the whole stream, which sets its time and the state of the drift.
        groups: number of groups.
        drift: how many ranks the favorites move per 1,000 events.

    Returns:
        Columns user, item (codes) and time.
    """
    generator = np.random.default_rng([seed, start])
    user = zipf_codes(generator, size, users, exponent=0.8)
    per_group = items // groups
    number = start + np.arange(size)
    rank = zipf_codes(generator, size, per_group, exponent=1.1)
    favorite = (rank + (number * drift / 1000).astype(np.int64)) % per_group
    item = favorite * groups + user % groups
    ignores_groups = generator.random(size) < 0.2
    item = np.where(ignores_groups, zipf_codes(generator, size, items, exponent=0.9), item)
    return pd.DataFrame({"user": user, "item": item, "time": START + pd.to_timedelta(number * SECONDS_PER_EVENT, "s")})


def named(codes: "pd.Series[int]", prefix: str) -> npt.NDArray[np.str_]:
    """Ids of codes: the prefix and the number."""
    return np.char.add(prefix, codes.to_numpy().astype(str))


def events(size: int, users: int, items: int, seed: int, start: int = 0) -> pd.DataFrame:
    """What `draw` gives, as records: columns user_id, item_id, event_type, event_time (ISO 8601)."""
    drawn = draw(size, users, items, seed, start)
    times = np.datetime_as_string(drawn["time"].dt.tz_convert(None).to_numpy().astype("datetime64[us]"))
    return pd.DataFrame(
        {
            "user_id": named(drawn["user"], "u"),
            "item_id": named(drawn["item"], "i"),
            "event_type": "purchase",
            "event_time": np.char.add(times, "Z"),
        }
    )
