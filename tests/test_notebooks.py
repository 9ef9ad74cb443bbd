"""The notebooks run as written, cell by cell, one after the other in one folder."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import matplotlib as mpl
import pytest

import recsys

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
    run("00_setup.py")
    assert f"events:  {tmp_path}/events" in capsys.readouterr().out
    assert list((tmp_path / "events").iterdir()) == []

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

    champion = consumed["rolled_back"].version
    looked = run("04_operate.py")
    printed = capsys.readouterr().out
    assert any(line.startswith("would compact") for line in looked["upkeep"])
    assert "0 records; still bad: {}" in printed
    assert recsys.load_champion("recommender", looked["settings"].tracking_uri).version == champion
    assert looked["arms"]["users"].sum() == 0
    assert looked["page"].stat().st_size > 100_000

    monkeypatch.setenv("RECSYS_NOTEBOOK_CHANGE", "upkeep rollback")
    did = run("04_operate.py")
    assert any(line.startswith("compacted") for line in did["upkeep"])
    assert did["rolled_back"].version != champion
    assert recsys.load_champion("recommender", did["settings"].tracking_uri).version == did["rolled_back"].version


def test_the_notebooks_begin_alike() -> None:
    """They define nothing, so each has the cells that install the package and read the widgets."""
    beginnings = {}
    for file in sorted(NOTEBOOKS.glob("*.py")):
        cells = [cell.strip() for cell in file.read_text(encoding="utf-8").split(SEPARATOR)]
        (first,) = (place for place, cell in enumerate(cells) if cell.startswith("# MAGIC %pip"))
        install, restart, widgets = cells[first : first + 3]
        assert restart == "# MAGIC %restart_python"
        assert not any("import" in cell for cell in cells[:first])
        own = re.sub(r"widgets \|= .*\n", "", widgets)
        beginnings[file.name] = (install, own)
    assert len(beginnings) == 5
    assert len(set(beginnings.values())) == 1, beginnings


def test_widgets_are_read_where_there_are_any() -> None:
    """`dbutils` is a name that Databricks puts into a notebook."""
    asked: dict[str, str] = {}

    class Widgets:
        text = staticmethod(asked.__setitem__)
        get = staticmethod({"catalog": "main", "schema": "shop"}.get)

    cells = (NOTEBOOKS / "03_monitoring.py").read_text(encoding="utf-8").split(SEPARATOR)
    (cell,) = (cell for cell in cells if "dbutils.widgets" in cell)
    scope: dict[str, Any] = {"dbutils": SimpleNamespace(widgets=Widgets)}
    exec(compile(cell, "widgets", "exec"), scope)
    assert (asked["catalog"], asked["schema"], asked["volume"]) == ("", "recsys", "state")
    assert (scope["chosen"]["catalog"], scope["chosen"]["schema"]) == ("main", "shop")
