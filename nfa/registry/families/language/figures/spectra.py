"""Spectra of low-rank updates: of a synthesised teacher, and of a truncated update."""

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from nfa.figures.notes import add_notes
from nfa.figures.style import add_legend, add_title, panels, plain_numbers, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Spectra = tuple[Sequence[float], Sequence[float]]  # before and after
BEFORE, AFTER, NOISE = "tab:blue", "tab:orange", "0.45"
MOST_KINDS = 12  # panels of a figure
SVD = "ΔW: update of a module's weights; ΔW_r: its best approximation of rank r, by singular value decomposition (SVD)"
NARROW = 1e-3  # of an axis


def kinds(modules: Sequence[str]) -> dict[str, list[str]]:
    """Group modules whose paths differ only in numbers, by the last part of the path that distinguishes the groups.

    >>> kinds(["layers.0.q_proj", "layers.1.q_proj", "layers.0.up"])
    {'q_proj': ['layers.0.q_proj', 'layers.1.q_proj'], 'up': ['layers.0.up']}
    """
    patterns: dict[str, list[str]] = {}
    for module in modules:
        patterns.setdefault(re.sub(r"\d+", "*", module), []).append(module)
    ends = [pattern.rpartition(".")[2] for pattern in patterns]
    unique = len(set(ends)) == len(ends) and "*" not in ends
    return {end if unique else pattern: of for end, (pattern, of) in zip(ends, patterns.items(), strict=True)}


def synthesis_plots(
    spectra: Mapping[str, Spectra], noise: Mapping[str, float], *, kept: int, title: str = ""
) -> "Figure":
    """A panel for each kind of module: spectra of the adapter and of the teacher, and the noise's spectral norm.

    A light line for each module, a strong one for their geometric mean. Zeros are not drawn.
    """
    from matplotlib.ticker import MaxNLocator

    groups = kinds(list(spectra))
    if len(groups) > MOST_KINDS:
        groups = {"all modules": list(spectra)}
    count = len(groups)
    columns = min(4, count) if count != 5 else 3
    figure, places = panels(count, columns=columns, width=3.1, height=2.5)
    with style():
        for place, (kind, modules) in zip(places, groups.items(), strict=True):
            _lines(place, [spectra[name][1] for name in modules], AFTER, "teacher: kept and added", width=2.6)
            _lines(place, [spectra[name][0] for name in modules], BEFORE, "adapter", width=1.5)
            levels = [noise[name] for name in modules if noise[name] > 0]
            if levels:
                label = "spectral norm of the noise"
                place.axhline(_geometric(levels), color=NOISE, linestyle="--", linewidth=1.2, label=label)
            place.axvline(kept + 0.5, color="0.6", linestyle=":", linewidth=1, label=f"after {kept} triplets")
            many = f", {len(modules)} layers" if len(modules) > 1 else ""
            place.set(title=f"{kind}{many}", yscale="log", xlabel="index j of the singular value")
            place.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
        ends = [place.get_ylim() for place in places]
        for place in places:  # the same quantity has one scale
            place.set_ylim(min(low for low, _ in ends), max(high for _, high in ends))
            plain_numbers(place.yaxis)
        for place in places[::columns]:
            place.set_ylabel("singular value $s_j$")
        add_legend(figure)
        add_title(figure, title)
        add_notes(figure, ["Light lines: single modules; strong lines: their geometric mean. Zeros are not drawn."])
    return figure


def _lines(axes: "Axes", spectra: Sequence[Sequence[float]], colour: str, label: str, *, width: float) -> None:
    positive = [[value for value in spectrum if value > 0] for spectrum in spectra]
    if len(spectra) > 1:
        for spectrum in positive:
            axes.plot(range(1, len(spectrum) + 1), spectrum, color=colour, alpha=0.18, linewidth=0.7)
    middle, _ = _over_modules(positive)
    axes.plot(range(1, len(middle) + 1), middle, color=colour, linewidth=width, label=label)


