"""Pages that are made in the tests of reports, and the browser in which they are tried."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nfa.registry.report.config import ReportConfig
from nfa.registry.report.page import page_html
from nfa.registry.report.page_data import Page
from nfa.registry.report.report import report
from tests.support.browser import browser, what_is_missing


@pytest.fixture(scope="module")
def driver() -> Iterator[Any]:
    """A browser; where there is none, these tests are left out, unless NFA_BROWSER says that there is one."""
    if missing := what_is_missing():
        end = pytest.fail if "NFA_BROWSER" in os.environ else pytest.skip
        end(f"not here: {missing}. Set NFA_BROWSER to the path of a browser, with chromedriver in PATH.")
    with browser() as driver:
        yield driver


@pytest.fixture
def show(driver: Any, tmp_path: Path) -> Iterator[Callable[[Page], Any]]:
    """Opens a page from a file; at the end it must not have complained."""

    def opened(page: Page) -> Any:
        file = tmp_path / "report.html"
        file.write_text(page_html(page), encoding="utf-8")
        driver.get(file.as_uri())
        driver.execute_script("drawAll()")
        return driver

    yield opened
    assert [entry["message"] for entry in driver.get_log("browser") if entry["level"] == "SEVERE"] == []


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
