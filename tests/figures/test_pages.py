"""More sites than panels are heat maps, and more relations than fit on a page are pages; nothing is left out."""

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure

from nfa.figures.pages import MOST_MAPS, MOST_PANELS, alignment_pages, analysis_page, grid_pages
from nfa.figures.relation_grid import draw_run
from nfa.figures.relation_maps import relation_maps
from nfa.registry.training import report
from nfa.relations import RELATIONS
from tests.figures.test_alignment_figures import EPOCHS, Series, series, shown
from tests.figures.test_notes import words

SIXTY = [f"encoder.layers.{block}.{name}" for block in range(10) for name in ("q", "k", "v", "out", "up", "down")]
SIX = ("agop_nfm", "g_vs_h", "g_vs_m", "h_vs_m")


def maps(figure: Figure) -> dict[str, Axes]:
    return {axes.get_title(): axes for axes in figure.axes if axes.get_title()}


def mesh(axes: Axes) -> QuadMesh:
    (found,) = [one for one in axes.collections if isinstance(one, QuadMesh)]
    return found


@pytest.mark.parametrize("count", [1, 5, 12])
def test_up_to_twelve_sites_are_curves(count: int) -> None:
    sites = SIXTY[:count]
    figure = analysis_page(series(sites, SIX), sites, SIX, title="a run", loss="cross-entropy")
    assert len([axes for axes in shown(figure) if axes.get_title()]) == count
    (page,) = alignment_pages(series(sites, SIX), sites, SIX, title="a run")
    assert len(shown(page)) == 4
    assert page.get_suptitle() == "a run"


def test_more_sites_are_a_map_of_each_relation_with_every_site_and_step_and_the_losses_above() -> None:
    values = series(SIXTY, SIX)
    values[f"{SIXTY[3]}/g_vs_h"] = {0: 0.25}
    figure = analysis_page(values, SIXTY, SIX, title="a run", loss="cross-entropy", unit="optimizer step")
    assert list(maps(figure)) == [RELATIONS[name].label for name in SIX]
    drawn = mesh(maps(figure)["G vs H"])
    found = np.ma.filled(drawn.get_array().astype(float).reshape(60, len(EPOCHS)), -1)  # type: ignore[union-attr]
    assert found[3].tolist() == [0.25, -1, -1, -1]
    assert (found[[*range(3), *range(4, 60)]] == 0.5).all()
    assert drawn.get_clim() == (0, 1)
    first = maps(figure)["AGOP vs NFM"]
    assert len(first.get_yticklabels()) == 60
    assert first.get_ylim() == (60, 0)  # the first site is at the top
    losses = next(axes for axes in figure.axes if axes.get_ylabel().startswith("cross-entropy"))
    assert {line.get_label() for line in losses.get_lines()} == {"train loss", "validation loss"}
    assert "grey: undefined" in words(figure)
    assert "at some steps of some sites" in words(figure)


def test_a_dot_marks_what_is_not_above_chance() -> None:
    values = series(SIXTY, ["h_vs_m"])
    values |= {f"{site}/h_vs_m_chance": dict.fromkeys(EPOCHS, 0.1) for site in SIXTY}
    values[f"{SIXTY[7]}/h_vs_m_chance"][4] = 0.6
    (axes,) = maps(relation_maps(values, SIXTY, ["h_vs_m"])).values()
    dots = [one.get_offsets() for one in axes.collections if not isinstance(one, QuadMesh)]
    assert [np.asarray(of).tolist() for of in dots] == [[[3.5, 7.5]]] * 2
    assert "not above chance" in words(relation_maps(values, SIXTY, ["h_vs_m"]))


def test_colours_of_a_map_span_what_a_relation_can_be() -> None:
    values = series(SIXTY, ["fact_nfm", "h_stable_rank", "agop_nfm_exponent"], 3.0)
    found = {name: mesh(axes).get_clim() for name, axes in maps(relation_maps(values, SIXTY, list(RELATIONS))).items()}
    assert found["FACT vs NFM"] == (-1, 1)
    assert found["stable rank of H"] == (1, 3)


@pytest.mark.parametrize(("sites", "most"), [(SIXTY[:4], MOST_PANELS), (SIXTY, MOST_MAPS)])
def test_many_relations_are_pages_which_hold_each_of_them_once(sites: list[str], most: int) -> None:
    pages = alignment_pages(series(sites, list(RELATIONS)), sites, list(RELATIONS), title="a run")
    titles = [axes.get_title().replace("\n", " ") for page in pages for axes in page.axes if axes.get_title()]
    assert titles == [one.label for one in RELATIONS.values()]
    assert max(len([axes for axes in page.axes if axes.get_title()]) for page in pages) <= most
    assert pages[1].get_suptitle() == f"a run; page 2 of {len(pages)}"


def test_relations_that_are_undefined_everywhere_are_named_on_the_last_page() -> None:
    (page,) = alignment_pages(series(SIXTY[:2], SIX), SIXTY[:2], [*SIX, "fact_nfm"], title="a run")
    assert "No value, undefined or not measured: FACT vs NFM" in words(page)


@pytest.mark.parametrize("sites", [1, 3, 4, 6])
def test_a_comparison_has_at_most_twelve_panels_on_a_page(sites: int) -> None:
    names, relations = SIXTY[:sites], [name for name, one in RELATIONS.items() if one.kind == "cosine"]
    runs: dict[str, Series] = {name: series(names, relations) for name in ("sgd", "adam")}
    pages = grid_pages(runs, names, relations, draw_run, title="two")
    assert max(len(shown(page)) for page in pages) <= 12
    assert sum(len(shown(page)) for page in pages) == sites * len(relations)


def test_a_training_of_many_sites_is_a_map_and_its_comparison_has_at_most_twelve_panels() -> None:
    layers = [f"layer_{index}" for index in range(60)]
    values = series(layers, ["agop_nfm"])
    figure = report.training_figure(values, layers, "a run", loss="mean squared error")
    assert list(maps(figure)) == ["AGOP vs NFM"]
    compared = report.comparison_figure({"sgd": values, "adam": values}, layers, "two")
    assert len(shown(compared)) == 12
    assert "11 of 60 sites" in words(compared)


@pytest.mark.parametrize("steps", [1, 50])
def test_maps_of_one_or_many_checkpoints_have_titles_and_words_inside(steps: int) -> None:
    values: Series = {f"{site}/{name}": dict.fromkeys(range(steps), 0.5) for site in SIXTY for name in SIX}
    figure = analysis_page(values, SIXTY, SIX, title="a long title of a run " * 8, loss="cross-entropy")
    figure.draw_without_rendering()
    for text in (*figure.texts, figure._suptitle):  # type: ignore[attr-defined]
        box = text.get_window_extent()
        assert figure.bbox.padded(1).contains(box.x0, box.y0)
        assert figure.bbox.padded(1).contains(box.x1, box.y1)
    assert all(len(axes.get_xticks()) <= 5 for axes in maps(figure).values())
