"""Makes the page: the template, filled in, with plots and the library that draws them.

Altair was chosen over Plotly: its library is a fifth as large (0.9 MB against 4.7), and it can draw with colors that
are variables of a style sheet, so the page follows the reader's light or dark mode without a script.

What comes from data is text: Jinja escapes it in the page, and `_json` in the plots. Should that ever fail, the page's
content security policy still allows no request, and no script but the two that are named by their hashes.
"""

import base64
import hashlib
import json
from collections.abc import Sequence
from typing import Any

import vl_convert
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from recsys.report.layout import ReportSection, Tile

_LIBRARY = "window.vegaEmbed = vegaEmbed;"
# Expressions are interpreted: compiled, they would need a policy that lets text become code.
_START = """
const specs = JSON.parse(document.getElementById("plots").textContent);
const options = {renderer: "svg", actions: false, ast: true};
document.querySelectorAll(".plot").forEach((place, number) => window.vegaEmbed(place, specs[number], options));
"""


def page(name: str, subtitle: str, made: str, tiles: Sequence[Tile], sections: Sequence[ReportSection]) -> str:
    """The page as HTML.

    Args:
        name: Its title.
        subtitle: What it is about.
        made: When, and from what, it was made.
        tiles: The figures on top.
        sections: The sections.
    """
    plots = [plot.spec for section in sections for plot in section.plots]
    library = vl_convert.javascript_bundle(_LIBRARY) if plots else ""
    assert "</script" not in library.lower(), "it stands in an element script"
    start = _START if plots else ""
    environment = Environment(
        loader=PackageLoader("recsys.report", "."), autoescape=True, trim_blocks=True, undefined=StrictUndefined
    )
    return environment.get_template("page.html").render(
        name=name,
        subtitle=subtitle,
        made=made,
        personal=any(section.lists for section in sections),
        tiles=tiles,
        sections=sections,
        plots=Markup(_json(plots)),
        library=Markup(library),
        start=Markup(start),
        policy=_policy(library, start),
    )


def _json(value: Any) -> str:
    """JSON that can stand in an element `script`: no text in it can end that."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _policy(*scripts: str) -> str:
    """A content security policy: these scripts, the page's own styles, and nothing else."""
    digests = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    rest = "style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
    return f"default-src 'none'; script-src {allowed}; {rest}"
