"""What the documents say about files and settings is true."""

import re
from pathlib import Path

import pytest
import yaml

from recsys.config import load_settings
from recsys.config.table import settings_page

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
CONFIGURATIONS = sorted((ROOT / "conf").glob("*.yaml"))

KEYS = {line.split("`")[1] for line in settings_page().splitlines() if line.startswith("| `")}
SECTIONS = sorted({key.partition(".")[0] for key in KEYS if "." in key} - {"weights"})
MENTIONED_KEY = re.compile(rf"(?<![\w./-])(?:{'|'.join(SECTIONS)})\.[a-z_]+(?:\.[A-Za-z_]+)*(?![\w/(])")
COMMAND = re.compile(r"\b(?:jobs|conf)/[a-z_]+\.(?:py|yaml)\b")


def name(file: Path) -> str:
    return str(file.relative_to(ROOT))


def anchor(heading: str) -> str:
    """The anchor that a heading gets on a rendered page."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page):
    text = page.read_text("utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith("https://"):
            continue
        path, _, fragment = target.partition("#")
        linked = (page.parent / path) if path else page
        assert linked.exists(), target
        if fragment:
            headings = re.findall(r"^#+ (.+)$", linked.read_text("utf-8"), re.MULTILINE)
            assert fragment in {anchor(heading) for heading in headings}, target


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_no_merge_left_its_marks(page):
    assert not re.search(r"^(<{7}|={7}$|>{7})", page.read_text("utf-8"), re.MULTILINE)


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "settings.md"], ids=name)
def test_settings_that_are_mentioned_exist(page):
    mentioned = set(MENTIONED_KEY.findall(page.read_text("utf-8")))
    sections = {key.rpartition(".")[0] for key in KEYS}
    options = {f"source.options.{name}" for name in ("maxFilesPerTrigger", "failOnDataLoss", "skipChangeCommits")}
    tags = {"gate.against", "gate.reasons", "gate.verdict", "gate.watched"}
    others = options | tags | {"mlflow.pyfunc", "mlflow.pytorch", "mlflow.artifacts", "serve.md", "tune.md"}
    assert mentioned - KEYS - sections - others == set()


def test_the_user_guide_mentions_settings_at_all():
    assert len(set(MENTIONED_KEY.findall((ROOT / "docs" / "user-guide.md").read_text("utf-8")))) > 10


def test_configurations_in_the_user_guide_are_valid(tmp_path):
    blocks = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / "user-guide.md").read_text("utf-8"), re.DOTALL)
    assert blocks
    for block in blocks:
        (tmp_path / "block.yaml").write_text(block, "utf-8")
        load_settings(tmp_path / "block.yaml")


def test_commands_name_jobs_and_configurations_that_exist():
    words = {
        word
        for page in PAGES
        for word in re.findall(r"\b(?:jobs|conf)/[a-z_]+\.(?:py|yaml)\b", page.read_text("utf-8"))
    }
    assert words
    assert [word for word in sorted(words) if not (ROOT / word).exists()] == []


def test_the_index_lists_every_decision():
    index = (ROOT / "docs" / "index.md").read_text("utf-8")
    decisions = sorted((ROOT / "docs" / "adr").glob("*.md"))
    assert decisions
    for number, page in enumerate(decisions, start=1):
        assert page.name.startswith(f"{number:04d}-")
        title = page.read_text("utf-8").splitlines()[0].removeprefix(f"# {number}. ")
        assert f"{number}. [{title}](adr/{page.name})" in index


@pytest.mark.parametrize("file", CONFIGURATIONS, ids=name)
def test_every_shipped_configuration_says_what_it_is_for(file):
    text = file.read_text("utf-8")
    assert text.startswith("# ")
    assert isinstance(yaml.safe_load(text), dict)
