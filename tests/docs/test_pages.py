"""What the how-to pages say of tables and code is what these are; every query and every script in them runs."""

import ast
import importlib
import re
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest
import yaml

from recsys.cleaning import judge
from recsys.config import load_settings
from recsys.contracts import EVENT_COLUMNS, TABLE_SCHEMAS, VECTOR_SCHEMAS, StepId
from recsys.model.evaluation.prequential import evaluate
from recsys.model.recommender import OnlineModel
from tests.model.helpers import clustered_batches, make_settings

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs").rglob("*.md"))
TABLES_PAGE = ROOT / "docs" / "how-to" / "read-the-tables.md"
SCHEMAS = {**TABLE_SCHEMAS, **VECTOR_SCHEMAS}
# Parts of a column definition: a comma inside angle brackets divides none.
DEFINITIONS = re.compile(r",(?![^<]*>)")


def name(file: Path) -> str:
    return str(file.relative_to(ROOT / "docs"))


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text("utf-8"), re.DOTALL)


def sections(page: Path) -> dict[str, str]:
    parts = re.split(r"^## (.+)$", page.read_text("utf-8"), flags=re.MULTILINE)
    return dict(zip((heading.strip("`") for heading in parts[1::2]), parts[2::2], strict=True))


def test_all_tables_are_described_and_no_other():
    described = [heading for heading in sections(TABLES_PAGE) if heading != "What always holds"]
    assert described == list(SCHEMAS)


@pytest.mark.parametrize("table", SCHEMAS)
def test_columns_are_described_in_order_with_their_types(table):
    rows = re.findall(r"^\| `(\w+)` \| ([^|]+) \|", sections(TABLES_PAGE)[table].split("The metrics")[0], re.MULTILINE)
    described = [(column, kind.replace("&lt;", "<").replace("&gt;", ">")) for column, kind in rows]
    columns = [" ".join(part.split()) for part in DEFINITIONS.split(SCHEMAS[table])]
    defined = [part.removesuffix(" NOT NULL").split(" ", 1) for part in columns]
    types = [
        (column, re.sub(r"item_id: string, score: double", "item_id, score", kind.lower())) for column, kind in defined
    ]
    assert described == types


def described(page: Path, heading: str) -> set[str]:
    """What the first column of the table under a heading row names."""
    table = page.read_text("utf-8").partition(f"\n| {heading} | ")[2].partition("\n\n")[0]
    return {word for row in table.splitlines()[2:] for word in re.findall(r"`([^`]+)`", row.split(" | ")[0])}


def test_every_reason_of_the_quarantine_is_described_and_no_other():
    from recsys.tables.formats import MALFORMED, NO_VALUE, NOT_JSON

    columns = {column: pa.array(["1"]) for column in EVENT_COLUMNS}
    rules = judge(columns, load_settings(), datetime(2025, 1, 1, tzinfo=UTC)).reasons
    assert described(ROOT / "docs" / "how-to" / "own-events.md", "reason") == {*rules, NOT_JSON, MALFORMED, NO_VALUE}


def test_every_metric_of_the_model_is_described_and_no_other():
    """Of the two learners that report different ones; the pipeline's own are read from its code."""
    words = {
        "GROUP": "(cold|warm|heavy)",
        "RANKER": "(model|popularity|champion|challenger|previous|first|shadow)(_warm)?",
    }
    words["EXPERT"] = r"(reranker|trend_\d+|als|ncf|cooccurrence|repeat|sessions)"
    patterns = dict.fromkeys(described(TABLES_PAGE, "metric"), False)
    measured = set()
    for kind in ("mixture", "ncf"):
        own = {"kind": kind, "rebuild_sweeps": 2, "forget_after_days": 9.0}
        settings = make_settings(model=own, recommend={"exclude_seen": False})
        model = OnlineModel(settings)
        for number, batch in enumerate(clustered_batches(3, 400)):
            step = StepId(0, number)
            measured |= evaluate(batch, model, {}, settings, step).keys() | model.update(batch, step).keys()
    stages = ("arms", "pipeline", "freshness", "rebuild", "distributed", "trials")
    stages = (*(f"stream/{name}" for name in stages), "tables/ledger", "tables/exposures", "model/evaluation/trial")
    code = "".join((ROOT / "recsys" / f"{name}.py").read_text("utf-8") for name in stages)
    for pattern in patterns:
        regex = re.sub("|".join(words), lambda found: words[found.group()], pattern)
        found = {name for name in measured if re.fullmatch(regex, name)}
        written = pattern.replace("REASON", "{reason}").replace("ARM", "{arm}").removesuffix("N")
        patterns[pattern] = bool(found) or f'"{written}"' in code
        measured -= found
    assert measured == set()
    assert [pattern for pattern, occurs in patterns.items() if not occurs] == []


@pytest.mark.process  # Some packages ask the machine something when they are imported.
@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=name)
def test_imports_in_examples_exist(page):
    for block in blocks(page, "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom):
                module = importlib.import_module(node.module)
                assert [given.name for given in node.names if not hasattr(module, given.name)] == []


@pytest.mark.parametrize("page", [page for page in PAGES if "```bash" in page.read_text("utf-8")], ids=name)
def test_bench_and_job_commands_exist(page):
    for block in blocks(page, "bash"):
        modules = re.findall(r"-m (bench\.[\w.]+)", block)
        assert [module for module in modules if not (ROOT / f"{module.replace('.', '/')}.py").exists()] == []
        assert [job for job in re.findall(r"jobs/\w+\.py", block) if not (ROOT / job).exists()] == []


@pytest.mark.spark
def test_every_query_of_the_tables_page_runs(spark, settings, tmp_path, monkeypatch):
    made = settings(tmp_path).model_dump(mode="json", by_alias=True, include={"storage", "spark"})
    (tmp_path / "my.yaml").write_text(yaml.safe_dump(made), "utf-8")
    monkeypatch.chdir(tmp_path)
    (script,) = blocks(TABLES_PAGE, "python")
    exec(compile(script, str(TABLES_PAGE), "exec"), names := {})
    queries = blocks(TABLES_PAGE, "sql")
    assert len(queries) > 5
    for query in queries:
        assert names["spark"].sql(query).collect() == []


@pytest.mark.spark
@pytest.mark.parametrize("page", ["own-events", "operate"])
def test_scripts_that_look_at_tables_run(spark, settings, tmp_path, monkeypatch, capsys, page):
    from recsys.tables.delta import Tables

    chosen = settings(tmp_path)
    Tables(spark, chosen.storage).create_missing()
    made = chosen.model_dump(mode="json", by_alias=True, include={"storage", "spark"})
    (tmp_path / "my.yaml").write_text(yaml.safe_dump(made), "utf-8")
    if page == "operate":
        spark.sql(
            f"""INSERT INTO delta.`{Tables(spark, chosen.storage).location("model_updates")}`
            SELECT 0, 7, 0, 1, 1, 1, 12, map('records', 1.0D), NULL, NULL, timestamp '2024-05-01 12:00:00', array(),
            NULL, NULL, NULL"""
        )
    monkeypatch.chdir(tmp_path)
    (script,) = blocks(ROOT / "docs" / "how-to" / f"{page}.md", "python")
    exec(compile(script, page, "exec"), {})
    assert {"own-events": "reason", "operate": "'records': 1.0"}[page] in capsys.readouterr().out
