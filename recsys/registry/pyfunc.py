"""The served model. This file travels inside the artifact, so it imports pandas and MLflow only.

MLflow runs this file when the artifact is loaded (models-from-code), so nothing is unpickled. Beside it are `serving/`,
which ranks and needs numba, and the arrays: those of the scorers, and

| name                                     | shape            | type            |
|------------------------------------------|------------------|-----------------|
| `kind`                                   | (bytes,)         | uint8           |
| `user_ids_bytes`, `item_ids_bytes`       | (bytes,)         | uint8           |
| `user_ids_offsets`, `item_ids_offsets`   | (users|items + 1,) | int64         |
| `item_popularity`                        | (items,)         | float32         |
| `seen_offsets`, `seen_items`             | (users + 1,), (seen,) | int64, int32 |
| `seen_weights`, where there are factors  | (seen,)          | float32         |
"""

import hashlib
import importlib.util
import os
import shutil
import sys
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.pyfunc.model import PythonModel, PythonModelContext


class RefusedRequestError(MlflowException):
    """A request that cannot be answered. Its message is one line, in every consumer.

    MLflow's server puts the whole input before the message of an exception that it catches; this one keeps its own.
    """

    def __init__(self, line: str) -> None:
        self._line = line
        super().__init__(line, error_code=INVALID_PARAMETER_VALUE)

    @property
    def message(self) -> str:
        """The line."""
        return self._line

    @message.setter
    def message(self, value: str) -> None:
        pass


class ServedModel(PythonModel):
    """The ranker as an MLflow model. `k`, `exclude_seen` and the stamp come from MLflow's `model_config`."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load the arrays and the scoring code of the artifact."""
        # The code that came with the artifact; its classes have no name here.
        self._serving: Any = _package(Path(context.artifacts["serving"]))
        arrays = self._serving.mapped(Path(context.artifacts["arrays"]))
        self.ranker: Any = self._serving.Ranker(self._serving.restored(arrays))
        # The first request shall not wait for the compiler.
        self.ranker.warm_up()
        own = dict(context.model_config)
        self._answers = self._serving.Answers(self.ranker, int(own.pop("k")), bool(own.pop("exclude_seen")), own)

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Do a task.

        Args:
            context: required by MLflow, unused.
            model_input: One row for each user, item or pair; see `serving.Answers` for the columns of each task. A
                missing value means the setting of the artifact, or that nothing is asked.
            params: `task`, by default `recommend`.

        Returns:
            One row for each row of the input, in its order.

        Raises:
            RefusedRequestError: the input cannot be used; one line says why.
        """
        columns = {str(name): model_input[name].tolist() for name in model_input}
        try:
            return pd.DataFrame(self._answers.of((params or {}).get("task", "recommend"), columns))
        except self._serving.RefusedError as error:
            raise RefusedRequestError(str(error)) from None


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


set_model(ServedModel())
