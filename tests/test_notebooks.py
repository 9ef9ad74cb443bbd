"""The notebooks run as written, cell by cell."""

from pathlib import Path

import matplotlib as mpl
import pytest

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
SEPARATOR = "# COMMAND ----------"


@pytest.mark.usefixtures("spark")
def test_the_quickstart_runs_cell_by_cell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RECSYS_NOTEBOOK_FOLDER", str(tmp_path))
    mpl.use("agg")
    first, *cells = (NOTEBOOKS / "01_quickstart.py").read_text(encoding="utf-8").split(SEPARATOR)
    assert first.startswith("# Databricks notebook source\n")
    scope: dict[str, object] = {}
    for number, cell in enumerate(cells, start=1):
        exec(compile(cell, f"01_quickstart.py, cell {number}", "exec"), scope)

    printed = capsys.readouterr().out
    assert scope["summary"].batches == scope["replayed"].files > 4  # type: ignore[attr-defined]
    assert scope["summary"].champion_version is not None  # type: ignore[attr-defined]
    assert len(scope["lists"]) == 3  # type: ignore[arg-type]
    assert printed.count("household ") >= 3
    assert "households scored by version" in printed
