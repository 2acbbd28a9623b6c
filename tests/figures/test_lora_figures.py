"""Figures of low-rank updates show the numbers that they were given, for few modules and for many."""

import warnings
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from nfa.registry import tracking
from nfa.registry.families.language.comparison import compare_lora
from nfa.registry.families.language.comparison.study import FineTuning, StartArm
from nfa.registry.families.language.figures.comparison import Curves, comparison
from nfa.registry.families.language.figures.fine_tuning import loss_curves
from nfa.registry.families.language.figures.spectra import kinds, svd_analysis, synthesis_plots

ENDS = ("q_proj", "k_proj", "up_proj")


def names(layers: int) -> list[str]:
    return [f"model.layers.{layer}.{end}" for layer in range(layers) for end in ENDS]


def spectrum(length: int, scale: float = 1.0) -> list[float]:
    return list(scale * np.exp(-0.1 * np.arange(length)))


def drawn(figure: Figure) -> Figure:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure.draw_without_rendering()
    return figure


@pytest.mark.parametrize("layers", [1, 2, 30])
def test_synthesis_has_a_panel_for_each_kind_of_module_with_its_mean_in_bold(layers: int) -> None:
    spectra = {name: (spectrum(4, 1 + j), spectrum(8, 1 + j)) for j, name in enumerate(names(layers))}
    figure = drawn(synthesis_plots(spectra, dict.fromkeys(spectra, 0.1), kept=4, title="t"))
    shown = [axes for axes in figure.axes if axes.axison]
    assert [axes.get_title().partition(",")[0] for axes in shown] == list(ENDS)
    for index, axes in enumerate(shown):
        bold = [line for line in axes.get_lines() if line.get_label() in ("adapter", "teacher: kept and added")]
        scale = np.exp(np.mean(np.log([1 + j for j in range(index, 3 * layers, 3)])))
        for line, length in zip(bold, (8, 4), strict=True):
            np.testing.assert_allclose(line.get_ydata(), spectrum(length, scale))
        assert len(axes.get_lines()) == 4 + (2 * layers if layers > 1 else 0)


def test_zero_spectra_are_not_drawn() -> None:
    spectra = {name: (spectrum(4), spectrum(8)) for name in names(2)} | {"model.layers.2.q_proj": ([0.0], [0.0] * 8)}
    figure = drawn(synthesis_plots(spectra, {**dict.fromkeys(spectra, 0.1), "model.layers.2.q_proj": 0.0}, kept=4))
    for axes in figure.axes:
        assert all(np.isfinite(line.get_ydata()).all() for line in axes.get_lines())


def test_without_noise_there_is_no_line_of_it() -> None:
    figure = drawn(synthesis_plots({"a": (spectrum(2), spectrum(4))}, {"a": 0.0}, kept=2))
    assert not [line for line in figure.axes[0].get_lines() if "noise" in str(line.get_label())]


@pytest.mark.parametrize("layers", [1, 30])
def test_analysis_has_four_panels(layers: int) -> None:
    rng = np.random.default_rng(0)
    energies = dict(zip(names(layers), rng.uniform(0.5, 0.9, 3 * layers), strict=True))
    values = {name: ((1 - energy) ** 0.5, energy) for name, energy in energies.items()}
    spectra = [spectrum(32, 1 + j) for j in range(3 * layers)]
    figure = drawn(svd_analysis(values, spectra, rank=16, title="t"))
    errors, energy, middle, both = figure.axes
    for axes in (errors, energy):
        assert sum(patch.get_height() for patch in axes.patches) == 3 * layers
    line, mark = middle.get_lines()
    np.testing.assert_allclose(
        line.get_ydata(), spectrum(32, float(np.exp(np.mean(np.log(np.arange(1, 3 * layers + 1))))))
    )
    assert list(mark.get_xdata()) == [16.5, 16.5]
    assert middle.get_yscale() == "log"
    points = np.concatenate([np.asarray(collection.get_offsets()) for collection in both.collections])
    np.testing.assert_allclose(sorted(map(tuple, points)), sorted((e, error) for error, e in values.values()))


def test_exact_factors_do_not_magnify_rounding() -> None:
    values = {name: (1e-8 * j, 1 - 1e-15 * j) for j, name in enumerate(names(4))}
    figure = drawn(svd_analysis(values, [spectrum(16)] * 12, rank=16))
    for axes in (figure.axes[0], figure.axes[1], figure.axes[3]):
        low, high = axes.get_xlim()
        assert high - low > 0.01


def test_kinds_of_paths_that_end_alike_keep_their_paths() -> None:
    found = kinds(["enc.0.self.query", "enc.1.self.query", "enc.0.cross.query", "head.3"])
    assert found == {
        "enc.*.self.query": ["enc.0.self.query", "enc.1.self.query"],
        "enc.*.cross.query": ["enc.0.cross.query"],
        "head.*": ["head.3"],
    }


