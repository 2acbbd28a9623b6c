"""How fast a browser shows the page of a report of many runs: 1,000 runs, 24 keys, 100 steps."""

import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.record import store
from nfa.registry.report.page import page_html
from tests.support.browser import browser, what_is_missing
from tests.support.report_pages import a_large_page

ROUNDS = 5
RUNS, SITES, STEPS = 1000, 22, 100
MARKS = "return Object.fromEntries(performance.getEntriesByType('mark').map((mark) => [mark.name, mark.startTime]))"
# What a reader does next; each is timed until the page has been drawn again.
ACTIONS = {
    "the table sorted": "sortBy('val/loss')",
    "the values at the best step": "want({ at: 'best' })",
    "a run ticked": "tick(RUN_ITEMS[20], true)",
    "all charts drawn": "drawAll()",
}
# Runs what is in the braces, and ends when it is on the screen.
TIMED = """const [done] = arguments; const start = performance.now(); {};
requestAnimationFrame(() => setTimeout(() => done(performance.now() - start)))"""
WAITED = """const [done] = arguments;
const look = () => (performance.getEntriesByName('first chart').length ? done() : setTimeout(look, 10)); look()"""


def measured(driver: Any, address: str) -> dict[str, float]:
    """Seconds to the first chart, from the beginning of loading, and of what a reader does next."""
    driver.get(address)
    driver.execute_async_script(WAITED)
    marks = driver.execute_script(MARKS)
    seconds = {"to the first chart": marks["first chart"], "to the table of values": marks["page ready"]}
    return {name: value / 1000 for name, value in (seconds | _actions(driver)).items()}


def _actions(driver: Any) -> dict[str, float]:
    return {name: driver.execute_async_script(TIMED.replace("{}", action)) for name, action in ACTIONS.items()}


def main() -> None:
    if missing := what_is_missing():
        sys.exit(f"Nothing was measured, because these are not here: {missing}.")
    with tempfile.TemporaryDirectory() as folder, browser() as driver:
        file = Path(folder, "report.html")
        file.write_text(page_html(a_large_page(RUNS, SITES, STEPS)), encoding="utf-8")
        rounds = [measured(driver, file.as_uri()) for _ in range(ROUNDS)]
        version = driver.capabilities["browserVersion"]
        megabytes = file.stat().st_size / 1e6
    results: dict[str, Any] = {
        f"{name}, s": round(statistics.median(one[name] for one in rounds), 2) for name in rounds[0]
    }
    title = f"The page of a report of {RUNS:,} runs with {SITES + 2} keys at {STEPS} steps, in a browser"
    results |= {"most to the first chart, s": round(max(one["to the first chart"] for one in rounds), 2)}
    results |= {"size of the page, MB": round(megabytes, 1), "browser": f"Chromium {version}"}
    store("page_in_browser", title, results, ["Medians of five loads from a file; without a window and a GPU."])


if __name__ == "__main__":
    main()