def _geometric(values: Sequence[float]) -> float:
    return float(np.exp(np.mean(np.log(values))))


def _over_modules(spectra: Sequence[Sequence[float]]) -> tuple[list[float], list[float]]:
    """Geometric mean, and the factor of a standard deviation, of each s_j over the modules that have it."""
    longest = max(map(len, spectra), default=0)
    logs = [[np.log(spectrum[j]) for spectrum in spectra if j < len(spectrum)] for j in range(longest)]
    return [float(np.exp(np.mean(of_j))) for of_j in logs], [float(np.exp(np.std(of_j))) for of_j in logs]


def svd_analysis(
    modules: Mapping[str, tuple[float, float]], spectra: Sequence[Sequence[float]], *, rank: int, title: str = ""
) -> "Figure":
    """Four panels: histograms of relative errors and of energy ratios, mean ± standard deviation of spectra, and both.

    `modules` has (relative error, energy ratio) by name; spectra hold positive values only.
    """
    errors, energies = ([values[part] for values in modules.values()] for part in range(2))
    error, energy = "relative error ‖ΔW − ΔW$_r$‖ / ‖ΔW‖", f"energy ‖ΔW$_r$‖² / ‖ΔW‖² at rank {rank}"
    figure, places = panels(4, columns=2, width=4.4, height=3.1)
    with style():
        _histogram(places[0], errors, error, "reconstruction error")
        _histogram(places[1], energies, energy, "kept energy")
        _spectrum(places[2], spectra, rank)
        for kind, members in kinds(list(modules)).items():
            errors_of, energies_of = zip(*(modules[name] for name in members), strict=True)
            places[3].scatter(energies_of, errors_of, s=16, alpha=0.75, label=kind, clip_on=False, zorder=3)
        places[3].set(title="error and kept energy by module", xlabel=energy, ylabel=error)
        for limit, values in ((places[3].set_xlim, energies), (places[3].set_ylim, errors)):
            if wide := _range(values):
                limit(wide)
        if len(kinds(list(modules))) <= MOST_KINDS:
            add_legend(figure)
        add_title(figure, title)
        add_notes(figure, [SVD])
    return figure


def _range(values: Sequence[float]) -> tuple[float, float] | None:
    """Limits that do not magnify rounding; None if the values spread by themselves."""
    low, high = min(values), max(values)
    return (max(0.0, low - 0.05), max(min(1.0, high + 0.05), high)) if high - low < NARROW else None


def _histogram(axes: "Axes", values: Sequence[float], label: str, title: str) -> None:
    from matplotlib.ticker import MaxNLocator

    bins = int(np.clip(np.sqrt(len(values)) * 1.5, 5, 30))
    axes.hist(values, bins=bins, range=_range(values), color="tab:blue", alpha=0.75, edgecolor="white", linewidth=0.5)
    middle = float(np.mean(values))
    axes.axvline(middle, color="tab:red", linewidth=1.2)
    axes.set(title=f"{title}, mean {middle:.3g}", xlabel=label, ylabel="modules")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))


def _spectrum(axes: "Axes", spectra: Sequence[Sequence[float]], rank: int) -> None:
    from matplotlib.ticker import MaxNLocator

    middle, factor = _over_modules(spectra)
    j = np.arange(1, len(middle) + 1)
    low, high = (np.array(middle) * np.array(factor) ** sign for sign in (-1, 1))
    axes.fill_between(j, low, high, color="tab:blue", alpha=0.2, linewidth=0, label="± standard deviation of log $s_j$")
    axes.plot(j, middle, color="tab:blue", marker="o", markersize=3, label="geometric mean over modules")
    axes.axvline(rank + 0.5, color="tab:red", linestyle="--", linewidth=1.2, label=f"rank {rank}")
    axes.set(title="spectrum of the update", yscale="log")
    axes.set(xlabel="index j of the singular value", ylabel="singular value $s_j$")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
    plain_numbers(axes.yaxis)
