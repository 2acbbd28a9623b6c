"""Reports and figures of analyses, made from nothing but what their runs have logged."""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from nfa.checkpoint_schedule import phase_boundary
from nfa.console import stage
from nfa.figures.alignment_relations import alignment_relations
from nfa.figures.run_comparison import run_comparison
from nfa.figures.style import axis_label
from nfa.figures.training_analysis import Series, training_analysis
from nfa.registry import tracking
from nfa.registry.analyses.site_kinds import Shown, shown
from nfa.registry.analyses.units import common_unit, unit_of
from nfa.registry.tracking import TrackedRun
from nfa.registry.tracking.sources import DONE
from nfa.relations import RELATIONS

LOSSES = ("train/loss", "val/loss", "eval/loss", "probe/loss")
SIX_CURVES = ("agop_nfm", "g_vs_h", "g_vs_m", "h_vs_m")  # with the two losses
MOST_PANELS, MOST_COLUMNS = 24, 8
BAND = "lowest to highest block"
SHORT = {"g_vs_h": "G_H", "g_vs_m": "G_M", "h_vs_m": "H_M"}  # their names in similarities.json
HEADER = ("site", "relation", "value", "standard_error")


def report(run: TrackedRun, title: str) -> None:
    """Tables and figures of one source run, from the analysis' own series and config.json."""
    series, content = tracking.history(run.run_id), tracking.get_json(run.run_id, "config.json")
    sites, relations, unit = content["sites"], content["relations"], unit_of(content)
    tracking.put_json(run.info, "similarities.json", similarities(series, sites, relations))
    tracking.put_text(run.info, "similarities.csv", table(series, sites, relations, unit))
    drawn = shown(series, sites, relations, MOST_PANELS)
    look: dict[str, Any] = {"title": _titled(title, content, drawn), "unit": axis_label(unit)}
    look["boundary"] = phase_boundary(sorted(series[DONE]))
    figure = training_analysis(drawn.series, drawn.sites, SIX_CURVES, **look, band=BAND)
    tracking.save_picture(run, figure, "enhanced_analysis")
    stage("figure", "plots/enhanced_analysis.png and .pdf")
    if not set(relations) <= set(SIX_CURVES):
        figure = alignment_relations(drawn.series, drawn.sites, relations, **look)
        tracking.save_picture(run, figure, "all_relations")
        stage("figure", "plots/all_relations.png and .pdf")


def report_watched(run: Any, series: Mapping[str, Series], prefix: str) -> None:
    """Table and figure of a watched training, from the series of its run and alignment.json."""
    content = tracking.get_json(run.info.run_id, f"{prefix}alignment.json")
    sites, relations = content["sites"], content["relations"]
    tracking.put_text(run, f"{prefix}similarities.csv", table(series, sites, relations, "step"))
    drawn = shown(series, sites, relations, MOST_PANELS)
    title = _titled(run.info.run_name, content, drawn)
    figure = alignment_relations(drawn.series, drawn.sites, relations, title=title, unit="step")
    tracking.save_picture(run, figure, f"{prefix}all_relations")


def _titled(title: str, content: Mapping[str, Any], drawn: Shown) -> str:
    said = content["conventions"]
    directions = "" if said["directions"] == "all" else f", {said['directions'].partition(',')[0]} directions"
    left = f"; {drawn.said}" if drawn.said else ""
    return f"{title}: {said['examples']:,} examples, {said['precision']}{directions}{left}"


def compare(run: TrackedRun, parts: Mapping[str, str]) -> None:
    """What several analyses have in common, in one table and one figure; `parts` are analysis run ids by run name."""
    series = {name: tracking.history(run_id) for name, run_id in parts.items()}
    contents = [tracking.get_json(run_id, "config.json") for run_id in parts.values()]
    sites = [site for site in contents[0]["sites"] if all(site in content["sites"] for content in contents)]
    relations = [name for name in RELATIONS if any(name in content["relations"] for content in contents)]
    unit, text = common_unit(map(unit_of, contents)), io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("run", unit, *HEADER))
    for name, of_run in series.items():
        writer.writerows((name, *row) for row in rows(of_run, sites, relations))
    tracking.put_text(run.info, "comparison.csv", text.getvalue().rstrip("\n"))
    boundary = phase_boundary(sorted(set().union(*(of_run[DONE] for of_run in series.values()))))
    drawn = {name: shown(of_run, sites, relations, MOST_COLUMNS) for name, of_run in series.items()}
    curves, one = {name: of_run.series for name, of_run in drawn.items()}, next(iter(drawn.values()))
    figure = run_comparison(curves, one.sites, relations, title=one.said, boundary=boundary, unit=axis_label(unit))
    tracking.save_picture(run, figure, "run_comparison")
    stage("figure", "plots/run_comparison.png and .pdf")


def similarities(
    series: Mapping[str, Series], sites: Sequence[str], relations: Sequence[str]
) -> dict[str, dict[str, dict[str, float | None]]]:
    """Content of `similarities.json`: epoch → layer → relation; an undefined value is null."""

    def values(site: str, epoch: int) -> dict[str, float | None]:
        found = {SHORT.get(name, name): series.get(f"{site}/{name}", {}).get(epoch) for name in relations}
        errors = {f"{name}_se": series.get(f"{site}/{name}_se", {}).get(epoch) for name in relations}
        return {**found, **{name: error for name, error in errors.items() if error is not None}}

    return {
        str(epoch): {site.removeprefix("layer_"): values(site, epoch) for site in sites}
        for epoch in sorted(series[DONE])
    }


def table(series: Mapping[str, Series], sites: Sequence[str], relations: Sequence[str], unit: str = "epoch") -> str:
    """Content of `similarities.csv`: one row a value, losses included; undefined values have no row."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow((unit, *HEADER))
    writer.writerows(rows(series, sites, relations))
    return text.getvalue().rstrip("\n")


def rows(
    series: Mapping[str, Series], sites: Sequence[str], relations: Sequence[str]
) -> Iterator[tuple[int, str, str, float, float | str]]:
    """Rows of the tables, by epoch."""
    keys = [f"{site}/{name}" for site in sites for name in relations]
    for epoch in sorted(series.get(DONE) or set().union(*(series.get(key, {}) for key in (*LOSSES, *keys)))):
        for loss in LOSSES:
            if epoch in series.get(loss, {}):
                yield epoch, "", loss, series[loss][epoch], ""
        for site in sites:
            for name in relations:
                key = f"{site}/{name}"
                if epoch in series.get(key, {}):
                    yield epoch, site, name, series[key][epoch], series.get(f"{key}_se", {}).get(epoch, "")


def line(values: Mapping[str, float]) -> str:
    """One line for a person who waits: the first relation of each site."""
    names = list(dict.fromkeys(key.rpartition("/")[2] for key in values if key != DONE and not key.endswith("_se")))
    if not names:
        return "nothing is defined here"
    shown = [f"{value:.3f}" for key, value in values.items() if key.rpartition("/")[2] == names[0]]
    return f"{names[0]} {' '.join(shown[:8])}{' …' if len(shown) > 8 else ''}  {values[DONE]:.1f} s"
