"""The rules of the layout: which part may import what, and how large a file may grow."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "recsys"
FILES = sorted(PACKAGE.rglob("*.py"))

HEAVY = {"pyspark", "delta", "mlflow", "torch"}
BANNED = {
    "model": {"pyspark", "delta", "mlflow", "pandas", "pyarrow"},
    "tables": {"torch", "mlflow"},
    "registry": {"pyspark", "delta", "torch"},
    "contracts.py": HEAVY,
    "config.py": HEAVY,
    "config_sections.py": HEAVY,
    "errors.py": HEAVY,
}
# The parts that the pipeline joins know nothing of one another, nor of it.
PARTS = ("model", "tables", "registry")
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 70


def imported(file: Path, root: Path = ROOT) -> Iterator[str]:
    """Dotted names of every module that a file imports, anywhere in it, relative imports resolved."""
    package = file.relative_to(root).with_suffix("").parts[:-1]
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else ()
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def part_of(file: Path) -> str:
    """`model` for recsys/model/als.py, `config.py` for recsys/config.py."""
    return file.relative_to(PACKAGE).parts[0]


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_imports_point_one_way(file):
    found = set(imported(file))
    libraries = {name.partition(".")[0] for name in found}
    assert not libraries & BANNED.get(part_of(file), set())
    if part_of(file) in PARTS:
        others = {f"recsys.{part}" for part in (*PARTS, "pipeline", "scoring") if part != part_of(file)}
        assert not {".".join(name.split(".")[:2]) for name in found} & others


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_the_package_imports_no_job_bench_or_test(file):
    assert not {name.partition(".")[0] for name in imported(file)} & {"jobs", "bench", "tests"}


def test_the_import_rule_sees_every_way_to_write_an_import(tmp_path):
    file = tmp_path / "recsys" / "model" / "bad.py"
    file.parent.mkdir(parents=True)
    file.write_text(
        "import mlflow.pyfunc as m\n"
        "from .. import tables\n"
        "from ..registry.runs import EpochRun\n"
        "from recsys import pipeline\n"
        "def later():\n    from pyspark.sql import functions\n"
    )
    assert set(imported(file, tmp_path)) >= {
        "mlflow.pyfunc",
        "recsys.tables",
        "recsys.registry.runs",
        "recsys.pipeline",
        "pyspark.sql",
    }


@pytest.mark.parametrize("name", ["contracts", "config", "errors"])
def test_what_everything_imports_is_light(name):
    """Imported in an interpreter of its own: nothing heavy comes along through a third module."""
    program = f"import sys, recsys.{name}; print(*[heavy for heavy in {sorted(HEAVY)} if heavy in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_files_and_functions_stay_readable(file):
    text = file.read_text("utf-8")
    assert len(text.splitlines()) <= MAX_FILE_LINES
    functions = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    too_long = [f.name for f in functions if (f.end_lineno or f.lineno) - f.lineno + 1 > MAX_FUNCTION_LINES]
    assert not too_long


@pytest.mark.parametrize(
    "name", ["jobs", "recsys/model", "recsys/tables", "recsys/registry", "conf", "docs/adr", "bench", "notebooks"]
)
def test_the_folders_of_the_layout_exist(name):
    assert any((ROOT / name).iterdir())


@pytest.mark.parametrize("file", sorted((ROOT / "notebooks").glob("*.py")), ids=lambda file: file.name)
def test_notebooks_define_nothing(file):
    text = file.read_text("utf-8")
    assert text.splitlines()[0] == "# Databricks notebook source"
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    assert not [node for node in ast.walk(ast.parse(text)) if isinstance(node, kinds)]


@pytest.mark.parametrize("file", sorted((PACKAGE / "model" / "scorers").glob("*.py")), ids=lambda file: file.name)
def test_what_travels_in_a_version_needs_numpy_and_nothing_of_the_package(file):
    tree = ast.parse(file.read_text("utf-8"))
    whole = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and not node.level]
    names = {node.module for node in whole} | {
        alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names
    }
    assert {str(name).partition(".")[0] for name in names} <= {"numpy", "collections", "dataclasses", "typing"}
