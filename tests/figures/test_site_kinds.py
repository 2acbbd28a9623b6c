"""Sites of many blocks: means over the blocks by kind, with the lowest and the highest, and nothing made up."""

import pytest

from nfa.figures.site_kinds import shown
from nfa.figures.training_analysis import training_analysis

KINDS = ("self_attn.q_proj", "mlp.up_proj")
SITES = [f"model.layers.{block}.{name}" for block in range(30) for name in KINDS]
SERIES = {f"{site}/g_vs_h": {0: place / 100, 5: 0.5} for place, site in enumerate(SITES)}


def test_what_fits_on_a_page_is_drawn_as_it_is() -> None:
    assert shown(SERIES, SITES, ["g_vs_h"], 60) == (SERIES, SITES, "")


def test_more_is_drawn_as_means_over_the_blocks() -> None:
    found = shown(SERIES, SITES, ["g_vs_h"], 24)
    assert found.sites == ["model.layers.*.self_attn.q_proj", "model.layers.*.mlp.up_proj"]
    assert found.said == "means over the blocks of 60 sites"
    key = f"{found.sites[1]}/g_vs_h"
    assert found.series[key] == {0: pytest.approx(0.3), 5: pytest.approx(0.5)}
    assert found.series[f"{key}_lo"] == {0: 0.01, 5: 0.5}
    assert found.series[f"{key}_hi"] == {0: 0.59, 5: 0.5}


def test_a_value_that_a_block_lacks_is_left_out_of_its_mean() -> None:
    lacking = {key: of_key for key, of_key in SERIES.items() if not key.startswith("model.layers.0.")}
    lacking["model.layers.0.mlp.up_proj/g_vs_h"] = {5: 0.5}
    found = shown(lacking, SITES, ["g_vs_h"], 24)
    assert found.series["model.layers.*.mlp.up_proj/g_vs_h"][0] == pytest.approx(sum(range(3, 60, 2)) / 29 / 100)
    missing = shown({}, SITES, ["g_vs_h"], 24)
    assert missing.series["model.layers.*.mlp.up_proj/g_vs_h"] == {}


def test_levels_are_means_over_the_blocks_that_have_a_value_where_all_of_these_have_one() -> None:
    levels = {f"{site}/g_vs_h_chance": {0: place / 100, 5: 0.25} for place, site in enumerate(SITES)}
    del levels["model.layers.3.mlp.up_proj/g_vs_h_chance"][5]
    found = shown({**SERIES, **levels}, SITES, ["g_vs_h"], 24).series
    assert found["model.layers.*.self_attn.q_proj/g_vs_h_chance"] == {0: pytest.approx(0.29), 5: pytest.approx(0.25)}
    assert found["model.layers.*.mlp.up_proj/g_vs_h_chance"] == {0: pytest.approx(0.3)}
    assert "model.layers.*.mlp.up_proj/g_vs_h_shared" not in found


def test_without_blocks_some_sites_are_drawn() -> None:
    layers = [f"layer_{index}" for index in range(41)]
    found = shown({}, layers, ["g_vs_h"], 21)
    assert found.sites == layers[::2]
    assert found.said == "21 of 41 sites"


def test_a_page_has_a_panel_for_each_kind_and_says_what_the_band_is() -> None:
    found = shown(SERIES, SITES, ["g_vs_h"], 24)
    figure = training_analysis(found.series, found.sites, ["g_vs_h"], unit="optimizer step", band="all blocks")
    titled = [axes for axes in figure.axes if axes.get_title()]
    assert [axes.get_title() for axes in titled] == ["q_proj, all blocks", "up_proj, all blocks"]
    assert {axes.get_xlabel() for axes in titled} == {"optimizer step"}
    labels = {label for axes in figure.axes for label in axes.get_legend_handles_labels()[1]}
    assert "all blocks" in labels
