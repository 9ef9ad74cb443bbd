"""Lists of a few users by the champion, each item with what its own code says for it."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from recsys.champion import Champion
from recsys.config import Settings
from recsys.contracts import EVENTS, INTERACTION_LOG, ITEM, USER, LedgerRow, StepId
from recsys.registry import versions
from recsys.registry.served import ServedVersion
from recsys.tables.conditions import of_step
from recsys.tables.delta import Tables

LENGTH = 5
_REASONS = 2
# Parts of a score that are the same for every item of a user.
_OF_THE_USER = ("intercept", "age", "idle")


@dataclass(frozen=True)
class SampleItem:
    """An item of a list.

    Attributes:
        name: Its title, or else its id.
        because: Names of items of the user that speak for it.
        parts: What adds most to the score, by name.
    """

    name: str
    because: tuple[str, ...]
    parts: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class SampleList:
    """A list. The user has no name here: nobody needs the id to judge the list.

    Attributes:
        events: Events of the user in the batch from which the user was taken.
        step: That batch.
        version: The version that made the list.
    """

    events: int
    step: StepId
    version: str
    items: tuple[SampleItem, ...]


def sample_lists(
    settings: Settings, tables: Tables, rows: Sequence[LedgerRow], titles: Mapping[str, str]
) -> list[SampleList]:
    """Lists of three users of the last batch: with the fewest events, with the median, and with the most.

    Args:
        settings: All settings.
        tables: The tables.
        rows: Rows of the ledger, in order.
        titles: Of the items.

    Raises:
        RegistryError: there is no champion, or the registry does not answer.
    """
    steps = [row.step for row in rows if row.users]
    if not steps or not tables.exists(INTERACTION_LOG):
        return []
    champion = Champion(ServedVersion(versions.chosen(settings, versions.champion_uri(settings.mlflow.model_name))))
    users = _chosen(tables, steps[-1])
    frame = champion.recommend(list(users), k=LENGTH, explain=True)
    lists: dict[str, list[SampleItem]] = {user: [] for user in users}
    for user, item, told in zip(frame[USER], frame[ITEM], frame["explanation"], strict=True):
        lists[user].append(_item(item, json.loads(told), titles))
    return [SampleList(events, steps[-1], champion.version, tuple(lists[user])) for user, events in users.items()]


def _chosen(tables: Tables, step: StepId) -> dict[str, int]:
    """Users of a batch and their events; of users with equally many the first by id."""
    rows = tables.rows(INTERACTION_LOG, [USER, EVENTS], of_step(step)).group_by(USER).aggregate([(EVENTS, "sum")])
    found = sorted(zip(rows[f"{EVENTS}_sum"].to_pylist(), rows[USER].to_pylist(), strict=True))
    places = sorted({0, len(found) // 2, len(found) - 1} & set(range(len(found))))
    return {found[place][1]: found[place][0] for place in places}


def _item(item_id: str, told: Mapping[str, Any], titles: Mapping[str, str]) -> SampleItem:
    because = dict.fromkeys(titles.get(one[ITEM], one[ITEM]) for one in told["because"])
    parts = Counter[str]()
    for name, part in told["contributions"].items():
        if name not in _OF_THE_USER:
            parts[_family(name)] += part
    largest = ((name, part) for name, part in parts.most_common(_REASONS) if part > 0)
    return SampleItem(titles.get(item_id, item_id), tuple(because)[:_REASONS], tuple(largest))


def _family(name: str) -> str:
    """What features such as `repeat_count` and `group_trend_500` are about: `repeat`, `trend`."""
    return name.removeprefix("group_").partition("_")[0]
