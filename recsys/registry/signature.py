"""What the artifact of a version says about itself: its signature, an example of its input, and a description."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
from mlflow.types.schema import AnyType, Array

# Columns of the input and what they hold. Where a row has none, the default applies.
COLUMNS = {
    "user_id": "text or a whole number; missing: somebody unknown",
    "k": "whole number from 1 on: length of the list",
    "exclude_seen": "true or false: leave out what the user has interacted with",
    "candidates": "list of item ids: choose among these",
    "exclude_items": "list of item ids: recommend none of these",
    "recent_items": "list of item ids, latest last: what the user has done since the version was made",
    "explain": "true or false: add a column `explanations`, JSON text",
    "origin": "true or false: add columns `ranking`, what made the list, and `propensity`, how likely it was drawn",
    "item_id": "text or a whole number; for the tasks similar_items, score and item_vectors",
}
TASKS = {
    "recommend": "user_id, k, exclude_seen, candidates, exclude_items, recent_items, explain, origin: item_ids, scores",
    "similar_items": "item_id, k: item_ids, scores",
    "score": "user_id, item_id, recent_items: score",
    "item_vectors": "item_id: vector",
    "user_vectors": "user_id, recent_items: vector",
}
# What a score is, by `model.kind`.
SCORES = {
    "mixture": "log-odds that a user who is active in the next batch interacts with the item in it",
    "als": "predicted preference, about 1 for items like those of the user and 0 for others",
    "ncf": "log-odds by the network for the user's candidates; items behind them score lower",
    "trend": "logarithm of the item's share of all recent events",
    "cooccurrence": "probability that the item comes next",
    "sessions": "probability that the item comes right after or right before the latest items of a session",
    "content": "3 times the cosine of the item's vector to the mean of those of the user's latest items",
    "sequence": "logit of the softmax over all items of what the user interacts with next",
    "repeat": "the user's interactions with the item, plus its share of all recent events",
}
# MLflow answers a value of another type than the declared one, such as a length that is missing in one of two rows,
# with the whole input and its schema. So any value passes; the served code checks it, and refuses it in one line.
SIGNATURE = ModelSignature(
    inputs=Schema([ColSpec(AnyType(), name, required=False) for name in COLUMNS]),  # type: ignore[no-untyped-call]
    outputs=Schema(
        [
            ColSpec(DataType.string, "user_id"),
            ColSpec(Array(DataType.string), "item_ids"),
            ColSpec(Array(DataType.double), "scores"),
        ]
    ),
    params=ParamSchema([ParamSpec("task", DataType.string, "recommend")]),
)
_EXAMPLE_FILE, _SERVING_FILE = "input_example.json", "serving_input_example.json"
# How MLflow finds the example. It is written by hand: MLflow would run the model on it at every registration.
EXAMPLE_INFO = {
    "artifact_path": _EXAMPLE_FILE,
    "serving_input_path": _SERVING_FILE,
    "type": "dataframe",
    "pandas_orient": "split",
}


def metadata(kind: str) -> dict[str, Any]:
    """What a version of a kind does, as its file `MLmodel` describes it."""
    return {"description": f"Recommends items. A score is: {SCORES[kind]}.", "columns": COLUMNS, "tasks": TASKS}


def write_example(artifact: Path, user_ids: Sequence[str], item_ids: Sequence[str]) -> None:
    """Write an example of two rows, a user that the version knows and one that it does not, into an artifact."""
    rows: list[Mapping[str, Any]] = [
        {"user_id": next(iter(user_ids), "somebody"), "k": 5, "recent_items": None},
        {"user_id": "somebody new", "k": None, "recent_items": list(item_ids[:2])},
    ]
    split = {"columns": list(rows[0]), "data": [list(row.values()) for row in rows]}
    (artifact / _EXAMPLE_FILE).write_text(json.dumps(split), "utf-8")
    (artifact / _SERVING_FILE).write_text(json.dumps({"dataframe_split": split}), "utf-8")
