"""A study as one interactive page, by Optuna's own plots, which needs no network to be read."""

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

IN_CONTOURS = 3  # axes; each pair of them is drawn twice
TEMPLATE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{{ name }}</title>
<style>body { font: 16px/1.5 system-ui, sans-serif; max-width: 1200px; margin: 2em auto; padding: 0 1em }
h2 { margin: 2em 0 0 } p { margin: 0.2em 0 0.6em; max-width: 50em }</style>
<script id="plotly">{{ plotly | safe }}</script></head>
<body><h1>{{ name }}</h1>
<p>{{ ended }} of {{ trials }} trials finished. Point at a mark for its numbers; \
drag to enlarge, double-click to go back.</p>
{% for heading, sentence, plot in sections %}<section><h2>{{ heading }}</h2>
<p>{{ sentence }}</p>{% if plot %}
{{ plot | safe }}{% endif %}</section>
{% endfor %}</body></html>
"""


@dataclass(frozen=True)
class Section:
    """One plot below its heading and what is seen; `missing` says instead why there is none."""

    heading: str
    sentence: str
    draw: Callable[[], Figure]
    missing: str = ""


def study_page(study: optuna.Study, table: StudyTable) -> str:
    """HTML with all plots and plotly.js in it; what cannot be drawn is left out with the reason."""
    with _quiet():
        parts = [_written(section, index) for index, section in enumerate(sections(study, table))]
    ended = sum(row.state == "finished" for row in table.rows)
    page = Environment(autoescape=True, keep_trailing_newline=True).from_string(TEMPLATE)
    return page.render(name=table.name, plotly=get_plotlyjs(), ended=ended, trials=len(table.rows), sections=parts)


def sections(study: optuna.Study, table: StudyTable) -> list[Section]:
    """All of them, in order; those for single objectives once for each."""
    found = [] if len(table.objectives) == 1 else [_front(study, table)]
    found += [_history(study, table, index) for index in range(len(table.objectives))]
    found += [_course(study, table), _importances(study, table)]
    for index in range(len(table.objectives)):
        found += _of_space(study, table, index)
    return [*found, _timeline(study)]


def _front(study: optuna.Study, table: StudyTable) -> Section:
    return Section(
        "Pareto front",
        "Each finished trial by its objectives; on the front, none is better in all of them.",
        lambda: visualization.plot_pareto_front(study, target_names=[*table.objectives]),
        _unfinished(table)
        or ("" if len(table.objectives) < 4 else "More than three objectives cannot be drawn in one plot."),
    )


def _history(study: optuna.Study, table: StudyTable, index: int) -> Section:
    way = "higher is better" if table.maximise[index] else "lower is better"
    best = ", and the best value until then" if len(table.objectives) == 1 else ""  # Optuna draws it for one only
    return Section(
        f"History of {table.objectives[index]}",
        f"Each finished trial by its number{best}; {way}.",
        lambda: visualization.plot_optimization_history(study, **_target(table, index)),
        _unfinished(table),
    )


def _course(study: optuna.Study, table: StudyTable) -> Section:
    shown = [row for row in table.rows if row.state in ("finished", "pruned", "running") and row.intermediate]
    missing = "" if shown else "No trial that finished, runs or was pruned reported a value while it trained."
    if len(table.objectives) > 1:
        missing = "With several objectives no values are reported while a trial trains."
    return Section(
        "Values while trials trained",
        f"{table.objectives[0]} by step. Curves that end early were pruned, or still run; failed trials are not shown.",
        lambda: visualization.plot_intermediate_values(study).update_yaxes(title=table.objectives[0]),
        missing,
    )


def _importances(study: optuna.Study, table: StudyTable) -> Section:
    count = sum(row.state == "finished" for row in table.rows)
    return Section(
        "Importance of the parameters",
        "How much each parameter lowers the variance in a random forest; the shares always add up to 1, even where "
        "nothing matters. study.txt says which are beyond chance, and how sure that is.",
        lambda: _bars(study, table),
        "" if count >= LEAST else f"{count} trials finished; {LEAST} are needed.",
    )


def _of_space(study: optuna.Study, table: StudyTable, index: int) -> list[Section]:
    name, missing, target = table.objectives[index], _unfinished(table), _target(table, index)
    few = "" if len(_varied(table)) > 1 else "Fewer than two parameters varied among the finished trials."
    return [
        Section(
            f"{name} by each parameter",
            "Finished trials, darker the later they were made; the other parameters vary too.",
            lambda: visualization.plot_slice(study, **target),
            missing,
        ),
        Section(
            f"{name} over pairs of parameters",
            f"Interpolated between finished trials (dots), of at most the {IN_CONTOURS} most important parameters.",
            lambda: _contours(study, table, index),
            missing or few,
        ),
        Section(
            f"{name} across all parameters",
            "A line for each finished trial, through its value and its parameters; drag along an axis to choose lines.",
            lambda: visualization.plot_parallel_coordinate(study, **target),
            missing,
        ),
    ]


def _timeline(study: optuna.Study) -> Section:
    return Section(
        "Timeline",
        "When each trial ran, and how it ended.",
        lambda: visualization.plot_timeline(study),
        "" if study.get_trials(deepcopy=False) else "There is no trial.",
    )


def _unfinished(table: StudyTable) -> str:
    return "" if any(row.state == "finished" for row in table.rows) else "No trial has finished."


def _target(table: StudyTable, index: int) -> dict[str, Any]:
    """Optuna takes none for a single objective, whose direction it then knows."""
    named = {"target_name": table.objectives[index]}
    return named if len(table.objectives) == 1 else {**named, "target": lambda trial: trial.values[index]}


def _bars(study: optuna.Study, table: StudyTable) -> Figure:
    """Of all objectives, under their names."""
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
    """The one whose values do not depend on whether an axis is logarithmic: fANOVA's are over the linear scale."""
    from optuna.importance import MeanDecreaseImpurityImportanceEvaluator  # imports scikit-learn, which draws numbers

    return MeanDecreaseImpurityImportanceEvaluator(seed=0)


