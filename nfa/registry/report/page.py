"""The page as HTML."""

import json

from nfa.registry.report.page_data import Page


def page_html(page: Page) -> str:
    """Return the page."""
    return f"<html><script type='application/json'>{json.dumps(page)}</script></html>"
