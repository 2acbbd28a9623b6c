"""What the page draws, tells and exports of its numbers, in Chromium: what was logged, and nothing cut off."""

import csv
import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from nfa.registry.report.curves import encoded
from nfa.registry.report.page_data import Curve, Page
from tests.support.report_pages import STEPS, a_page, numbers_of

pytestmark = pytest.mark.slow

Show = Callable[[Page], Any]


def with_values(page: Page, key: str, *values: list[float], **beside: list[float]) -> Page:
    """The page with these values of a key, a list for each run."""
    parts: Any = {name: numbers_of(of) for name, of in beside.items()}
    page["numbers"]["curves"][key] = [Curve(steps=0, values=numbers_of(of), **parts) for of in values]
    return page


def ends(driver: Any, key: str) -> Any:
    return driver.execute_script("return scalesOf([panelOf(arguments[0], shownItems(), items())])", key)


@pytest.mark.parametrize(("key", "values"), [("val/accuracy", (50.0, 95.0)), ("val/loss", (-1.0, -3.7))])
def test_an_axis_holds_all_values_also_those_beyond_the_limits_of_their_key(
    key: str, values: tuple[float, float], show: Show
) -> None:
    first, last = values
    series = [first + (last - first) * place / (len(STEPS) - 1) for place in range(len(STEPS))]
    driver = show(with_values(a_page(seeds=1, sites=1, variants=["one"]), key, series))
    found = ends(driver, key)
    assert found["y"][0] <= min(values) < max(values) <= found["y"][1]
    assert not found["log"]


def test_nothing_is_drawn_outside_of_its_panel(show: Show) -> None:
    driver = show(a_page())
    free = driver.execute_script(
        "return [...document.querySelectorAll('#sections figure svg[aria-label^=Curves]')].flatMap((svg) =>"
        " [...svg.querySelectorAll('g')].filter((one) => /^(area|line|dot|rule)$/.test(one.ariaLabel))"
        ".map((one) => one.hasAttribute('clip-path') || one.querySelector('[clip-path]') !== null))"
    )
    assert len(free) > 100
    assert all(free)


def test_a_band_that_reaches_zero_is_widest_on_a_logarithmic_axis(show: Show) -> None:
    count = len(STEPS)
    falling = [1 / (1 + place) for place in range(count)]
    page = with_values(a_page(seeds=1, sites=1, variants=["one"]), "val/loss", falling, se=[0.1] * count)
    driver = show(page)
    rows = driver.execute_script(
        "const panel = panelOf('val/loss', shownItems(), items()); const foot = scalesOf([panel]).y[0];"
        " return panel.series[0].points.map((row) => ({ ...positiveOf(row, foot), foot, was: row.low }))"
    )
    assert min(row["was"] for row in rows) <= 0
    for row in rows:
        assert row["low"] == pytest.approx(row["was"] if row["was"] > 0 else row["foot"])
        assert row["high"] == pytest.approx(row["value"] + 0.2)


def test_a_band_that_ends_just_above_zero_does_not_stretch_a_logarithmic_axis(show: Show) -> None:
    count = len(STEPS)
    page = with_values(a_page(seeds=1, sites=1, variants=["one"]), "val/loss", [0.5] * count, se=[0.2499999] * count)
    assert ends(show(page), "val/loss")["y"][0] == pytest.approx(0.05)


def test_exported_numbers_have_the_digits_that_tell_them_apart(show: Show) -> None:
    driver = show(a_page(seeds=1, sites=1))
    values = [0.1, 1 / 3, 16777217, 1234567890, 12345671, -5, 1e-30, 3e38, 123456.789]
    text = driver.execute_script(
        "return arguments[0].map((one) => exact(Math.abs(one % 1) ? Math.fround(one) : one))", values
    )
    assert [float(np.float32(one)) for one in text] == [float(np.float32(one)) for one in values]
    assert text[:6] == ["0.1", "0.33333334", "16777217", "1234567890", "12345671", "-5"]


