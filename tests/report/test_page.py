"""The page of a report is one file that needs nothing else, and names cannot change it."""

import base64
import hashlib
import json
import re
from collections import Counter
from html.parser import HTMLParser

import pytest

from nfa.registry.report.page import SCRIPTS, page_html
from nfa.registry.report.page_data import Page
from tests.support.report_pages import SPITE, a_page, a_spiteful_page

EMPTY = {"meta", "link", "img", "input", "br", "hr", "wbr"}


class Reader(HTMLParser):
    """Reads a page strictly: whatever is opened is closed, in turn."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.scripts: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs), f"an attribute twice: {tag} {attrs}"
        self.elements.append((tag, dict(attrs)))
        if tag not in EMPTY:
            self.open.append(tag)
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            self.scripts[-1] += data
        elif not self.open or self.open[-1] != "style":
            self.words += data

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def page() -> Page:
    return a_page(seeds=3, sites=2)


@pytest.fixture(scope="module")
def read(page: Page) -> Reader:
    return Reader(page_html(page))


def test_the_same_page_gives_the_same_bytes(page: Page) -> None:
    assert page_html(page) == page_html(page)


def test_all_words_are_on_the_page(page: Page, read: Reader) -> None:
    words = page["words"]
    lines = [
        *words["trained"],
        *words["notices"],
        *words["conventions"],
        *(one for _, of in words["verdicts"] for one in of),
    ]
    texts = [words["title"], words["command"], words["version"], *words["left_out"], *(line["text"] for line in lines)]
    cells = [
        cell
        for table in (words["differences"], words["common"], *words["tables"])
        for row in table["rows"]
        for cell in row
    ]
    for text in (*texts, *cells, *(one["text"] for one in words["texts"])):
        assert text in read.words


def test_each_sentence_says_the_run_the_key_and_the_step_of_its_numbers(page: Page, read: Reader) -> None:
    sources = [button["data-source"] for button in read.of("button") if button.get("class") == "source"]
    for _, lines in page["words"]["verdicts"]:
        for line in lines:
            assert f"run {line['run']}, {line['keys']}, step {line['step']}" in sources


def test_the_numbers_behind_a_sentence_are_folded() -> None:
    page = a_page(seeds=1, sites=1)
    page["words"]["verdicts"] = [("Alignment", [{**page["words"]["trained"][0], "more": "layer 0: 0.5 <b>"}])]
    text = page_html(page)
    assert "<summary>numbers</summary>layer 0: 0.5 &lt;b&gt;</details>" in text
    assert text.count("<summary>numbers</summary>") == 1


def test_of_many_sentences_two_dozen_are_unfolded_and_the_others_are_counted() -> None:
    page = a_page(seeds=1, sites=1)
    line = page["words"]["trained"][0]
    page["words"]["verdicts"] = [("Losses", [{**line, "text": f"sentence {place}."} for place in range(40)])]
    read = Reader(page_html(page))
    assert all(f"sentence {place}." in read.words for place in range(40))
    assert "16 more" in read.words
    assert read.words.index("sentence 23.") < read.words.index("16 more") < read.words.index("sentence 24.")


def test_the_numbers_are_those_of_the_page(page: Page, read: Reader) -> None:
    places = [place for place, script in enumerate(read.of("script")) if script.get("type") == "application/json"]
    assert [json.loads(read.scripts[place]) for place in places] == [page["numbers"]]


def test_ids_are_unique(read: Reader) -> None:
    counts = Counter(attributes["id"] for _, attributes in read.elements if "id" in attributes)
    assert {name for name, count in counts.items() if count > 1} == set()


def test_nothing_is_loaded(read: Reader) -> None:
    assert read.of("link") == read.of("iframe") == []
    assert [script for script in read.of("script") if "src" in script] == []
    assert [image for image in read.of("img") if not (image["src"] or "").startswith("data:")] == []
    (style,) = re.findall(r"<style>(.*?)</style>", page_html(a_page(seeds=1, sites=1)), re.DOTALL)
    assert "url(" not in style
    assert "@import" not in style


def test_links_lead_within_the_page_or_where_its_sentences_point(read: Reader) -> None:
    outside = {link["href"] for link in read.of("a") if not (link["href"] or "").startswith("#")}
    assert outside == {"https://tracking.example/artifacts"}


def test_the_browser_is_told_to_run_these_scripts_alone(read: Reader) -> None:
    (policy,) = (meta["content"] for meta in read.of("meta") if meta.get("http-equiv") == "Content-Security-Policy")
    running = [text for text, one in zip(read.scripts, read.of("script"), strict=True) if "type" not in one]
    digests = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in running]
    assert len(digests) == len(SCRIPTS) + 2
    assert policy is not None
    assert policy.startswith("default-src 'none'; ")
    assert re.findall(r"'sha256-([^']+)'", policy) == digests
    assert "unsafe-eval" not in policy
    assert "script-src 'unsafe-inline'" not in policy


def test_names_that_are_code_stay_names() -> None:
    spiteful = Reader(page_html(a_spiteful_page()))
    plain = Reader(page_html(a_page(seeds=2, sites=1)))
    assert SPITE in spiteful.words
    assert Counter(tag for tag, _ in spiteful.elements) == Counter(tag for tag, _ in plain.elements)
    assert [script for script in spiteful.scripts if "alert(" in script and SPITE in script] == []


@pytest.mark.parametrize("attribute", ["onclick", "onerror", "onload"])
def test_no_element_has_a_script_as_an_attribute(attribute: str, read: Reader) -> None:
    assert [attributes for _, attributes in read.elements if attribute in attributes] == []


def test_a_page_with_hardly_anything_says_so() -> None:
    page = a_page(seeds=1, sites=1)
    words = page["words"]
    words["verdicts"], words["trained"], words["texts"], words["tables"] = [], [], [], []
    words["notices"], words["conventions"], words["left_out"] = [], [], []
    words["differences"]["rows"] = []
    page["numbers"]["pictures"] = []
    read = Reader(page_html(page))
    assert "the runs hold no analysis" in read.words
    assert "The runs have the same parameters." in read.words
    assert {"pictures", "texts", "tables", "notices"}.isdisjoint(one.get("id") or "" for _, one in read.elements)


def test_of_a_long_stored_table_thirty_rows_are_shown_folded_and_all_are_kept_for_the_export() -> None:
    page = a_page(seeds=1, sites=1)
    rows = [[f"row {place}", "1"] for place in range(1120)]
    page["words"]["tables"] = [{"name": "raw.csv", "head": ["name", "value"], "rows": rows}]
    text = page_html(page)
    (section,) = re.findall(r'<section id="tables">(.*?)</section>', text, re.DOTALL)
    assert "<details><summary>raw.csv (1,120 rows)</summary>" in section
    assert len(re.findall(r"<tr>", section)) == 31
    assert len(re.findall(r"<tr hidden>", section)) == 1090
    assert "The first 30 of 1,120 rows; the export has all of them." in section
