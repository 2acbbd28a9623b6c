"""What the script of a page does, in Chromium and from a file."""

import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nfa.registry.report.page import page_html
from nfa.registry.report.page_data import Page
from tests.support.report_pages import SPITE, VARIANTS, a_large_page, a_page, a_spiteful_page

pytestmark = pytest.mark.slow

# Keeps what would be saved or copied, in place of saving and copying it.
KEEP = "window.kept = []; download = (text, name) => kept.push([name, text]); copy = (text) => kept.push(['', text]);"


def found(driver: Any, selector: str) -> list[Any]:
    return list(driver.find_elements("css selector", selector))


def texts(driver: Any, selector: str) -> list[str]:
    words: list[str] = driver.execute_script(
        "return [...document.querySelectorAll(arguments[0])].map((one) => one.textContent)", selector
    )
    return words


def press(driver: Any, selector: str) -> None:
    driver.execute_script("document.querySelector(arguments[0]).click()", selector)


def test_a_section_has_a_heat_map_for_each_group_and_a_panel_for_each_site(show: Callable[[Page], Any]) -> None:
    driver = show(a_page(sites=6))
    maps = [one for one in found(driver, "#section-1 svg[role=img]") if "Heat map" in one.get_attribute("aria-label")]
    curves = [one for one in found(driver, "#section-1 svg[role=img]") if "Curves" in one.get_attribute("aria-label")]
    assert len(maps) == 3 * len(VARIANTS)
    assert len(curves) == 3 * 6


def test_one_switch_unfolds_the_seeds_everywhere(show: Callable[[Page], Any]) -> None:
    driver = show(a_page(seeds=4, sites=2))
    assert len(found(driver, "#values-table tbody tr")) == 3
    press(driver, "input[value=unfolded]")
    assert len(found(driver, "#values-table tbody tr")) == 12
    assert len(texts(driver, "#section-0 .legend li:not(.no-print)")) == 12


def test_what_has_no_values_is_named_below_its_chart(show: Callable[[Page], Any]) -> None:
    driver = show(a_page())
    assert f"No values of {VARIANTS[-1]}." in texts(driver, "#section-0 figure .note")


def test_arrow_keys_go_from_cell_to_cell_of_a_heat_map(show: Callable[[Page], Any]) -> None:
    driver = show(a_page(seeds=1, sites=3))
    heat = found(driver, "#section-1 svg[tabindex]")[0]
    driver.execute_script("arguments[0].focus()", heat)
    heat.send_keys("\ue015\ue014")  # down and right
    assert texts(driver, "#section-1 .told")[0] == "layer_1, step 1: not measured"


def test_panels_of_one_relation_have_one_scale(show: Callable[[Page], Any]) -> None:
    driver = show(a_page(sites=6))
    ticks = driver.execute_script(
        "return [...document.querySelectorAll('#section-1 .panels:not(.wide) svg')]"
        ".map((svg) => svg.querySelector('[aria-label^=\"y-axis tick label\"]').textContent)"
    )
    assert len(ticks) == 18
    assert len(set(ticks)) == 1


def test_no_more_than_twelve_panels_are_drawn_and_others_can_be_chosen(show: Callable[[Page], Any]) -> None:
    driver = show(a_page(seeds=1, sites=30))
    captions = "#section-1 > div > div:first-child .panels:not(.wide) figcaption"
    assert len(texts(driver, captions)) == 12
    press(driver, "#section-1 .chooser .bar button")  # the first twelve
    assert texts(driver, captions) == [f"layer_{site}" for site in range(12)]
    press(driver, "#section-1 .choices input:not(:checked)")
    assert len(texts(driver, captions)) == 12
    assert texts(driver, "#said") == ["No more than 12 at once: untick one first."]


def test_a_heading_sorts_by_mouse_and_by_keyboard(show: Callable[[Page], Any]) -> None:
    driver = show(a_page(seeds=1, sites=1))
    button = found(driver, "button[data-key='val/accuracy']")[0]
    button.click()
    assert _sorted(driver) == "descending"  # high accuracies are better
    first = texts(driver, "#values-table tbody th")
    driver.switch_to.active_element.send_keys("\ue007")
    assert _sorted(driver) == "ascending"
    assert texts(driver, "#values-table tbody th") == first[::-1]


