"""The site is built as `make docs` builds it, and everything in it leads somewhere."""

import posixpath
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

import recsys

pytestmark = pytest.mark.docs

ROOT = Path(__file__).parents[2]
LINKS = {"a": "href", "link": "href", "img": "src", "script": "src", "source": "src", "iframe": "src"}


class Parsed(HTMLParser):
    """A page: its anchors, and where each element leads."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.targets: list[tuple[str, str]] = []
        self.languages: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attributes}
        self.anchors |= {given[name] for name in ("id", "name") if name in given}
        self.languages |= {name for name in given.get("class", "").split() if name.startswith("language-")}
        if tag in LINKS and LINKS[tag] in given:
            self.targets.append((tag, given[LINKS[tag]]))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Parsed]:
    """Every page by its path, from a strict build."""
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    pages = {page.relative_to(folder).as_posix(): Parsed(page.read_text("utf-8")) for page in folder.rglob("*.html")}
    files = {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}
    pages |= {file: Parsed("") for file in files if not file.endswith(".html")}
    return pages


def pages_of(site: dict[str, Parsed]) -> dict[str, Parsed]:
    return {path: page for path, page in site.items() if path.endswith(".html") and path != "404.html"}


def test_every_page_in_docs_is_on_the_site(site):
    written = {page.relative_to(ROOT / "docs").with_suffix(".html") for page in (ROOT / "docs").rglob("*.md")}
    assert len(written) > 20
    assert {page.as_posix() for page in written} | {"contributing.html", "changelog.html"} == set(pages_of(site))


def test_every_page_can_be_reached_from_the_home_page(site):
    reached, waiting = set(), ["index.html"]
    while waiting:
        page = waiting.pop()
        if page in reached:
            continue
        reached.add(page)
        for tag, target in site[page].targets:
            path = unquote(urlsplit(target).path)
            if tag == "a" and path.endswith(".html") and not urlsplit(target).scheme:
                waiting.append(posixpath.normpath(posixpath.join(posixpath.dirname(page), path)))
    assert reached == set(pages_of(site))


def test_links_and_anchors_lead_somewhere(site):
    dead = []
    for path, page in pages_of(site).items():
        for _, target in page.targets:
            parts = urlsplit(target)
            if parts.scheme:
                continue
            there = posixpath.normpath(posixpath.join(posixpath.dirname(path), unquote(parts.path)))
            there = path if not parts.path else there
            fragment = unquote(parts.fragment)
            if there not in site or (fragment and fragment not in site[there].anchors):
                dead.append(f"{path}: {target}")
    assert dead == []


def test_a_reader_fetches_nothing_from_elsewhere(site):
    fetched = {target for page in pages_of(site).values() for tag, target in page.targets if tag != "a"}
    assert fetched
    assert [target for target in fetched if urlsplit(target).netloc] == []
    # Drawn in the browser by a script that the theme would fetch.
    assert [path for path, page in pages_of(site).items() if "language-mermaid" in page.languages] == []


def test_the_readme_is_the_home_page(site):
    home = site["index.html"]
    assert {"how-it-works", "documentation", "decisions"} <= home.anchors
    images = [target for tag, target in home.targets if tag == "img"]
    assert "quality.png" in images


def test_the_reference_has_every_public_name(site):
    page = site["reference/recsys.html"]
    assert [name for name in recsys.__all__ if f"recsys.{name}" not in page.anchors] == []


@pytest.mark.parametrize(
    ("page", "names"),
    [
        ("learner", ["recsys.model.learner.Learner.update", "recsys.model.learner.CodedBatch"]),
        ("settings", ["recsys.config.settings.load_settings", "recsys.config.settings.Settings.fingerprint"]),
        ("contracts", ["recsys.contracts.StepId", "recsys.contracts.InteractionBatch"]),
        ("serving", ["recsys.serving.Ranker.rank", "recsys.serving.ranking.Scorer.rank"]),
        ("registry", ["recsys.registry.decisions.rollback", "recsys.registry.client.connect"]),
    ],
)
def test_the_reference_describes(site, page, names):
    assert [name for name in names if name not in site[f"reference/{page}.html"].anchors] == []