def _varied(table: StudyTable) -> list[str]:
    rows = [row for row in table.rows if row.state == "finished"]
    return [
        axis.name for axis in table.axes if len({str(row.parameters.get(axis.name)) for row in rows} - {"None"}) > 1
    ]


def _leading(study: optuna.Study, table: StudyTable, index: int) -> list[str]:
    """The axes for contours, the most important first."""
    varied = _varied(table)
    if len(varied) <= IN_CONTOURS:
        return varied
    target = _target(table, index).get("target")
    found = optuna.importance.get_param_importances(study, evaluator=_evaluator(), target=target)
    return sorted(varied, key=lambda name: -found.get(name, 0.0))[:IN_CONTOURS]


def _written(section: Section, index: int) -> tuple[str, str, str]:
    """Its heading, what is said below, and its plot as HTML; no plot where there is a reason against it."""
    try:
        missing, figure = section.missing, None if section.missing else section.draw()
    except Exception as error:  # whatever a plot stumbles over, the others are shown
        missing, figure = f"Optuna could not, {' '.join(str(error).split()) or type(error).__name__}", None
    if figure is None or not figure.data:
        return section.heading, f"Not drawn: {missing or 'the trials hold nothing to be seen in it.'}", ""
    figure.update_layout(title=None, margin={"t": 30}, template="plotly_white", width=None)
    options = {"include_plotlyjs": False, "full_html": False, "config": {"displaylogo": False}}
    return section.heading, section.sentence, io.to_html(figure, div_id=f"plot-{index}", **options)


@contextmanager
def _quiet() -> Iterator[None]:
    """Optuna's log and warnings are off."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        optuna.logging.set_verbosity(before)