def test_a_comparison_draws_each_seed_at_what_it_has_spent_itself() -> None:
    """Of losses 4 − 2x and 4 − x until x = 1 and x = 2 the mean is 4 − 1.5x, up to x = 1 where both have been."""
    by_operations = [{0.0: 4.0, 1e12: 2.0}, {0.0: 4.0, 2e12: 2.0}]
    arm = Curves("random", [{0: 4.0, 10: 2.0}] * 2, by_operations)
    figure = drawn(comparison([arm, Curves("of unknown cost", [{0: 4.0, 10: 3.0}], [])], {}, {}))
    (line,) = figure.axes[1].get_lines()
    np.testing.assert_allclose(line.get_xydata(), [[0, 4], [1, 2.5]])
    (band,) = figure.axes[1].collections
    reach = band.get_paths()[0].vertices[:, 1]
    np.testing.assert_allclose([reach.min(), reach.max()], [2, 4])
    assert len(figure.axes[0].get_lines()) == 2


def words_below(figure: Figure) -> str:
    return " ".join(" ".join(text.get_text() for text in figure.texts).split())


def test_a_comparison_names_its_starts_beside_their_differences_and_says_what_bands_are() -> None:
    arms = [Curves(label, [{0: 4.0, 10: 2.0}], [{0.0: 4.0, 3e9: 2.0}]) for label in ("random", "svd residual")]
    figure = drawn(comparison(arms, {"svd residual": (0.1, 0.0, 0.2)}, {}, title="t"))
    assert [tick.get_text() for tick in figure.axes[2].get_yticklabels()] == ["svd residual"]
    assert figure.axes[1].get_xlabel() == "$10^{9}$ floating-point operations"
    assert figure.axes[2].get_title().endswith("95 % intervals over seeds and held-out questions")
    assert "bands: from the lowest to the highest seed" in words_below(figure)
    assert "LoRA: low-rank adaptation" in words_below(figure)


def test_the_title_of_a_comparison_has_the_model_and_the_data_and_what_else_all_have_in_common(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def stored(run_id: str) -> dict[str, Any]:
        train = {"init": run_id[0], "rank": 4, "seed": int(run_id[1]), "lr": 0.005}
        return {"train": train, "base": {"name": "folder/tiny"}, "data": {"name": "arithmetic"}}

    monkeypatch.setattr(tracking, "config", stored)
    losses = {0: 4.0, 3: 2.0}
    arms = [
        StartArm(init, init, "", {seed: FineTuning(f"{init}{seed}", seed, losses, {}, {}, None) for seed in (1, 2)})
        for init in "ab"
    ]
    found = {"arms": [{"by_seed": {1: 0, 2: 0}}] * 2, "comparisons": []}
    words = " ".join(compare_lora._figure(arms, found).get_suptitle().split())
    assert words == "tiny on arithmetic, LoRA of rank 4, lr 0.005: LoRA from different starts, 2 seeds"


def test_a_comparison_without_differences_or_operations_says_why() -> None:
    figure = drawn(comparison([Curves("random", [{0: 4.0, 10: 2.0}], [])], {}, {}))
    said = [" ".join(" ".join(text.get_text() for text in axes.texts).split()) for axes in figure.axes]
    assert said[1].startswith("the operations are not known")
    assert said[2].startswith("an interval needs at least two seeds")


def test_spectra_of_all_modules_have_one_scale_and_at_most_12_panels() -> None:
    spectra = {f"layers.{end}": (spectrum(4, 10.0**j), spectrum(8, 10.0**j)) for j, end in enumerate("abc")}
    figure = drawn(synthesis_plots(spectra, dict.fromkeys(spectra, 0.1), kept=4))
    assert len({axes.get_ylim() for axes in figure.axes if axes.axison}) == 1
    many = {f"layers.kind{'abcdefghijklm'[j]}": (spectrum(4), spectrum(8)) for j in range(13)}
    assert len(synthesis_plots(many, dict.fromkeys(many, 0.1), kept=4).axes) == 1


def test_loss_curves_say_that_no_gradient_norm_was_logged_and_end_at_zero() -> None:
    series = {"eval/loss": {0: 2.0, 5: 1.0}, "eval/loss_lo": {0: 1.0, 5: -1.0}, "eval/loss_hi": {0: 3.0, 5: 3.0}}
    figure = drawn(loss_curves(series))
    bottom = min(path.vertices[:, 1].min() for part in figure.axes[0].collections for path in part.get_paths())
    assert bottom == 0
    assert "no gradient norm" in " ".join(text.get_text() for text in figure.axes[1].texts)
