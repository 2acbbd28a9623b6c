"""The page of a report: one HTML file that needs nothing else, from what it holds."""

import base64
import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

from nfa.registry.report.page_data import Page, PageNumbers

if TYPE_CHECKING:
    from jinja2 import Environment

ASSETS = Path(__file__).parent / "assets"
LIBRARIES = ("d3.min.js", "plot.umd.min.js")
# In the order in which they need each other.
SCRIPTS = (
    "numbers.js",
    "dom.js",
    "state.js",
    "export.js",
    "chooser.js",
    "curves.js",
    "heat.js",
    "sections.js",
    "values.js",
    "table.js",
    "pictures.js",
    "start.js",
)


def page_html(page: Page) -> str:
    """Return the page; the same page gives the same text.

    Names and texts may come from anybody: the template escapes them, and the browser is told to run no script but ours.
    """
    scripts = [_script(name) for name in (*LIBRARIES, *SCRIPTS)]
    return (
        _environment()
        .get_template("report.html.jinja")
        .render(
            words=page["words"],
            pictures=bool(page["numbers"]["pictures"]),
            data=_json(page["numbers"]),
            style=(ASSETS / "report.css").read_text(encoding="utf-8"),
            scripts=scripts,
            policy=_policy(scripts),
        )
    )


def _environment() -> "Environment":
    from jinja2 import Environment, FileSystemLoader, StrictUndefined  # most of what reads this package needs no page

    return Environment(
        loader=FileSystemLoader(ASSETS),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _script(name: str) -> str:
    """A script's text as it can stand inside a page; it has no "</script" outside of strings."""
    return (ASSETS / name).read_text(encoding="utf-8").replace("</script", "<\\/script")


def _json(numbers: PageNumbers) -> str:
    """As JSON that no name can end or change: "<" never appears in it."""
    text = json.dumps(numbers, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _policy(scripts: list[str]) -> str:
    """What a browser may load and run: nothing but what is in the file, and no script but these."""
    ours = " ".join(f"'sha256-{_digest(script)}'" for script in scripts)
    return (
        f"default-src 'none'; script-src {ours}; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
