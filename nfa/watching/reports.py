"""Tables and figures of a watched training, made from nothing but what its run has logged."""

from collections.abc import Mapping, Sequence
from typing import Any

from nfa.figures.flow import flow_map
from nfa.figures.gradient_series import LABELS, gradient_series
from nfa.figures.training_analysis import Series
from nfa.registry import tracking
from nfa.registry.analyses import alignment_report, gradient_directions_report


def report(run: Any, studies: Sequence[str], prefix: str) -> None:
    """A table and a figure for each study; names of files begin with `prefix`, as the keys of the series do."""
    logged = tracking.history(run.info.run_id)
    series = {key.removeprefix(prefix): of_key for key, of_key in logged.items() if key.startswith(prefix)}
    if "alignment" in studies:
        alignment_report.report_watched(run, series, prefix)
    if "directions" in studies:
        _directions(run, series, prefix)
    if "flow" in studies:
        _flow(run, series, prefix)


def _directions(run: Any, series: Mapping[str, Series], prefix: str) -> None:
    found = {key: of_key for key, of_key in series.items() if key.startswith("gradient/")}
    tracking.put_text(run, f"{prefix}gradient_directions.csv", gradient_directions_report.table({"": found}, "step"))
    keys = [key for key in LABELS if key in found]
    figure = gradient_series({"": found}, keys, title=run.info.run_name, unit="step")
    tracking.save_picture(run, figure, f"{prefix}gradient_directions")


def _flow(run: Any, series: Mapping[str, Series], prefix: str) -> None:
    groups = tracking.get_json(run.info.run_id, f"{prefix}flow.json")["groups"]["names"]
    found = {key: of_key for key, of_key in series.items() if key.startswith("flow/")}
    rows = [f"{step},{key},{value}" for key, of_key in found.items() for step, value in of_key.items()]
    tracking.put_text(run, f"{prefix}gradient_flow.csv", "\n".join(["step,series,value", *rows]))
    figure = flow_map(found, list(groups), title=run.info.run_name, unit="step")
    tracking.save_picture(run, figure, f"{prefix}gradient_flow_map")
