"""Figures of decoding: one scale, nothing beyond what a correlation can be, and words for what is absent."""

import numpy as np
from matplotlib.figure import Figure

from nfa.registry.families.eeg.figures.decoding import Window, decoding, decoding_over_seeds, envelopes

LOSS = "mean squared error + 1 (1 − r)²"


def drawn(figure: Figure) -> Figure:
    figure.draw_without_rendering()
    return figure


def words(figure: Figure) -> str:
    texts = [text for axes in figure.axes for text in axes.texts] + figure.texts
    return " ".join(" ".join(text.get_text() for text in texts).split())


def test_all_windows_have_one_scale_in_words() -> None:
    time = np.linspace(0, 9, 64)
    shown = [Window(name, 0.5, scale * np.sin(time), np.cos(time)) for name, scale in (("best", 1.0), ("worst", 5.0))]
    figure = drawn(envelopes(shown, rate=64, title="Conformer v1 on simulated EEG: validation, epoch 3"))
    assert len({axes.get_ylim() for axes in figure.axes}) == 1
    assert "in standard deviations of the true one" in words(figure)
    assert "EEG: electroencephalogram" in words(figure)
    assert "no window has a defined r" in words(drawn(envelopes([], rate=64)))


def test_the_loss_is_named_and_recordings_without_r_are_explained() -> None:
    figure = drawn(decoding({"train/loss": {0: 2.0, 1: 1.5}}, {}, best=1, loss=LOSS))
    assert figure.axes[0].get_ylabel() == LOSS
    assert "no test recording has a defined r" in words(figure)


def test_correlations_end_at_one() -> None:
    figure = drawn(decoding({}, {"a": (0.99, 1.0), "b": (-1.0, 0.2)}, best=1, loss=LOSS))
    assert (figure.axes[2].get_xlim(), figure.axes[2].get_ylim()) == ((-1, 1), (-1, 1))
    series = {"val/pearson": {0: 0.9, 1: 0.9}, "val/pearson_lo": {0: -2.0, 1: 0.0}, "val/pearson_hi": {0: 2.0, 1: 1.5}}
    (band, *_) = drawn(decoding_over_seeds(series, loss=LOSS)).axes[1].collections
    reach = band.get_paths()[0].vertices[:, 1]
    assert (reach.min(), reach.max()) == (-1, 1)
