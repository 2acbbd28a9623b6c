"""A study as one interactive page with Optuna's plots, readable without a network."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import optuna
from jinja2 import Environment
from optuna import visualization
from plotly import io
from plotly.graph_objects import Figure
from plotly.offline import get_plotlyjs

from nfa.registry.sweeps.study_table import LEAST, StudyTable

IN_CONTOURS = 3  # most axes; each pair is drawn twice
TEMPLATE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{{ name }}</title>
<style>body { font: 16px/1.5 system-ui, sans-serif; max-width: 1200px; margin: 2em auto; padding: 0 1em }
h2 { margin: 2em 0 0 } p { margin: 0.2em 0 0.6em; max-width: 50em }</style>
<script id="plotly">{{ plotly | safe }}</script></head>
<body><h1>{{ name }}</h1>
<p>{{ ended }} of {{ trials }} trials finished. Point at a mark to see its values; \
drag to zoom in, double-click to zoom out.</p>
{% for heading, sentence, plot in sections %}<section><h2>{{ heading }}</h2>
<p>{{ sentence }}</p>{% if plot %}
{{ plot | safe }}{% endif %}</section>
{% endfor %}</body></html>
"""


@dataclass(frozen=True)
class Section:
    """A plot with a heading and a sentence about it; `missing` gives the reason if there is no plot."""

    heading: str
    sentence: str
    draw: Callable[[], Figure]
    missing: str = ""


def study_page(study: optuna.Study, table: StudyTable) -> str:
    """Return an HTML page with all plots and plotly.js; plots that cannot be drawn are replaced by the reason."""
    with _quiet():
        parts = [_written(section, index) for index, section in enumerate(sections(study, table))]
    ended = sum(row.state == "finished" for row in table.rows)
    page = Environment(autoescape=True, keep_trailing_newline=True).from_string(TEMPLATE)
    return page.render(name=table.name, plotly=get_plotlyjs(), ended=ended, trials=len(table.rows), sections=parts)


def sections(study: optuna.Study, table: StudyTable) -> list[Section]:
    """Return all sections in order; those about single objectives are repeated for each objective."""
    found = [] if len(table.objectives) == 1 else [_front(study, table)]
    found += [_history(study, table, index) for index in range(len(table.objectives))]
    found += [_course(study, table), _importances(study, table)]
    for index in range(len(table.objectives)):
        found += _of_space(study, table, index)
    return [*found, _timeline(study)]


def _front(study: optuna.Study, table: StudyTable) -> Section:
    return Section(
        "Pareto front",
        "Each finished trial by its objectives. No trial is better in all objectives than one on the front.",
        lambda: visualization.plot_pareto_front(study, target_names=[*table.objectives]),
        _unfinished(table)
        or ("" if len(table.objectives) < 4 else "More than three objectives cannot be drawn in one plot."),
    )


def _history(study: optuna.Study, table: StudyTable, index: int) -> Section:
    way = "higher is better" if table.maximise[index] else "lower is better"
    best = ", with the best value so far" if len(table.objectives) == 1 else ""  # drawn for single objectives
    return Section(
        f"History of {table.objectives[index]}",
        f"Each finished trial by its number{best}; {way}.",
        lambda: _in_steps(visualization.plot_optimization_history(study, **_target(table, index))),
        _unfinished(table),
    )


def _in_steps(figure: Figure) -> Figure:
    """Draw the best value so far as steps: it holds until a better trial."""
    return figure.update_traces(line={"shape": "hv"}, selector={"mode": "lines"})


def _course(study: optuna.Study, table: StudyTable) -> Section:
    shown = [row for row in table.rows if row.state in ("finished", "pruned", "running") and row.intermediate]
    missing = "" if shown else "No finished, pruned or running trial reported values during training."
    if len(table.objectives) > 1:
        missing = "With several objectives, no values are reported during training."
    return Section(
        "Values during training",
        f"{table.objectives[0]} by step. Curves that end early: pruned or running trials. Failed trials are not shown.",
        lambda: visualization.plot_intermediate_values(study).update_yaxes(title=table.objectives[0]),
        missing,
    )


def _importances(study: optuna.Study, table: StudyTable) -> Section:
    count = sum(row.state == "finished" for row in table.rows)
    return Section(
        "Importance of the parameters",
        "How much each parameter reduces the variance in a random forest. The shares always add up to 1, even if no "
        "parameter matters. study.txt compares importances with chance and gives intervals.",
        lambda: _bars(study, table),
        "" if count >= LEAST else f"{count} trials finished, but {LEAST} are needed.",
    )


