"""The served model. This file travels inside the artifact, so it imports numpy, pandas, safetensors and MLflow only.

MLflow runs this file when the artifact is loaded (models-from-code), so nothing is unpickled. Beside it are `serving/`,
which ranks and needs numba, and the arrays: those of the scorers, and

| name                                     | shape            | type            |
|------------------------------------------|------------------|-----------------|
| `kind`                                   | (bytes,)         | uint8           |
| `user_ids_bytes`, `item_ids_bytes`       | (bytes,)         | uint8           |
| `user_ids_offsets`, `item_ids_offsets`   | (users|items + 1,) | int64         |
| `item_popularity`                        | (items,)         | float32         |
| `seen_offsets`, `seen_items`             | (users + 1,), (seen,) | int64, int32 |
"""

import hashlib
import importlib.util
import os
import shutil
import sys
import tempfile
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel, PythonModelContext
from safetensors.numpy import load_file

Array = npt.NDArray[Any]

UNKNOWN = -1


class ServedModel(PythonModel):
    """The ranker as an MLflow model. `k` and `exclude_seen` come from MLflow's `model_config`."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load the arrays and the scoring code of the artifact."""
        # The code that came with the artifact; its classes have no name here.
        self._serving: Any = _package(Path(context.artifacts["serving"]))
        self.ranker: Any = self._serving.Ranker(self._serving.restored(load_file(context.artifacts["arrays"])))
        # The first request shall not wait for the compiler.
        self.ranker.warm_up()
        self._k = int(context.model_config["k"])
        self._exclude_seen = bool(context.model_config["exclude_seen"])

    # Only requests by id need these; a job that scores all users by row does not pay for them.

    @cached_property
    def _item_ids(self) -> Array:
        return np.array(self._ids("item"), object)

    @cached_property
    def _item_rows(self) -> dict[str, int]:
        return {item: row for row, item in enumerate(self._item_ids)}

    @cached_property
    def _user_rows(self) -> dict[str, int]:
        return {user: row for row, user in enumerate(self._ids("user"))}

    def _ids(self, side: str) -> list[str]:
        arrays = self.ranker.arrays
        ids: list[str] = self._serving.unpack_ids(arrays[f"{side}_ids_bytes"], arrays[f"{side}_ids_offsets"])
        return ids

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Recommend items.

        Args:
            context: required by MLflow, unused.
            model_input: `user_id` and, optionally, `k`, `exclude_seen`, `candidates` (lists of item ids, unknown ones
                ignored). A missing value means the setting of the artifact, or the whole catalog.
            params: required by MLflow, unused.

        Returns:
            `user_id`, `item_ids`, `scores`: one row per input row, lists best first. Unknown users get the most popular
            items.

        Raises:
            ValueError: the column `user_id` is missing, or a `k` is below 1.
        """
        if "user_id" not in model_input:
            raise ValueError("the input has no column 'user_id'")
        users = model_input["user_id"].tolist()
        count = len(users)
        rows = np.fromiter((self._user_rows.get(user, UNKNOWN) for user in users), dtype=np.int64, count=count)
        k = _filled(model_input, "k", self._k).astype(np.int64)
        if count and k.min() < 1:
            raise ValueError(f"k must be at least 1, not {k.min()}")
        exclude_seen = _filled(model_input, "exclude_seen", self._exclude_seen).astype(bool)
        candidates = _filled(model_input, "candidates", None)
        given = np.fromiter((some is not None for some in candidates), dtype=bool, count=count)
        item_ids, scores = np.empty(count, dtype=object), np.empty(count, dtype=object)
        ranked = self.ranker.rank(rows[~given], k[~given], exclude_seen[~given])
        item_ids[~given], scores[~given] = self._lists(ranked)
        some_rows = [self._rows_of(some) for some in candidates[given]]
        ranked = self.ranker.rank_candidates(rows[given], k[given], exclude_seen[given], some_rows)
        item_ids[given], scores[given] = self._lists(ranked)
        return pd.DataFrame({"user_id": users, "item_ids": item_ids, "scores": scores})

    def _rows_of(self, item_ids: Any) -> Array:
        known = (self._item_rows.get(item, UNKNOWN) for item in item_ids)
        return np.array([row for row in known if row != UNKNOWN], dtype=np.int64)

    def _lists(self, ranked: Any) -> tuple[Array, Array]:
        return (
            _split(self._item_ids[ranked.items], ranked.lengths),
            _split(ranked.scores.astype(np.float64), ranked.lengths),
        )


def _package(folder: Path) -> ModuleType:
    """Import a folder as a package named by its content, so that each version uses the code that came with it.

    Versions with the same code share it, and what numba has compiled: within a process, and through a copy of the code
    in the user's cache folder, beside which numba keeps its results, across processes and artifacts.
    """
    content = _digest(folder)
    name = f"serving_{content}"
    if name in sys.modules:
        return sys.modules[name]
    source = _kept(folder, content)
    spec = importlib.util.spec_from_file_location(
        name, source / "__init__.py", submodule_search_locations=[str(source)]
    )
    assert spec is not None
    assert spec.loader is not None
    package = importlib.util.module_from_spec(spec)
    sys.modules[name] = package
    spec.loader.exec_module(package)
    return package


def _digest(folder: Path) -> str:
    """Of all source files of a folder."""
    content = hashlib.sha256()
    for file in sorted(folder.glob("*.py")):
        content.update(f"{file.name}\0{file.stat().st_size}\0".encode() + file.read_bytes())
    return content.hexdigest()[:32]


def _kept(folder: Path, content: str) -> Path:
    """A copy of the code in `NUMBA_CACHE_DIR` or the user's cache folder; the folder itself where none can be kept."""
    given = os.environ.get("NUMBA_CACHE_DIR")
    try:
        root = Path(given) if given else Path("~/.cache/served_versions").expanduser()
        copy = root / f"serving-{content}"
        if not copy.exists():
            root.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=root) as fresh:
                shutil.copytree(folder, Path(fresh, "code"), ignore=shutil.ignore_patterns("__pycache__"))
                os.rename(Path(fresh, "code"), copy)
        return copy if _digest(copy) == content else folder
    except (OSError, RuntimeError):
        # There is no such folder, or another process was faster.
        return folder


def _split(values: Array, lengths: Array) -> Array:
    """An array of lists with the given lengths."""
    flat, ends = values.tolist(), np.cumsum(lengths).tolist()
    lists = (flat[end - length : end] for length, end in zip(lengths.tolist(), ends, strict=True))
    return np.fromiter(lists, dtype=object, count=len(lengths))


def _filled(frame: pd.DataFrame, column: str, default: Any) -> Array:
    """A column as an array of objects, with the default for missing values or a missing column."""
    values = np.empty(len(frame), dtype=object)
    values[:] = default
    if column in frame:
        given = frame[column].notna().to_numpy()
        values[given] = frame[column].astype(object).to_numpy()[given]
    return values


set_model(ServedModel())
