"""Recommenders that learn from every batch of events.

Here is the door: what a notebook or a service needs, frames in and frames out. Nothing of it needs Spark, and only
`load_champion` needs MLflow. The jobs that keep Delta tables and a registry up to date stand in `recsys.stream`.

    >>> import recsys
    >>> events = {
    ...     "user_id": ["ann", "ann", "bob", "bob", "cleo"],
    ...     "item_id": ["tea", "milk", "tea", "milk", "tea"],
    ...     "event_time": ["2024-05-01", "2024-05-02", "2024-05-01", "2024-05-03", "2024-05-04"],
    ... }
    >>> model = recsys.fit(events)  # or a pandas, polars, pyarrow or Spark DataFrame
    >>> list(model.recommend(["cleo"], k=1)["item_id"])
    ['milk']

`fit` learns a history, `Recommender` is what it returns, `load` reads back what `Recommender.save` wrote, and
`load_champion` fetches what the stream has registered. `evaluate.prequential` measures before it learns. `Settings` and
`load_settings` say how.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from recsys import evaluate
    from recsys.champion import load_champion
    from recsys.config import Settings, load_settings
    from recsys.door import Recommender, fit, load

__all__ = ["Recommender", "Settings", "evaluate", "fit", "load", "load_champion", "load_settings"]

# Where each name lies. It is imported when it is first asked for, so that importing the package costs nothing.
_HOMES = {
    **dict.fromkeys(("Recommender", "fit", "load"), "recsys.door"),
    **dict.fromkeys(("Settings", "load_settings"), "recsys.config"),
    "load_champion": "recsys.champion",
}


def __getattr__(name: str) -> Any:
    if name == "evaluate":
        return import_module("recsys.evaluate")
    if name not in _HOMES:
        raise AttributeError(f"module 'recsys' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