def test_whole_numbers_are_shown_and_exported_as_they_were_logged(show: Show) -> None:
    page = a_page(seeds=1, sites=1, variants=["one"])
    page["numbers"]["latest"]["values"]["tokens"] = encoded([1234567890])
    page["numbers"]["latest"]["steps"]["tokens"] = encoded([16777217])
    page["numbers"]["steps"][0][-1] = 12345678
    driver = show(page)
    driver.execute_script("TABLE.keys = ['tokens', 'train/loss']; drawTable()")
    cells = driver.execute_script(
        "return [...document.querySelectorAll('#values-table td.number')].map((one) => one.textContent)"
    )
    rows = driver.execute_script("return csvOf(valuesTable('csv'))")
    (row,) = csv.DictReader(io.StringIO(rows))
    assert cells[0] == "1234567890step 16777217"
    assert (row["tokens"], row["tokens step"], row["train/loss step"]) == ("1234567890", "16777217", "12345678")


def test_exported_means_name_the_runs_that_have_logged_the_values(show: Show) -> None:
    page = a_page(seeds=3, sites=1, variants=["one"])
    page["numbers"]["latest"]["of"] = {"test/accuracy": [1, 0, 1]}
    driver = show(page)
    text = driver.execute_script("return csvOf(longTable('', ['layer_0/agop_nfm'], shownItems()))")
    runs = page["numbers"]["runs"]
    assert {row["run_id"] for row in csv.DictReader(io.StringIO(text))} == {" ".join(run["holders"][1] for run in runs)}
    found = driver.execute_script("return pickOf(GROUP_ITEMS[0], 'test/accuracy', { at: 'last' }).holder")
    assert found.split() == [runs[0]["holders"][1], runs[1]["id"], runs[2]["holders"][1]]


def picked(driver: Any, key: str, **wanted: object) -> Any:
    return driver.execute_script("return pick(0, arguments[0], arguments[1])", key, wanted)


def test_a_value_at_a_step_is_of_that_step_or_says_of_which(show: Show) -> None:
    page = a_page(seeds=1, sites=1)
    page["numbers"]["curves"]["train/loss"][0]["points"] = 5000  # type: ignore[index]
    driver = show(page)
    exactly, earlier = (picked(driver, "layer_0/agop_nfm", at="step", step=step) for step in (5, 7))
    assert exactly["step"] == earlier["step"] == 5
    assert ("note" in exactly, earlier["note"]) == (False, "the nearest earlier one")
    thinned = picked(driver, "train/loss", at="step", step=7)
    assert thinned["note"] == "the nearest earlier of 12 of 5000 values that are here"
    assert "note" not in picked(driver, "train/loss", at="step", step=8)


def test_a_key_with_a_last_value_only_has_none_at_another_step(show: Show) -> None:
    driver = show(a_page(seeds=1, sites=1))
    driver.execute_script("TABLE.keys = ['test/accuracy']; want({ at: 'step', step: 30 })")
    export = "return csvOf(valuesTable('csv'))"
    empty = [*csv.DictReader(io.StringIO(driver.execute_script(export)))]
    assert {(row["test/accuracy"], row["test/accuracy step"]) for row in empty} == {("", "")}
    titles = driver.execute_script(
        "return [...document.querySelectorAll('#values-table td.number')].map((one) => one.title)"
    )
    assert set(titles) == {"Only the last value is on this page, at step 40."}
    driver.execute_script("want({ step: 40 })")
    full = [*csv.DictReader(io.StringIO(driver.execute_script(export)))]
    assert {(row["test/accuracy step"], row["test/accuracy note"]) for row in full} == {("40", "the last one")}
    driver.execute_script("want({ at: 'best', of: 'val/loss' })")
    steps = driver.execute_script("return RUN_ITEMS.map((item) => cellOf(item, 'test/accuracy')?.step ?? null)")
    assert set(steps) <= {None, 40}


def test_thinned_series_say_how_many_values_are_drawn(show: Show) -> None:
    page = a_page(seeds=1, sites=1, variants=["one"])
    for of in page["numbers"]["curves"].values():
        for curve in filter(None, of):
            curve.pop("points", None)
    page["numbers"]["curves"]["train/loss"][0]["points"] = 5000  # type: ignore[index]
    driver = show(page)
    note = driver.execute_script("return document.querySelector('#section-0 .note').textContent")
    assert "12 of 5,000 values of a long series are drawn" in note
    text = driver.execute_script("return csvOf(longTable('', ['train/loss', 'train/learning_rate'], shownItems()))")
    assert {row["values_logged"] for row in csv.DictReader(io.StringIO(text))} == {"5000", "12"}


