"""Series of gradient directions over epochs: of one run, of several runs, and the differences between two."""

import textwrap
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nfa.bookkeeping import SECONDS
from nfa.figures.bands import ERRORS, chance_band, cut, error_band
from nfa.figures.notes import add_notes, say_empty
from nfa.figures.relation_grid import colours
from nfa.figures.style import DECADES, add_legend, add_title, axis_label, epoch_axis, panels, plain_numbers, style
from nfa.figures.training_analysis import Series, draw
from nfa.relations import Limits

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FOLLOWING = "gradient/correlation_with_previous"
NOISE, AUC, TRAIN = "gradient/noise_scale", "gradient/label_noise_auc", "train/loss"
COSINES = ("gradient/mean_cosine", "gradient/within_class_cosine", "gradient/between_class_cosine")
LABELS = {
    "gradient/mean_cosine": "mean cosine, all pairs",
    "gradient/within_class_cosine": "mean cosine within a class",
    "gradient/between_class_cosine": "mean cosine between classes",
    "gradient/silhouette": "silhouette of the classes",
    "gradient/correlation_with_previous": "correlation of C with the previous checkpoint",
    "gradient/effective_rank": "effective rank of K",
    NOISE: "noise scale tr Σ / |G|²",
    "gradient/mean_gradient_squared": "|G|²",
    "gradient/gradient_variance": "tr Σ",
    AUC: "AUC for wrong labels, by low cosine",
    "gradient/label_noise_auc_of_loss": "AUC for wrong labels, by high loss",
    "gradient/zero_fraction": "share of gradients without a direction",
    TRAIN: "train loss",
    "val/loss": "validation loss",
    "eval/loss": "loss of held-out answers",
}
DASHED = {  # drawn in the panel of another series, which then has this title
    "gradient/label_noise_auc_of_loss": (AUC, "AUC for wrong labels, by low cosine, by high loss (dashed)"),
    "val/loss": (TRAIN, "train loss, validation loss (dashed)"),
}
LIMITS: Mapping[str, Limits] = {
    **dict.fromkeys((*COSINES, "gradient/silhouette", "gradient/correlation_with_previous"), (-1.0, 1.0)),
    **dict.fromkeys((AUC, "gradient/label_noise_auc_of_loss", "gradient/zero_fraction"), (0.0, 1.0)),
    **dict.fromkeys((NOISE, "gradient/gradient_variance", "val/loss", "train/loss", "eval/loss"), (0.0, None)),
    "gradient/effective_rank": (1.0, None),
}
MEANINGS = {
    "C": "C: cosines of the gradients",
    "K": "K: inner products of the gradients (Gram matrix)",
    "Σ": "Σ: covariance of the gradients, tr: trace",
    "G": "G: mean gradient",
    "AUC": "AUC: area under the receiver operating characteristic (ROC) curve, chance 0.5",
}
LOGARITHMIC = ("gradient/noise_scale", "gradient/mean_gradient_squared", "gradient/gradient_variance")
PHASES = {"early": (5, 15), "middle": (20, 40), "late": (45, 60)}
WIDE = 34  # letters of a panel's title
Intervals = Mapping[int, tuple[float, float, float]]  # epoch → difference, low, high
Runs = Mapping[str, Mapping[str, Series]]


def gradient_series(
    runs: Runs,
    keys: Sequence[str] = tuple(LABELS),
    *,
    title: str = "",
    unit: str = "epoch",
    loss: str = "",
    band: str = ERRORS,
) -> "Figure":
    """Draw a panel for each series that any run has: one line per run, with a band of two standard errors.

    The AUC by loss and the validation loss are dashed in the panels of the other AUC and the train loss. Levels of
    chance are drawn as in `chance_band`. All cosines have one scale, and nothing reaches beyond what is possible.
    `loss` is the name of the loss, and `band` that of the bands. What abbreviations mean, and where no noise scale is
    defined, is said below the panels.
    """
    present = [key for key in keys if any(series.get(key) for series in runs.values())]
    drawn = {key: [key] for key in present if DASHED.get(key, ("",))[0] not in present}
    for key in present:
        if key not in drawn:
            drawn[DASHED[key][0]].append(key)
    figure, places = panels(max(1, len(drawn)), columns=min(4, max(1, len(drawn))), width=3.2, height=2.5)
    epochs = set().union(*(series.get(SECONDS, {}) for series in runs.values()))
    with style():
        for place, (key, together) in zip(places, drawn.items(), strict=False):
            for one in together:
                _curves(place, runs, one, epochs, dashed=one != key)
            shades = [*zip(runs.values(), colours(len(runs)), strict=True)]
            chance_band(place, [(of, one, shade) for of, shade in shades for one in together], LIMITS.get(key))
            place.set_title(textwrap.fill(DASHED[together[1]][1] if together[1:] else LABELS[key], WIDE))
            place.set_ylabel(loss if key.endswith("/loss") else "")
            _value_axis(place, key, [v for of in runs.values() for one in together for v in of.get(one, {}).values()])
            _epochs(place, epochs, unit)
        _one_scale([place for place, key in zip(places, drawn, strict=False) if key in COSINES])
        if not drawn:
            say_empty(places[0], "no value is defined at any checkpoint")
        if any(series.get(f"{key}_se") for series in runs.values() for key in present):
            _in_legend(places[0], band)
        add_legend(figure)
        add_title(figure, title)
        add_notes(figure, [_meanings(present), *_undefined(runs, present, unit), _first(runs.values(), present, unit)])
    return figure


def _in_legend(place: "Axes", band: str) -> None:
    from matplotlib.patches import Rectangle

    place.add_patch(Rectangle((0, 0), 0, 0, color="0.4", alpha=0.35, linewidth=0, label=band))


