"""What `import recsys` offers: nothing heavy is loaded, every name is there, every example is right."""

import doctest
import inspect
import json
import subprocess
import sys
from typing import Any

import pytest

import recsys
from recsys import champion, door, evaluate, notebook


@pytest.mark.process
def test_importing_the_package_loads_nothing_heavy() -> None:
    program = "import json, sys, recsys; print(json.dumps([name for name in %s if name in sys.modules]))"
    heavy = ["torch", "numpy", "pandas", "pyarrow", "pyspark", "mlflow", "pydantic"]
    done = subprocess.run([sys.executable, "-c", program % heavy], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []


def test_what_is_public_is_there_and_nothing_else() -> None:
    assert set(recsys.__all__) <= set(dir(recsys))
    assert all(getattr(recsys, name) is not None for name in recsys.__all__)
    with pytest.raises(AttributeError, match="module 'recsys' has no attribute 'fitt'"):
        _ = recsys.fitt


def public() -> list[Any]:
    """Everything that a user calls."""
    classes = [door.Recommender, evaluate.Prequential, notebook.StreamHandle]
    methods = [
        method
        for one in classes
        for name, method in inspect.getmembers(one, inspect.isfunction)
        if not name.startswith("_") and name != "plot"
    ]
    functions = [
        door.fit,
        door.load,
        champion.load_champion,
        evaluate.prequential,
        evaluate.click_rates,
        evaluate.arm_rates,
        notebook.stream,
    ]
    return [*functions, *classes, *methods]


@pytest.mark.parametrize("one", public(), ids=lambda one: one.__qualname__)
def test_what_is_public_has_an_example(one: Any) -> None:
    assert ">>> " in (inspect.getdoc(one) or "")


@pytest.mark.parametrize("module", [recsys, door, evaluate], ids=lambda module: module.__name__)
def test_the_examples_are_right(module: Any) -> None:
    done = doctest.testmod(module, optionflags=doctest.ELLIPSIS)
    assert done.attempted > 3
    assert done.failed == 0
