"""Figures of the series of several runs: a line for each run, or one for the runs that differ only in their seed."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from nfa.figures.pages import MOST_PANELS
from nfa.figures.series_by_key import series_by_key
from nfa.figures.site_kinds import shown, some
from nfa.figures.training_analysis import Series
from nfa.levels import OVER_SEEDS
from nfa.maths.statistics import Interval
from nfa.plain_text import shared
from nfa.registry.analyses.seed_groups import together
from nfa.registry.results.run_series import RunSeries
from nfa.registry.training.over_seeds import BAND, FEWEST
from nfa.relations import RELATIONS

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def drawn(runs: Sequence[RunSeries], keys: Sequence[str], title: str, unit: str) -> "Figure":
    """Draw the series of these keys; see `RunTable.plot`."""
    series, keys, said = _few(runs, keys)
    groups = _groups(runs)
    lines = {label: _mean([series[run.run] for run in members]) for label, members in groups.items()}
    if any(len(members) > 1 for members in groups.values()):
        enough = any(len(members) >= FEWEST for members in groups.values())
        said = [f"means, bands: {BAND}" if enough else "means over seeds", *said]
    words = "; ".join(filter(None, [title or shared([run.name for run in runs]), *said]))
    losses = sorted({run.loss for run in runs if run.loss})
    return series_by_key(lines, keys, title=words, unit=unit, loss=" or ".join(losses))


def _few(
    runs: Sequence[RunSeries], keys: Sequence[str]
) -> tuple[dict[str, Mapping[str, Series]], list[str], list[str]]:
    """Return the series by run, at most `MOST_PANELS` keys of them, and how these were made from all keys."""
    series = {run.run: run.series for run in runs}
    if len(keys) <= MOST_PANELS:
        return series, list(keys), []
    relations = {key.rpartition("/")[2] for key in keys}
    if len(relations) > 1 or not relations <= RELATIONS.keys():
        return series, some(keys, MOST_PANELS), [f"{MOST_PANELS} of {len(keys)} series"]
    (relation,), sites = relations, [key.rpartition("/")[0] for key in keys]
    found = {run.run: shown(run.series, sites, [relation], MOST_PANELS) for run in runs}
    one = found[runs[0].run]
    return {run: of.series for run, of in found.items()}, [f"{site}/{relation}" for site in one.sites], [one.said]


def _groups(runs: Sequence[RunSeries]) -> dict[str, list[RunSeries]]:
    """Return the runs of each variant by what they are called in the legend."""
    variants: dict[str, list[RunSeries]] = {}
    for run in runs:
        variants.setdefault(run.variant, []).append(run)
    return {_called(variant, members): members for variant, members in variants.items()}


def _called(variant: str, members: Sequence[RunSeries]) -> str:
    if len(members) == 1:
        return variant or members[0].name
    counted_seeds = f"{len(members)} seeds"
    return f"{variant}, {counted_seeds}" if variant else f"mean of {counted_seeds}"


def _mean(runs: Sequence[Mapping[str, Series]]) -> dict[str, Series]:
    """Return the means over runs by key, and from `FEWEST` runs on the ends of their intervals, in place of the lowest
    and highest blocks.
    """
    plain = [{key: of for key, of in run.items() if not key.endswith(OVER_SEEDS)} for run in runs]
    if len(plain) == 1:
        return dict(plain[0])
    found: dict[str, Series] = {}
    for key, of_key in together(plain).items():
        ends = zip(("", *OVER_SEEDS) if len(plain) >= FEWEST else ("",), Interval._fields, strict=False)
        found |= {f"{key}{end}": {step: getattr(of, name) for step, of in of_key.items()} for end, name in ends}
    return found
