"""The rules of the layout: which part may import what, and how large a file may grow."""

import ast
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "recsys"
FILES = sorted(PACKAGE.rglob("*.py"))

HEAVY = {"pyspark", "delta", "mlflow", "torch"}
# Libraries that a part of the package must not import.
BANNED = {
    "serving": HEAVY | {"pandas", "pydantic", "scipy"},
    "model": {"pyspark", "delta", "mlflow", "pandas", "pyarrow"},
    "tables": {"torch", "mlflow"},
    "registry": {"pyspark", "delta", "torch"},
    "server": {"pyspark", "delta", "torch"},
    "config": HEAVY,
    "batches": HEAVY,
    "parsing": HEAVY | {"pandas", "pyarrow"},
    "cleaning": HEAVY | {"pandas"},
    "frames": HEAVY | {"pandas"},
    "lists": HEAVY,
    "door": HEAVY,
    "champion": HEAVY,
    "notebook": {"delta", "mlflow", "torch"},
    "evaluate": HEAVY - {"torch"},
    "contracts": HEAVY,
    "exposure": HEAVY | {"pandas", "pyarrow"},
    "experiment": HEAVY | {"pandas", "pyarrow"},
    "storage": HEAVY,
    "remote": HEAVY,
    "item_texts": HEAVY,
    "report": {"torch"},
    "tuning": HEAVY - {"torch"},
    "errors": HEAVY,
    "version": HEAVY,
    "words": HEAVY | {"numpy", "pandas", "pyarrow"},
}
LIGHT = {"errors", "contracts", "config", "remote", "storage", "version", "words"}
# What reads frames of events.
FRAMES = {"batches", "parsing", "cleaning", "frames"}
# Parts of the package that a part may import, besides itself; the parts that are not listed may import everything.
MAY_IMPORT = {
    "errors": set(),
    "version": set(),
    "words": set(),
    "batches": set(),
    "contracts": set(),
    "exposure": set(),
    "experiment": {"config"},
    "remote": {"errors"},
    "storage": {"errors", "remote"},
    "config": {"errors", "storage"},
    "serving": set(),
    "model": LIGHT | {"serving"},
    "tables": LIGHT | {"exposure", "experiment"},
    "registry": LIGHT | {"serving"},
    "server": LIGHT | {"experiment", "exposure", "registry"},
    "parsing": {"contracts"},
    "cleaning": LIGHT | {"parsing"},
    "frames": LIGHT | {"batches", "cleaning"},
    "lists": LIGHT | {"frames", "serving"},
    "door": LIGHT | FRAMES | {"catalogue", "item_texts", "lists", "model", "serving"},
    "champion": LIGHT | FRAMES | {"lists", "registry"},
    "item_texts": LIGHT,
    "report": LIGHT | {"champion", "evaluate", "item_texts", "registry", "stream", "tables"},
    "evaluate": LIGHT | FRAMES | {"catalogue", "exposure", "experiment", "model", "serving", "stream"},
    "tuning": LIGHT | {"evaluate", "model"},
    "notebook": LIGHT | {"champion", "frames", "item_texts", "registry", "stream", "tables"},
    "__init__": LIGHT | {"door", "champion", "evaluate", "notebook"},
}
# The same among the folders and modules of `model`.
_LEARNER = {"common", "interactions", "learner"}
MODEL_MAY_IMPORT = {
    "common": set(),
    "interactions": {"common"},
    "drift": {"common"},
    "learner": {"common", "interactions", "drift"},
    "als": _LEARNER | {"drift"},
    "counts": _LEARNER | {"drift"},
    "neural": _LEARNER | {"drift", "als"},
    "mixture": _LEARNER | {"drift", "als", "counts", "neural"},
    "text": {"common", "interactions"},
    "frozen": {"common", "interactions"},
    "recommender": _LEARNER | {"drift", "als", "counts", "neural", "mixture", "frozen"},
    "evaluation": {"common", "interactions", "learner", "frozen", "recommender"},
    "snapshot": {"common", "learner", "recommender"},
    "similar": {"common", "learner", "als", "neural", "mixture", "recommender"},
}
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


def part_of(file: Path, folder: Path = PACKAGE) -> str:
    """`model` for recsys/model/als/solve.py, `catalogue` for recsys/catalogue.py."""
    return file.relative_to(folder).parts[0].removesuffix(".py")


def parts_imported(file: Path, prefix: str) -> set[str]:
    """Names that come right after a dotted prefix in what a file imports."""
    depth = prefix.count(".") + 1
    return {name.split(".")[depth] for name in imported(file) if name.startswith(f"{prefix}.")}


