"""Fault points: the instants right before and right after each durable effect of a job.

What makes an effect durable (a commit to a table, a rename of a finished file, a call that changes MLflow) is wrapped
in the process of the job, so the product knows nothing of it, and a new effect through the same doors is a new point.
"""

import functools
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from delta.tables import DeltaMergeBuilder, DeltaOptimizeBuilder, DeltaTable
from mlflow import MlflowClient

from recsys.model import snapshot
from recsys.registry import artifacts
from recsys.stream.pipeline import Pipeline
from recsys.tables import maintenance
from recsys.tables.path_table import PathTable
from recsys.tables.spark_table import SparkTable

CHANGES_MLFLOW = ("create_", "log_", "set_", "update_", "delete_", "finalize_")
# Where jars are is noted once on a machine: the next run does not come there.
OF_THE_MACHINE = "tables.jars."

Reached = Callable[[str], None]


def install(reached: Reached) -> None:
    """Wrap every door to durable effects; `reached` is called with the name of each point that the process passes."""
    for method in ("create", "append", "overwrite", "replace", "set_token"):
        _wrap(PathTable, method, reached, lambda own, method=method: f"{Path(own.path).name}: {method}")
    for method in ("append", "overwrite", "replace"):
        _wrap(SparkTable, method, reached, lambda own, method=method: f"{Path(own._location).name}: {method} by Spark")
    _wrap(DeltaTable, "delete", reached, lambda own: "delete by Spark")
    _wrap(maintenance, "vacuum", reached, lambda *_: "vacuum by Spark")
    _wrap(DeltaMergeBuilder, "execute", reached, lambda own: "merge by Spark")
    _wrap(DeltaOptimizeBuilder, "executeCompaction", reached, lambda own: "compaction by Spark")
    _wrap(Pipeline, "handle_batch", reached, lambda own: "batch")
    for module in (snapshot, artifacts):
        _wrap(module, "save_file", reached, lambda *_: f"{_caller()}: file written")
    for owner, method in ((os, "replace"), (Path, "replace"), (Path, "rename"), (Path, "unlink"), (shutil, "rmtree")):
        _wrap(owner, method, reached, lambda *_, method=method: f"{_caller()}: {method}", ours_only=True)
    for method in (name for name in dir(MlflowClient) if name.startswith(CHANGES_MLFLOW)):
        _wrap(MlflowClient, method, reached, lambda *_, method=method: f"{_caller()}: MLflow {method}", ours_only=True)


def _wrap(owner: Any, method: str, reached: Reached, name: Callable[..., str], ours_only: bool = False) -> None:
    """Replace a function by one that tells when it begins and when it has ended.

    Args:
        owner: the class or module that has it.
        method: its name.
        reached: called with both points.
        name: makes the name of the point from the first argument.
        ours_only: whether only calls from the package count.
    """
    inner = getattr(owner, method)

    @functools.wraps(inner)
    def outer(*arguments: Any, **named: Any) -> Any:
        caller = _caller() if ours_only else ""
        if ours_only and (not caller or caller.startswith(OF_THE_MACHINE)):
            return inner(*arguments, **named)
        point = name(*arguments[:1])
        reached(f"before {point}")
        result = inner(*arguments, **named)
        reached(f"after {point}")
        return result

    setattr(owner, method, outer)


def _caller() -> str:
    """The function of the package that makes a call; empty if another library makes it."""
    frame = sys._getframe(1)
    while frame.f_globals.get("__name__") == __name__ or frame.f_globals.get("__name__") == "functools":
        assert frame.f_back is not None
        frame = frame.f_back
    module = frame.f_globals.get("__name__", "")
    return f"{module.removeprefix('recsys.')}.{frame.f_code.co_name}" if module.startswith("recsys.") else ""
