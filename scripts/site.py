"""What the site needs beyond docs/: mkdocs.yml names this file as its hook.

The README stands on the home page; CONTRIBUTING.md, CHANGELOG.md and LICENSE are on the site too. They and the pages in
docs/ link to each other as files of the repository, so that links work there; here they become links of the site.
"""

import os
import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
HOME = "index.md"
# Files of the repository outside docs/, and what they are on the site.
OUTSIDE = {
    "README.md": HOME,
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "LICENSE": "LICENSE",
}

_LINK = re.compile(r"(\]\()(?![a-z]+:|#)([^)\s#]+)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the files from outside docs/, and let a build that watches begin again when one changes."""
    for source, target in OUTSIDE.items():
        if target != HOME:
            files.append(File.generated(config, target, abs_src_path=str(ROOT / source)))
    config.watch += [str(ROOT / source) for source in (*OUTSIDE, "recsys") if str(ROOT / source) not in config.watch]
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Put the README on the home page, and turn the repository's links into the site's."""
    here = page.file.src_uri
    if page.parent is None:
        page.meta["hide"] = ["navigation"]  # A tab of one page: the room is for its text.
    sources = {target: source for source, target in OUTSIDE.items() if target != HOME}
    text = with_site_links(markdown, sources.get(here, f"docs/{here}"), here)
    if here != HOME:
        return text
    readme = with_site_links((ROOT / "README.md").read_text("utf-8"), "README.md", here)
    return readme + "\n## " + text.removeprefix("# ")


def with_site_links(markdown: str, source: str, page: str) -> str:
    """Rewrite relative links.

    Args:
        markdown: Text of a file of the repository.
        source: Path of that file in the repository.
        page: Path of the page that shows it, in docs/.
    """

    def on_site(link: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), link[2]))
        target = OUTSIDE.get(path) or path.removeprefix("docs/")
        return link[1] + os.path.relpath(target, posixpath.dirname(page) or ".").replace(os.sep, "/")

    return _LINK.sub(on_site, markdown)
