"""Series of gradient directions over epochs: of one run, of several runs, and the differences between two."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from nfa.bookkeeping import SECONDS
from nfa.figures.bands import chance_band, error_band
from nfa.figures.relation_grid import colours
from nfa.figures.style import add_legend, add_title, axis_label, epoch_axis, panels, style
from nfa.figures.training_analysis import Series, draw

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LABELS = {
    "gradient/mean_cosine": "mean cosine, all pairs",
    "gradient/within_class_cosine": "mean cosine within a class",
    "gradient/between_class_cosine": "mean cosine between classes",
    "gradient/silhouette": "silhouette of the classes",
    "gradient/correlation_with_previous": "correlation of C with the previous checkpoint",
    "gradient/effective_rank": "effective rank of K",
    "gradient/noise_scale": "noise scale tr Σ / |G|²",
    "gradient/mean_gradient_squared": "|G|²",
    "gradient/gradient_variance": "tr Σ",
    "gradient/label_noise_auc": "AUC for wrong labels, by low cosine",
    "gradient/label_noise_auc_of_loss": "AUC for wrong labels, by high loss",
    "gradient/zero_fraction": "share of gradients without a direction",
    "train/loss": "train loss",
    "val/loss": "validation loss",
    "eval/loss": "loss of held-out answers",
}
LOGARITHMIC = ("gradient/noise_scale", "gradient/mean_gradient_squared", "gradient/gradient_variance")
PHASES = {"early": (5, 15), "middle": (20, 40), "late": (45, 60)}
Intervals = Mapping[int, tuple[float, float, float]]  # epoch → difference, low, high


def gradient_series(
    runs: Mapping[str, Mapping[str, Series]],
    keys: Sequence[str] = tuple(LABELS),
    *,
    title: str = "",
    unit: str = "epoch",
) -> "Figure":
    """Draw a panel for each series that any run has: one line per run, with a band of two standard errors.

    A grey band shows the chance level ± 2 SD, from the lowest to the highest of all runs.
    """
    drawn = [key for key in keys if any(series.get(key) for series in runs.values())]
    figure, places = panels(max(1, len(drawn)), columns=min(4, max(1, len(drawn))), width=3.2, height=2.5)
    epochs = set().union(*(series.get(SECONDS, {}) for series in runs.values()))
    with style():
        for place, key in zip(places, drawn, strict=False):
            for (name, series), colour in zip(runs.items(), colours(len(runs)), strict=True):
                values = {epoch: value for epoch, value in series.get(key, {}).items() if epoch in epochs or not epochs}
                draw(place, values, label=name if len(runs) > 1 else None, color=colour, marker="o", markersize=3)
                error_band(place, {key: values, f"{key}_se": series.get(f"{key}_se", {})}, key, colour)
            chance_band(place, [(series, key, None) for series in runs.values()], None)
            place.set_title(LABELS[key])
            positive = all(value > 0 for series in runs.values() for value in series.get(key, {}).values())
            if key in LOGARITHMIC and positive:
                place.set_yscale("log")
            if key == "gradient/zero_fraction":
                place.set_ylim(bottom=0)
            epoch_axis(place, None, axis_label(unit))
            if len(epochs) > 1:
                margin = 0.05 * (max(epochs) - min(epochs))
                place.set_xlim(min(epochs) - margin, max(epochs) + margin)
        if len(runs) > 1 or any(series.get(f"{key}_chance") for series in runs.values() for key in drawn):
            add_legend(figure)
        add_title(figure, title)
    return figure


def noise_scale(series: Mapping[str, Series], *, title: str, unit: str = "epoch") -> "Figure":
    """Draw the gradient noise scale over epochs, with two standard errors; undefined values are not drawn."""
    return gradient_series({"": series}, ("gradient/noise_scale",), title=title, unit=unit)


def gradient_differences(differences: Mapping[str, Intervals], *, title: str, unit: str = "epoch") -> "Figure":
    """Draw the difference between two runs in each series, with its 95 % bootstrap interval."""
    drawn = [key for key in LABELS if differences.get(key)]
    figure, places = panels(max(1, len(drawn)), columns=min(4, max(1, len(drawn))), width=3.2, height=2.5)
    with style():
        for place, key in zip(places, drawn, strict=False):
            epochs = sorted(differences[key])
            middle, low, high = ([differences[key][epoch][part] for epoch in epochs] for part in range(3))
            place.plot(epochs, middle, marker="o", markersize=3)
            place.fill_between(epochs, low, high, color="C0", alpha=0.2, linewidth=0 if len(epochs) > 1 else 2)
            place.axhline(0, color="0.3", linewidth=0.8)
            place.set_title(LABELS[key])
            epoch_axis(place, None, axis_label(unit))
        add_title(figure, title)
    return figure