def _of_space(study: optuna.Study, table: StudyTable, index: int) -> list[Section]:
    name, missing, target = table.objectives[index], _unfinished(table), _target(table, index)
    few = "" if len(_varied(table)) > 1 else "Fewer than two parameters varied among the finished trials."
    return [
        Section(
            f"{name} by each parameter",
            "Finished trials; later ones are darker. The other parameters vary too.",
            lambda: visualization.plot_slice(study, **target),
            missing,
        ),
        Section(
            f"{name} over pairs of parameters",
            f"Interpolated between finished trials (dots), for up to {IN_CONTOURS} of the most important parameters.",
            lambda: _contours(study, table, index),
            missing or few,
        ),
        Section(
            f"{name} across all parameters",
            "One line per finished trial, through its value and its parameters. Drag along an axis to select lines.",
            lambda: visualization.plot_parallel_coordinate(study, **target),
            missing,
        ),
    ]


def _timeline(study: optuna.Study) -> Section:
    return Section(
        "Timeline",
        "When each trial ran and how it ended. A resumed trial appears twice, once as failed.",
        lambda: visualization.plot_timeline(study),
        "" if study.get_trials(deepcopy=False) else "There are no trials.",
    )


def _unfinished(table: StudyTable) -> str:
    return "" if any(row.state == "finished" for row in table.rows) else "No trial has finished."


def _target(table: StudyTable, index: int) -> dict[str, Any]:
    """Return Optuna's `target` arguments; none for a single objective, so that Optuna knows its direction."""
    named = {"target_name": table.objectives[index]}
    return named if len(table.objectives) == 1 else {**named, "target": lambda trial: trial.values[index]}


def _bars(study: optuna.Study, table: StudyTable) -> Figure:
    """Draw the importances for all objectives, labelled by name."""
    named: dict[str, Any] = {"target_name": table.objectives[0]} if len(table.objectives) == 1 else {}
    figure = visualization.plot_param_importances(study, _evaluator(), **named)
    for trace, name in zip(figure.data, table.objectives, strict=False):
        trace.name = name
    return figure


def _contours(study: optuna.Study, table: StudyTable, index: int) -> Figure:
    names = _leading(study, table, index)
    figure = visualization.plot_contour(study, params=names, **_target(table, index))
    return figure.update_layout(height=460 if len(names) < IN_CONTOURS else 760)


def _evaluator() -> "optuna.importance.BaseImportanceEvaluator":
    """Return an evaluator that does not depend on the axis' scale; fANOVA's values assume a linear one."""
    from optuna.importance import MeanDecreaseImpurityImportanceEvaluator  # its import draws random numbers

    return MeanDecreaseImpurityImportanceEvaluator(seed=0)


def _varied(table: StudyTable) -> list[str]:
    rows = [row for row in table.rows if row.state == "finished"]
    return [
        axis.name for axis in table.axes if len({str(row.parameters.get(axis.name)) for row in rows} - {"None"}) > 1
    ]


def _leading(study: optuna.Study, table: StudyTable, index: int) -> list[str]:
    """Return the axes for contours, the most important first."""
    varied = _varied(table)
    if len(varied) <= IN_CONTOURS:
        return varied
    target = _target(table, index).get("target")
    found = optuna.importance.get_param_importances(study, evaluator=_evaluator(), target=target)
    return sorted(varied, key=lambda name: -found.get(name, 0.0))[:IN_CONTOURS]


def _written(section: Section, index: int) -> tuple[str, str, str]:
    """Return a section's heading, its sentence, and its plot as HTML (empty if it is not drawn)."""
    try:
        missing, figure = section.missing, None if section.missing else section.draw()
    except Exception as error:  # an error in one plot must not prevent the others
        missing, figure = f"Optuna failed with {' '.join(str(error).split()) or type(error).__name__}", None
    if figure is None or not figure.data:
        return section.heading, f"Not drawn: {missing or 'there is nothing to show.'}", ""
    figure.update_layout(title=None, margin={"t": 30}, template="plotly_white", width=None)
    options = {"include_plotlyjs": False, "full_html": False, "config": {"displaylogo": False}}
    return section.heading, section.sentence, io.to_html(figure, div_id=f"plot-{index}", **options)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence Optuna's log and warnings in the block."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        optuna.logging.set_verbosity(before)
