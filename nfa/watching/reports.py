"""Tables and figures of a watched training, made only from the series that were recorded."""

from collections.abc import Mapping, Sequence
from typing import Any

from nfa.analyses.csv_files import alignment_csv, directions_csv
from nfa.figures.flow import flow_map
from nfa.figures.gradient_series import LABELS, gradient_series
from nfa.figures.pages import alignment_pages
from nfa.figures.site_kinds import alignment_conventions
from nfa.figures.training_analysis import Series
from nfa.plain_text import csv_text
from nfa.watching.output import Output
from nfa.watching.studies import WatchedStudy
from nfa.watching.subject import Subject


def report(output: Output, studies: Sequence[WatchedStudy], subject: Subject) -> None:
    """Write a table and a figure for each study; figures are named by what is analysed and on how many examples."""
    series, title = output.series(), subject.title(output.run.name if output.run else "")
    for study in studies:
        REPORTS[study.name](output, series, study.described(), title)


def _alignment(output: Output, series: Mapping[str, Series], described: Mapping[str, Any], title: str) -> None:
    sites, relations = described["sites"], described["relations"]
    output.text("similarities.csv", alignment_csv(series, sites, relations, "step"))
    title = f"{title}, {alignment_conventions(described['conventions'])}"
    for number, page in enumerate(alignment_pages(series, sites, relations, title=title, unit="step"), 1):
        output.figure("all_relations" if number == 1 else f"all_relations_{number}", page)


def _directions(output: Output, series: Mapping[str, Series], described: Mapping[str, Any], title: str) -> None:  # noqa: ARG001
    found = {key: of_key for key, of_key in series.items() if key.startswith("gradient/")}
    output.text("gradient_directions.csv", directions_csv({"": found}, "step"))
    keys = [key for key in LABELS if key in found]
    output.figure("gradient_directions", gradient_series({"": found}, keys, title=title, unit="step"))


def _flow(output: Output, series: Mapping[str, Series], described: Mapping[str, Any], title: str) -> None:
    found = {key: of_key for key, of_key in series.items() if key.startswith("flow/")}
    rows = ((step, key, value) for key, of_key in found.items() for step, value in of_key.items())
    output.text("gradient_flow.csv", csv_text(("step", "series", "value"), rows))
    groups = list(described["groups"]["names"])
    output.figure("gradient_flow_map", flow_map(found, groups, title=title, unit="step"))


REPORTS = {"alignment": _alignment, "directions": _directions, "flow": _flow}