def _curves(place: "Axes", runs: Runs, key: str, epochs: Iterable[int], *, dashed: bool) -> None:
    shown = set(epochs)
    for (name, series), colour in zip(runs.items(), colours(len(runs)), strict=True):
        values = {epoch: value for epoch, value in series.get(key, {}).items() if epoch in shown or not shown}
        look: dict[str, Any] = {"linestyle": "--"} if dashed else {"label": name if len(runs) > 1 else None}
        draw(place, values, color=colour, marker="o", markersize=3, **look)
        error_band(place, {key: values, f"{key}_se": series.get(f"{key}_se", {})}, key, colour, LIMITS.get(key))


def _value_axis(place: "Axes", key: str, values: Sequence[float]) -> None:
    """Set up the axis of a series: logarithmic or not, and within what is possible."""
    if key in LOGARITHMIC and min(values) > 0:
        place.set_yscale("log")
        low, high = place.get_ylim()
        place.set_ylim(low := max(low, min(values) / 10), high)  # a band may reach to 0
        if high < DECADES * low:
            plain_numbers(place.yaxis)
    elif key == "gradient/zero_fraction":
        place.set_ylim(bottom=0)
    if key in LIMITS and place.get_yscale() == "linear":
        place.set_ylim(cut(*place.get_ylim(), LIMITS[key]))
        possible = all(cut(value, value, LIMITS[key])[0] == value for value in values)
        for line in place.get_lines():
            line.set_clip_on(not possible)  # marks at a limit are whole


def _one_scale(places: "Sequence[Axes]") -> None:
    """Give panels of one quantity one scale."""
    ends = [place.get_ylim() for place in places]
    for place in places:
        place.set_ylim(min(low for low, _ in ends), max(high for _, high in ends))


def _epochs(place: "Axes", epochs: Iterable[int], unit: str) -> None:
    epoch_axis(place, None, axis_label(unit))
    first, last = min(epochs, default=0), max(epochs, default=0)
    if last > first:
        margin = 0.05 * (last - first)
        place.set_xlim(first - margin, last + margin)


def _meanings(keys: Iterable[str]) -> str:
    """Return what the abbreviations in the labels of series mean.

    >>> _meanings(["gradient/effective_rank"])
    'K: inner products of the gradients (Gram matrix)'
    """
    labels = " ".join(LABELS[key] for key in keys)
    words = set(labels.replace("|", " ").replace("²", " ").replace(",", " ").split())
    return "; ".join(meaning for word, meaning in MEANINGS.items() if word in words)


def _undefined(runs: Runs, keys: Iterable[str], unit: str) -> list[str]:
    """Return where the noise scale is undefined although the mean gradient is known."""
    if NOISE not in keys:
        return []
    squared = "gradient/mean_gradient_squared"
    absent = {name: sorted(of.get(squared, {}).keys() - of[NOISE].keys()) for name, of in runs.items() if NOISE in of}
    few = {name: ", ".join(map(str, at[:6])) + " …" * (len(at) > 6) for name, at in absent.items() if at}
    said = [f"{name}: {at}" if name else at for name, at in few.items()]
    return [f"No noise scale where the estimate of |G|² is not positive: {unit} {'; '.join(said)}"] if said else []


def _first(several: Iterable[Mapping[str, Mapping[int, Any]]], keys: Collection[str], unit: str) -> str:
    """Return why the first checkpoint, where others have a value, has no correlation with the one before it."""
    if FOLLOWING not in keys:
        return ""
    found = [of for of in several if of.get(FOLLOWING)]
    first = min(step for of in found for key in keys if key.startswith("gradient/") for step in of.get(key, {}))
    absent = all(first not in of[FOLLOWING] for of in found)
    return f"No correlation with the previous checkpoint at {unit} {first}: it is the first." if absent else ""


def noise_scale(series: Mapping[str, Series], *, title: str, unit: str = "epoch") -> "Figure":
    """Draw the gradient noise scale over epochs, with two standard errors; undefined values are not drawn."""
    return gradient_series({"": series}, (NOISE,), title=title, unit=unit)


def gradient_differences(differences: Mapping[str, Intervals], *, title: str, unit: str = "epoch") -> "Figure":
    """Draw the difference between two runs in each series, with its 95 % bootstrap interval."""
    drawn = [key for key in LABELS if differences.get(key)]
    figure, places = panels(max(1, len(drawn)), columns=min(4, max(1, len(drawn))), width=3.2, height=2.5)
    with style():
        for place, key in zip(places, drawn, strict=False):
            epochs, limits = sorted(differences[key]), _of_differences(key)
            low: Sequence[float]
            high: Sequence[float]
            middle, low, high = ([differences[key][epoch][part] for epoch in epochs] for part in range(3))
            low, high = zip(*(cut(*ends, limits) for ends in zip(low, high, strict=True)), strict=True)
            place.plot(epochs, middle, marker="o", markersize=3)
            width = 0 if len(epochs) > 1 else 2
            place.fill_between(epochs, low, high, color="C0", alpha=0.2, linewidth=width)
            place.axhline(0, color="0.3", linewidth=0.8)
            place.set_title(textwrap.fill(LABELS[key], WIDE))
            epoch_axis(place, None, axis_label(unit))
        _one_scale([place for place, key in zip(places, drawn, strict=False) if key in COSINES])
        if not drawn:
            say_empty(places[0], "no difference is defined at any checkpoint of both runs")
        add_title(figure, title)
        add_notes(figure, [_meanings(drawn), _first([differences], drawn, unit)])
    return figure


def _of_differences(key: str) -> Limits | None:
    """Return the limits of a difference between two values of a series."""
    low, high = LIMITS.get(key, (0.0, None))
    return None if high is None else (low - high, high - low)
