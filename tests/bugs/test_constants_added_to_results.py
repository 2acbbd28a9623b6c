"""EEG fault 10: a plotting script added constants to the results of ablations."""

import pytest

from nfa.registry.families.eeg.figures.decoding import decoding


def test_the_figure_shows_the_values_that_it_is_given():
    series = {
        "train/loss": {0: 2.0, 2: 1.5},
        "val/loss": {0: 2.1, 2: 1.7},
        "val/pearson": {0: -0.05, 2: 0.2},
        "val/baseline_pearson": {2: 0.125},
    }
    pairs = {"a": (0.1, 0.05), "b": (0.3, 0.15)}
    losses, correlation, of_recordings = decoding(series, pairs, best=2).axes
    drawn = [sorted(line.get_ydata().tolist(), reverse=True) for line in losses.lines]
    assert sorted(drawn) == [[2.0, 1.5], [2.1, 1.7]]
    model, baseline, chosen = correlation.lines
    assert (list(model.get_xdata()), list(model.get_ydata())) == ([0, 2], [-0.05, 0.2])
    assert set(baseline.get_ydata()) == {0.125}
    assert set(chosen.get_xdata()) == {2}
    shown = of_recordings.lines[-1]
    assert list(zip(shown.get_xdata(), shown.get_ydata(), strict=True)) == [
        pytest.approx(pair) for pair in pairs.values()
    ]