def test_no_part_imports_a_library_that_is_not_its_own():
    found = {
        str(file.relative_to(ROOT)): wrong
        for file in FILES
        if (wrong := {name.partition(".")[0] for name in imported(file)} & BANNED.get(part_of(file), set()))
    }
    assert not found


def test_imports_point_one_way():
    modules = {path.name.removesuffix(".py") for path in PACKAGE.iterdir()}
    found = {}
    for file in FILES:
        part = part_of(file)
        if part in MAY_IMPORT:
            found[file] = (parts_imported(file, "recsys") & modules) - MAY_IMPORT[part] - {part}
    assert not {str(file.relative_to(ROOT)): wrong for file, wrong in found.items() if wrong}


def test_imports_within_the_model_point_one_way():
    folder = PACKAGE / "model"
    parts = {path.name.removesuffix(".py") for path in folder.iterdir()} - {"__init__", "__pycache__"}
    assert parts == MODEL_MAY_IMPORT.keys()
    found = {}
    for file in sorted(folder.rglob("*.py")):
        part = part_of(file, folder)
        if part in MODEL_MAY_IMPORT:
            found[file] = (parts_imported(file, "recsys.model") & parts) - MODEL_MAY_IMPORT[part] - {part}
    assert not {str(file.relative_to(ROOT)): wrong for file, wrong in found.items() if wrong}


def test_the_package_imports_no_job_bench_or_test():
    outside = {"jobs", "bench", "tests"}
    assert not [file for file in FILES if {name.partition(".")[0] for name in imported(file)} & outside]


def test_the_import_rule_sees_every_way_to_write_an_import(tmp_path):
    file = tmp_path / "recsys" / "model" / "bad.py"
    file.parent.mkdir(parents=True)
    file.write_text(
        "import mlflow.pyfunc as m\n"
        "from .. import tables\n"
        "from ..registry.runs import GenerationRun\n"
        "from recsys.stream import pipeline\n"
        "def later():\n    from pyspark.sql import functions\n"
    )
    assert set(imported(file, tmp_path)) >= {
        "mlflow.pyfunc",
        "recsys.tables",
        "recsys.registry.runs",
        "recsys.stream.pipeline",
        "pyspark.sql",
    }


@pytest.mark.process
@pytest.mark.parametrize("name", ["contracts", "config", "errors"])
def test_what_everything_imports_is_light(name):
    """Imported in an interpreter of its own: nothing heavy comes along through a third module."""
    program = f"import sys, recsys.{name}; print(*[heavy for heavy in {sorted(HEAVY)} if heavy in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_files_and_functions_stay_readable():
    found = []
    for file in FILES:
        text = file.read_text("utf-8")
        if len(text.splitlines()) > MAX_FILE_LINES:
            found.append(f"{file}: {len(text.splitlines())} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > MAX_FUNCTION_LINES:
                    found.append(f"{file}: {node.name} has {lines} lines")
    assert not found


def test_no_two_classes_have_one_name():
    folders = ("recsys", "bench", "jobs", "tests")
    names = Counter(
        node.name
        for folder in folders
        for file in (ROOT / folder).rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text("utf-8")))
        if isinstance(node, ast.ClassDef)
    )
    assert not [name for name, count in names.items() if count > 1]


def test_the_folders_of_the_layout_exist():
    wanted = [
        "jobs", "conf", "docs/adr", "notebooks", "bench/quality", "bench/speed", "bench/harness", "tests/bench",
        *(f"recsys/{part}" for part in ("config", "stream", "tables", "serving", "registry", "model")),
    ]  # fmt: skip
    assert [name for name in wanted if not any((ROOT / name).iterdir())] == []


@pytest.mark.parametrize("file", sorted((ROOT / "notebooks").glob("*.py")), ids=lambda file: file.name)
def test_notebooks_define_nothing(file):
    text = file.read_text("utf-8")
    assert text.splitlines()[0] == "# Databricks notebook source"
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    assert not [node for node in ast.walk(ast.parse(text)) if isinstance(node, kinds)]


@pytest.mark.parametrize("file", sorted((PACKAGE / "serving").glob("*.py")), ids=lambda file: file.name)
def test_what_travels_in_a_version_needs_few_packages_and_nothing_of_this_one(file):
    tree = ast.parse(file.read_text("utf-8"))
    whole = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and not node.level]
    names = {node.module for node in whole} | {
        alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names
    }
    assert {str(name).partition(".")[0] for name in names} <= {
        "numpy",
        "numba",
        "abc",
        "collections",
        "concurrent",
        "copy",
        "dataclasses",
        "enum",
        "functools",
        "itertools",
        "json",
        "math",
        "numbers",
        "os",
        "pathlib",
        "pyarrow",
        "typing",
    }
