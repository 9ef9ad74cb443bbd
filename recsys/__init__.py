"""Recommenders that learn from every batch of events.

This is the public API for notebooks and services: data frames in, data frames out. Only `stream` needs Spark, and only
it and `load_champion` need MLflow. The jobs that keep Delta tables and a model registry up to date are in the package
`recsys.stream`.

    >>> import recsys
    >>> events = {
    ...     "user_id": ["ann", "ann", "bob", "bob", "cleo"],
    ...     "item_id": ["tea", "milk", "tea", "milk", "tea"],
    ...     "event_time": ["2024-05-01", "2024-05-02", "2024-05-01", "2024-05-03", "2024-05-04"],
    ... }
    >>> model = recsys.fit(events)  # or a pandas, polars, pyarrow or Spark DataFrame
    >>> list(model.recommend(["cleo"], k=1)["item_id"])
    ['milk']

`fit` learns a history and returns a `Recommender`. `load` reads what `Recommender.save` wrote, and `load_champion`
loads the champion that the stream has registered. `evaluate.prequential` evaluates each batch before it is learned.
`Settings` and `load_settings` hold the configuration. `stream` runs the stream in the background of a notebook.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from recsys import evaluate
    from recsys.champion import load_champion
    from recsys.config import Settings, load_settings
    from recsys.door import Recommender, fit, load
    from recsys.notebook import stream

__all__ = ["Recommender", "Settings", "evaluate", "fit", "load", "load_champion", "load_settings", "stream"]

# Module of each public name. It is imported on first use, so that importing the package is cheap.
_HOMES = {
    **dict.fromkeys(("Recommender", "fit", "load"), "recsys.door"),
    **dict.fromkeys(("Settings", "load_settings"), "recsys.config"),
    "load_champion": "recsys.champion",
}


def __getattr__(name: str) -> Any:
    if name in ("evaluate", "stream"):
        return import_module(f"recsys.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'recsys' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
