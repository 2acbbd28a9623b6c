"""Reports and figures of alignment analyses, made only from what their runs have logged."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nfa.analyses.csv_files import ALIGNMENT, alignment_csv, alignment_rows
from nfa.bookkeeping import is_bookkeeping
from nfa.checkpoint_schedule import phase_boundary
from nfa.console import stage
from nfa.figures.pages import alignment_pages, analysis_page, grid_pages
from nfa.figures.relation_grid import draw_run
from nfa.figures.site_kinds import alignment_title, shown
from nfa.figures.style import axis_label
from nfa.figures.training_analysis import Series
from nfa.levels import SUFFIXES, at_step, is_beside
from nfa.plain_text import csv_text
from nfa.registry import tracking
from nfa.registry.analyses.checkpoint_units import common_unit, unit_of
from nfa.registry.analyses.titles import loss_of
from nfa.registry.tracking import TrackedRun
from nfa.registry.tracking.sources import DONE
from nfa.relations import RELATIONS
from nfa.studies.verdicts import verdict

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SIX_CURVES = ("agop_nfm", "g_vs_h", "g_vs_m", "h_vs_m")  # drawn together with the two losses
MOST_COLUMNS = 6
SHORT = {"g_vs_h": "G_H", "g_vs_m": "G_M", "h_vs_m": "H_M"}  # names of these relations in similarities.json


def report(run: TrackedRun, title: str) -> None:
    """Write the tables and figures of one source run, from the analysis' own series and config.json."""
    series, content = tracking.history(run.run_id), tracking.get_json(run.run_id, "config.json")
    sites, relations, unit = content["sites"], content["relations"], unit_of(content)
    tracking.put_json(run.info, "similarities.json", similarities(series, sites, relations))
    tracking.put_text(run.info, "similarities.csv", alignment_csv(series, sites, relations, unit, DONE))
    title = alignment_title(title, content["conventions"])
    look: dict[str, Any] = {"title": title, "unit": axis_label(unit), "boundary": phase_boundary(sorted(series[DONE]))}
    if not set(relations).isdisjoint(SIX_CURVES):
        figure = analysis_page(series, sites, SIX_CURVES, loss=loss_of(content["sources"][0]), **look)
        save_pages(run, [figure], "enhanced_analysis")
    if not set(relations) <= set(SIX_CURVES):
        save_pages(run, alignment_pages(series, sites, relations, **look), "all_relations")
    say_verdicts([series], sites, relations, unit)


def say_verdicts(
    runs: Sequence[Mapping[str, Series]], sites: Sequence[str], relations: Sequence[str], unit: str, label: str = ""
) -> None:
    """Print for each relation at how many sites it is above chance, at the last checkpoint that all runs have."""
    steps = set.intersection(*(set(series[DONE]) for series in runs))
    for step in sorted(steps)[-1:]:
        values = [at_step(series, step) for series in runs]
        for name in relations:
            if said := verdict(values, sites, name):
                stage("verdict", f"{name} at {unit} {step}{label}: {said}")


def compare(run: TrackedRun, parts: Mapping[str, str], subject: str) -> None:
    """Compare several analyses in one table and one figure; `parts` maps run names to analysis run ids.

    `subject` is what the analysed runs trained on what, for the title of the figure.
    """
    series = dict(zip(parts, tracking.histories(parts.values()).values(), strict=True))
    contents = [tracking.get_json(run_id, "config.json") for run_id in parts.values()]
    sites = [site for site in contents[0]["sites"] if all(site in content["sites"] for content in contents)]
    relations = [name for name in RELATIONS if any(name in content["relations"] for content in contents)]
    unit = common_unit(map(unit_of, contents))
    rows = ((name, *row) for name, of in series.items() for row in alignment_rows(of, sites, relations, DONE))
    tracking.put_text(run.info, "comparison.csv", csv_text(("run", unit, *ALIGNMENT), rows))
    boundary = phase_boundary(sorted(set().union(*(of_run[DONE] for of_run in series.values()))))
    drawn = {name: shown(of_run, sites, relations, MOST_COLUMNS) for name, of_run in series.items()}
    curves, one = {name: of_run.series for name, of_run in drawn.items()}, next(iter(drawn.values()))
    title = subject + (f"; {one.said}" if one.said else "")
    look: dict[str, Any] = {"title": title, "boundary": boundary, "unit": axis_label(unit)}
    save_pages(run, grid_pages(curves, one.sites, relations, draw_run, **look), "run_comparison")


def save_pages(run: TrackedRun, pages: Sequence["Figure"], name: str) -> None:
    """Store a figure of one page or several, whose names from the second on end with the page's number."""
    for number, page in enumerate(pages, 1):
        tracking.save_picture(run, page, name if number == 1 else f"{name}_{number}")
    more = f", {name}_2 to {name}_{len(pages)}" if len(pages) > 2 else f", {name}_2" if len(pages) == 2 else ""
    stage("figure", f"plots/{name}.png and .pdf{more}")


def similarities(
    series: Mapping[str, Series], sites: Sequence[str], relations: Sequence[str]
) -> dict[str, dict[str, dict[str, float | None]]]:
    """Content of `similarities.json`: epoch → layer → relation, where an undefined value is null.

    Errors and levels stand beside their values, under the suffixes of their keys, where they exist.
    """

    def values(site: str, epoch: int) -> dict[str, float | None]:
        found = {SHORT.get(name, name): series.get(f"{site}/{name}", {}).get(epoch) for name in relations}
        keys = [f"{name}{end}" for end in SUFFIXES for name in relations]
        beside = {key: series.get(f"{site}/{key}", {}).get(epoch) for key in keys}
        return {**found, **{key: value for key, value in beside.items() if value is not None}}

    return {
        str(epoch): {site.removeprefix("layer_"): values(site, epoch) for site in sites}
        for epoch in sorted(series[DONE])
    }


def line(values: Mapping[str, float]) -> str:
    """Return the console line of a checkpoint: the first relation of each site."""
    measured = [key for key in values if not is_bookkeeping(key) and not is_beside(key)]
    names = list(dict.fromkeys(key.rpartition("/")[2] for key in measured))
    if not names:
        return "no value is defined"
    shown = [f"{value:.3f}" for key, value in values.items() if key.rpartition("/")[2] == names[0]]
    return f"{names[0]} {' '.join(shown[:8])}{' …' if len(shown) > 8 else ''}  {values[DONE]:.1f} s"