def _sorted(driver: Any) -> str:
    (header,) = found(driver, "#values-table th:has(button[data-key='val/accuracy'])")
    return str(header.get_attribute("aria-sort"))


def test_runs_without_a_value_stand_last_either_way(show: Callable[[Page], Any]) -> None:
    driver = show(a_page(seeds=1, sites=1))
    for _ in range(2):
        press(driver, "button[data-key='val/loss']")
        assert texts(driver, "#values-table tbody tr:last-child td:nth-of-type(3)") == ["–"]


def test_a_value_can_be_asked_for_at_the_best_step_of_another_key(show: Callable[[Page], Any]) -> None:
    driver = show(a_page(seeds=1, sites=1))

    def picked(key: str, **wanted: object) -> Any:
        return driver.execute_script("return pick(0, arguments[0], arguments[1])", key, wanted)

    best = picked("val/loss", at="lowest")["step"]
    assert picked("val/loss", at="best", of="")["step"] == best
    assert picked("train/loss", at="best", of="val/loss")["step"] == best
    assert picked("val/loss", at="step", step=7)["step"] == 5  # the nearest earlier one
    assert picked("test/accuracy", at="best", of="")["value"] == pytest.approx(0.9)  # there is only the last
    assert picked("layer_0/agop_nfm", at="best", of="") is None  # nothing tells what is better


def test_means_over_seeds_have_the_interval_of_student(show: Callable[[Page], Any]) -> None:
    from scipy.stats import t

    driver = show(a_page(seeds=1, sites=1))
    ours = driver.execute_script("return [1, 2, 4, 10, 11, 30, 200].map(tQuantile)")
    assert ours == pytest.approx([t.ppf(0.975, freedom) for freedom in (1, 2, 4, 10, 11, 30, 200)], rel=1e-3)


def test_exported_values_have_the_run_the_key_and_the_step(show: Callable[[Page], Any]) -> None:
    page = a_page(seeds=1, sites=2)
    driver = show(page)
    driver.execute_script(KEEP)
    press(driver, "#section-1 .exports button")
    ((name, text),) = driver.execute_script("return kept")
    rows = list(csv.DictReader(io.StringIO(text)))
    assert name.endswith(".csv")
    assert {row["key"] for row in rows} == {"layer_0/agop_nfm", "layer_1/agop_nfm"}
    holders = {run["holders"][1] for run in page["numbers"]["runs"]}
    assert {row["run_id"] for row in rows} == holders
    assert {int(row["step"]) for row in rows} == set(page["numbers"]["steps"][0])
    assert all(0 < float(row["value"]) <= 1 for row in rows)


def test_tables_are_exported_as_latex_that_is_escaped(show: Callable[[Page], Any]) -> None:
    driver = show(a_spiteful_page())
    driver.execute_script(KEEP)
    press(driver, "#parameters .exports button:nth-child(2)")
    ((name, text),) = driver.execute_script("return kept")
    assert name.endswith(".tex")
    assert "\\toprule" in text
    body = text.split("\\toprule")[1]
    assert "\\textless{}/script\\textgreater{}" in body
    assert "\\{\\{ 7*7 \\}\\}" in body
    assert "onerror=alert(2)\\textgreater{}'\"\\&" in body


def test_no_exported_name_is_a_formula(show: Callable[[Page], Any]) -> None:
    driver = show(a_page(seeds=1, sites=1))
    cells = driver.execute_script("return ['=1+1', '-0.5', '@a', 'a,\"b\"', -0.25].map(csvCell)")
    assert cells == ["'=1+1", "-0.5", "'@a", '"a,""b"""', "-0.25"]


def test_one_slider_moves_all_pictures_and_says_which_step_is_shown(show: Callable[[Page], Any]) -> None:
    driver = show(a_page())
    slider = found(driver, "#pictures-step")[0]
    driver.execute_script("arguments[0].focus()", slider)
    driver.switch_to.active_element.send_keys("\ue011")  # to the first step
    assert texts(driver, "#pictures-shown figcaption .quiet") == [" step 0", " has no picture before step 5"]
    slider.send_keys("\ue014\ue014")
    assert texts(driver, "#pictures-shown figcaption .quiet") == [
        " step 20",
        " step 5, the nearest earlier one: none at step 20",
    ]
    slider.send_keys("\ue010")
    assert [one.get_attribute("href") for one in found(driver, "#pictures-shown a")] == [
        "https://tracking.example/0/40.png",
        "https://tracking.example/1/40.png",
    ]


