"""Figures with more panels than a page can hold."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nfa.figures.alignment_relations import alignment_relations
from nfa.figures.relation_grid import Draw, Group, relation_grid
from nfa.figures.relation_maps import relation_maps
from nfa.figures.training_analysis import Series, training_analysis
from nfa.relations import RELATIONS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_PANELS = 12  # of curves on a page
MOST_MAPS = 6  # on a page
MOST_ROWS = 4  # of a grid on a page


def in_pages(relations: Sequence[str], most: int) -> list[list[str]]:
    """Return relations in pages of at most `most`; those of a kind begin a new page where they do not fit together.

    >>> in_pages(["agop_nfm", "g_vs_h", "g_vs_h_overlap", "h_vs_m_overlap"], most=3)
    [['agop_nfm', 'g_vs_h'], ['g_vs_h_overlap', 'h_vs_m_overlap']]
    """
    kinds: dict[str, list[str]] = {}
    for name in relations:
        kinds.setdefault(RELATIONS[name].kind, []).append(name)
    pages: list[list[str]] = [[]]
    for of_kind in kinds.values():
        for start in range(0, len(of_kind), most):
            part = of_kind[start : start + most]
            if len(pages[-1]) + len(part) > most:
                pages.append([])
            pages[-1] += part
    return pages


def alignment_pages(
    series: Mapping[str, Series], sites: Sequence[str], relations: Sequence[str], *, title: str, **look: Any
) -> "list[Figure]":
    """Draw every relation of a run, as curves, or as heat maps if there are more sites than panels on a page."""
    many = len(sites) > MOST_PANELS
    logged = [name for name in relations if any(series.get(f"{site}/{name}") for site in sites)]
    pages = in_pages(logged or relations, MOST_MAPS if many else MOST_PANELS)
    absent = [name for name in relations if logged and name not in logged]
    pages[-1] += absent  # the last page says that they are undefined
    draw = relation_maps if many else alignment_relations
    return [
        draw(series, sites, page, title=f"{title}{of_pages(number, pages)}", **look)
        for number, page in enumerate(pages, 1)
    ]


def grid_pages(
    groups: Mapping[str, Group],
    sites: Sequence[str],
    relations: Sequence[str],
    draw: Draw,
    *,
    title: str,
    **look: Any,
) -> "list[Figure]":
    """Draw relations × sites of several runs or groups, as many rows on a page as there is room for."""
    drawn = [name for name in relations if any(of.get(f"{site}/{name}") for of in groups.values() for site in sites)]
    pages = in_pages(drawn or relations, max(1, min(MOST_ROWS, MOST_PANELS // max(1, len(sites)))))
    return [
        relation_grid(groups, sites, page, draw, title=f"{title}{of_pages(number, pages)}", **look)
        for number, page in enumerate(pages, 1)
    ]


def of_pages(number: int, pages: Sequence[Any]) -> str:
    """Return which page it is, for its title; empty if there is only one."""
    return f"; page {number} of {len(pages)}" if len(pages) > 1 else ""


def analysis_page(
    series: Mapping[str, Series], sites: Sequence[str], similarities: Sequence[str], *, band: str = "", **look: Any
) -> "Figure":
    """Draw losses and similarities: a panel for each site, or heat maps if there are more sites than panels."""
    if len(sites) > MOST_PANELS:
        return relation_maps(series, sites, similarities, **look)
    return training_analysis(series, sites, similarities, band=band, **look)
