"""The notebooks run as written, cell by cell, one after the other in one folder."""

from pathlib import Path
from typing import Any

import matplotlib as mpl
import pytest

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
SEPARATOR = "# COMMAND ----------"


def run(name: str) -> dict[str, Any]:
    """Run the cells of a notebook, and return its variables."""
    first, *cells = (NOTEBOOKS / name).read_text(encoding="utf-8").split(SEPARATOR)
    assert first.startswith("# Databricks notebook source\n")
    scope: dict[str, Any] = {}
    for number, cell in enumerate(cells, start=1):
        exec(compile(cell, f"{name}, cell {number}", "exec"), scope)
    return scope


@pytest.mark.usefixtures("spark")
def test_the_notebooks_run_cell_by_cell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RECSYS_NOTEBOOK_FOLDER", str(tmp_path))
    mpl.use("agg")
    quickstart = run("01_quickstart.py")
    printed = capsys.readouterr().out
    assert quickstart["summary"].batches == quickstart["replayed"].files > 4
    assert quickstart["summary"].champion_version is not None
    assert len(quickstart["lists"]) == 3
    assert printed.count("household ") >= 3
    assert "households scored by version" in printed

    watched = run("03_monitoring.py")
    printed = capsys.readouterr().out
    assert len(watched["quality"]) == quickstart["summary"].batches
    assert watched["quality"]["model"].notna().sum() >= len(watched["quality"]) - 1
    assert watched["looks"].count() > 0
    assert watched["places"].sum() == 20 * quickstart["scored"].run.users
    assert "items are recommended" in printed
    assert watched["clicks"].empty, "the quickstart's events say nothing about lists"

    consumed = run("02_consume_registry.py")
    printed = capsys.readouterr().out
    assert len(consumed["visit"]) == 10
    assert len(consumed["similar"]) == 5
    assert consumed["rolled_back"].version == "1"
    assert "rolled_back.by: a notebook" in printed
    assert printed.count(" (+") + printed.count(" (-") >= 3, "explanations"