def test_names_that_are_code_do_not_run(show: Callable[[Page], Any]) -> None:
    driver = show(a_spiteful_page())
    press(driver, "input[value=unfolded]")
    driver.execute_script("drawAll()")
    assert found(driver, "img[src=x]") == []
    assert any(SPITE in text for text in texts(driver, "#values-table tbody th"))


def test_a_script_that_gets_in_all_the_same_is_not_run(driver: Any, tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    text = page_html(a_page(seeds=1, sites=1))
    file.write_text(text.replace("</main>", "<script>document.title = 'taken'</script></main>"), encoding="utf-8")
    driver.get(file.as_uri())
    assert driver.title != "taken"
    assert any("Content Security Policy" in entry["message"] for entry in driver.get_log("browser"))


def test_a_link_that_is_a_script_is_no_link(show: Callable[[Page], Any]) -> None:
    page = a_page(seeds=1, sites=1)
    for series in page["numbers"]["pictures"]:
        series["inlined"] = [False for _ in series["steps"]]
        series["pictures"] = ["javascript:alert(1)" for _ in series["steps"]]
    driver = show(page)
    assert found(driver, "#pictures-shown a") == []
    assert "javascript:alert(1)" in texts(driver, "#pictures-shown code")


def test_paper_shows_all_that_is_folded_and_drawn_late(show: Callable[[Page], Any]) -> None:
    driver = show(a_page())
    driver.execute_script("changed(); toPaper()")
    assert driver.execute_script("return UNDRAWN.size") == 0
    assert found(driver, "details:not([open]):not(.no-print)") == []
    assert len(found(driver, "#pictures-body img")) == 2
    assert texts(driver, "#pictures-body .note") == [
        "One picture of each kind is printed, 2 of 72; the page on a screen has the others."
    ]
    driver.execute_script("fromPaper()")
    assert len(found(driver, "details[open]")) == 0
    assert len(found(driver, "#pictures-step")) == 1


@pytest.mark.parametrize("width", [360, 800, 1400])
def test_nothing_is_wider_than_the_screen(width: int, show: Callable[[Page], Any]) -> None:
    driver = show(a_page())
    screen = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    try:
        driver.execute_script("changed(); drawAll()")
        assert driver.execute_script("return document.documentElement.scrollWidth") <= width
    finally:
        driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_each_control_has_a_name_and_each_id_is_there_once(show: Callable[[Page], Any]) -> None:
    driver = show(a_page(sites=30))
    nameless = driver.execute_script(
        "return [...document.querySelectorAll('button, input, select')].filter((one) => !one.ariaLabel"
        " && !one.textContent.trim() && !one.closest('label')).map((one) => one.outerHTML)"
    )
    ids = driver.execute_script("return [...document.querySelectorAll('[id]')].map((one) => one.id)")
    assert nameless == []
    assert len(ids) == len(set(ids))


def test_the_keyboard_reaches_the_end_of_the_page(show: Callable[[Page], Any]) -> None:
    driver = show(a_page(seeds=2, sites=1))
    seen = []
    for _ in range(400):
        driver.switch_to.active_element.send_keys("\ue004")
        seen.append(driver.execute_script("return document.activeElement.outerHTML.slice(0, 200)"))
        if "Save as CSV: runs of the report" in seen[-1] or "The runs of this page" in seen[-1]:
            break
    assert 'class="skip"' in seen[0]
    assert "The runs of this page" in seen[-1]


def test_a_thousand_runs_are_a_band_with_the_ticked_runs(show: Callable[[Page], Any]) -> None:
    driver = show(a_large_page(runs=1000, sites=2, steps=20))
    assert len(found(driver, "#values-table tbody tr")) == 50
    assert any("the median of all 1000 runs" in text for text in texts(driver, "#section-0 .note"))
    assert len(texts(driver, "#section-0 .legend li:not(.no-print)")) == 5
    bands = driver.execute_script(
        "return quantilesOf(items(), 'val/loss').every((row) => row.n === 1000 && row.lowest <= row.low"
        " && row.low <= row.middle && row.middle <= row.high && row.high <= row.highest)"
    )
    assert bands
