"""Pages that are made in the tests of reports."""

from typing import Any

import pytest

from nfa.registry.report.config import ReportConfig
from nfa.registry.report.page_data import Page
from nfa.registry.report.report import report


@pytest.fixture
def pages(monkeypatch: pytest.MonkeyPatch) -> list[Page]:
    """The pages that are made, before they become HTML."""
    from nfa.registry.report import report as module

    made: list[Page] = []
    html = module.page_html
    monkeypatch.setattr(module, "page_html", lambda page: made.append(page) or html(page))
    return made


@pytest.fixture
def page(pages: list[Page]) -> Any:
    """A function that makes the page of some runs."""

    def of(run_id: str, **options: str) -> Page:
        report(ReportConfig(run_id=run_id, **options))
        return pages[-1]

    return of