def test_the_interval_of_a_mean_in_the_table_is_cut_at_what_is_possible(show: Show) -> None:
    values = [0.02, 0.1, 0.7]
    page = with_values(
        a_page(seeds=3, sites=1, variants=["one"]), "val/accuracy", *([one] * len(STEPS) for one in values)
    )
    driver = show(page)
    driver.execute_script("TABLE.keys = ['val/accuracy']; drawTable()")
    (row,) = csv.DictReader(io.StringIO(driver.execute_script("return csvOf(valuesTable('csv'))")))
    assert (row["val/accuracy low"], row["val/accuracy high"]) == ("0", "1")
    cell = driver.execute_script("return document.querySelector('#values-table td.number').textContent")
    assert cell == "0.2733 [0, 1]step 40"


def test_a_mean_in_the_table_is_one_of_all_runs_of_the_group_or_is_absent(show: Show) -> None:
    driver = show(a_page(seeds=3, sites=1))  # the last run has not logged val/loss
    driver.execute_script("TABLE.keys = ['val/loss']; drawTable()")
    rows = [*csv.DictReader(io.StringIO(driver.execute_script("return csvOf(valuesTable('csv'))")))]
    assert [row["val/loss"] != "" for row in rows] == [True, True, False]
    title = driver.execute_script("return document.querySelector('#values-table tr:last-child td.number').title")
    assert title == "2 of 3 runs have a value: a mean over some of them would be biased."


def test_latex_takes_no_row_for_an_option_and_has_powers_of_ten(show: Show) -> None:
    driver = show(a_page(seeds=1, sites=1))
    table = {
        "name": "t",
        "head": ["[a]", "b"],
        "rows": [["[0, 1]", "1.235e+9"], ["*x", "-2e-05 ± 1e-6"], ["1234e567", 0.5]],
    }
    lines = driver.execute_script("return latexOf(arguments[0])", table).splitlines()
    body = [line for line in lines if line.endswith("\\\\")]
    assert body == [
        "{}[a] & b \\\\",
        "{}[0, 1] & $1.235\\times10^{9}$ \\\\",
        "{}*x & $-2\\times10^{-5}$ $\\pm$ $1\\times10^{-6}$ \\\\",
        "1234e567 & 0.5 \\\\",
    ]
    assert driver.execute_script("return latexCell(1234567890.5)") == "$1.235\\times10^{9}$"


def test_latex_says_which_letters_it_cannot_set(show: Show) -> None:
    driver = show(a_page(seeds=1, sites=1))
    cells = driver.execute_script("return ['é', 'Ł', '学', '😀', 'α', '[x'].map(latexCell)")
    assert cells == ["é", "Ł", "[U+5B66]", "[U+1F600]", "$\\alpha$", "[x"]
    text = driver.execute_script("return latexOf({ name: 't', head: ['a'], rows: [['学']] })")
    assert "% Letters that pdfLaTeX cannot set stand as their codes: [U+…]." in text
    assert "\n{}[U+5B66] " in text


def test_what_a_chart_is_of_is_said_once_and_pictures_are_named_in_words(show: Show) -> None:
    page = a_page(seeds=1, sites=1)
    for series in page["numbers"]["pictures"]:
        series["name"] = series["name"].replace("map of classes", "training_analysis")
    driver = show(page)
    captions = driver.execute_script(
        "return [...document.querySelectorAll('#section-0 figcaption')].map((one) => one.textContent)"
    )
    assert "Learning rate" in captions
    kinds = driver.execute_script(
        "return [...document.querySelectorAll('#pictures-body option')].map((one) => one.textContent)"
    )
    assert "training analysis" in kinds


def test_a_mean_over_values_that_were_measured_in_different_ways_is_absent_with_the_reason(show: Show) -> None:
    page = a_page(seeds=3, sites=1, variants=["one"])
    page["numbers"]["groups"][0]["apart"] = ["train/loss"]
    driver = show(page)
    driver.execute_script("TABLE.keys = ['train/loss']; drawTable()")
    cell, title = driver.execute_script(
        "const cell = document.querySelector('#values-table td.number'); return [cell.textContent, cell.title]"
    )
    assert (cell, title[:44]) == ("–", "The runs have measured it in different ways:")
