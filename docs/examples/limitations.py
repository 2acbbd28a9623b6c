"""Draw what the numbers do not mean, with a network of 3 × 64 units on digits: the figures of docs/limitations.md.

`python docs/examples/limitations.py FOLDER` writes limitations_….png into the folder.
"""

import copy
import io
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
import torch.nn as nn
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from sklearn.datasets import load_digits
from torch import Tensor
from torch.utils.data import TensorDataset

import nfa
from nfa.console import muted
from nfa.figures.bands import beside_curves, chance_band, error_band
from nfa.figures.style import add_legend, panels, style
from nfa.maths.chance import Rotated, cosine_by_chance
from nfa.reference.chance import rotated_cosines
from nfa.sinks import Memory

ALIVE = (64, 32, 16, 8, 4, 2, 1, 0)  # units of the first layer
SIZES = (64, 128, 256, 512, 1024, 1437)  # examples
BLUE, ORANGE, GREEN = "tab:blue", "tab:orange", "tab:green"
Series = Mapping[str, Mapping[int, float]]


def main(
    folder: str = ".", epochs: int = 40, draws: int = 12, sizes: Sequence[int] = SIZES
) -> dict[str, Figure]:
    """Draw and store all figures."""
    figures = {
        "rank_one": rank_one(rotations=1000 * draws),
        "initial_weights": initial_weights([epoch for epoch in (0, 1, 2, 3, 5, 8, 12, 20, 40) if epoch <= epochs]),
        "dead_units": dead_units(epoch=min(10, epochs)),
        "few_examples": few_examples(draws, sizes, epoch=min(2, epochs)),
        "few_decide": few_decide(sorted({0, min(10, epochs), epochs})),
    }
    for name, figure in figures.items():
        save(figure, Path(folder) / f"limitations_{name}.png")
    return figures


def save(figure: Figure, file: Path) -> None:
    """Store a figure without transparency."""
    picture = io.BytesIO()
    figure.savefig(picture, dpi=150)
    Image.open(picture).convert("RGB").save(file, optimize=True)


# ---- the network


def digits() -> tuple[Tensor, Tensor]:
    """The 1,437 images that are trained on, and their classes."""
    images, labels = load_digits(return_X_y=True)
    return torch.tensor(images[:1437] / 16).float(), torch.tensor(labels[:1437]).long()


def network() -> nn.Sequential:
    hidden = [part for _ in range(3) for part in (nn.Linear(64, 64), nn.ReLU())]
    return nn.Sequential(*hidden, nn.Linear(64, 10))


def loss(outputs: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(outputs, labels, reduction="none")


def trained(epochs: Sequence[int]) -> Iterator[tuple[int, nn.Sequential]]:
    """Train with Adam, and yield the network at these epochs."""
    torch.manual_seed(0)
    (x, y), model = digits(), network()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.001)
    for epoch in range(max(epochs) + 1):
        for batch in torch.randperm(len(x)).split(64) if epoch else ():
            optimizer.zero_grad()
            loss(model(x[batch]), y[batch]).mean().backward()
            optimizer.step()
        if epoch in epochs:
            yield epoch, model


def measured(model: nn.Module, relations: str, examples: int, draw: int = 0) -> dict[str, float]:
    """Values, errors and levels on some of the images, drawn by class; each draw takes others."""
    x, y = digits()
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(draw))
    data = TensorDataset(x[order], y[order])
    with muted(), nfa.watch(model, loss, data, examples=examples, relations=relations, sink=Memory()) as watch:
        return dict(watch.record(0))


def curve(place: Axes, series: Series, key: str, label: str, colour: str) -> None:
    """Draw a series over its steps."""
    steps = sorted(series.get(key, {}))
    place.plot(steps, [series[key][step] for step in steps] if steps else [], "o-", color=colour, label=label)


def with_legend(figure: Figure) -> Figure:
    """Add one legend for all panels."""
    with style():
        add_legend(figure)
    return figure


# ---- matrices of rank 1


def rank_one(rotations: int) -> Figure:
    """Cosines over random rotations: of two matrices of rank 1, and of two with many directions."""
    random = torch.Generator().manual_seed(0)
    figure, places = panels(2, columns=2, width=4.4)
    thin, wide = ([torch.randn(rows, 64, generator=random).double() for _ in range(2)] for rows in (1, 64))
    distribution(places[0], [W.T @ W for W in thin], rotations, "both of rank 1")
    distribution(places[1], [W.T @ W for W in wide], rotations, "both of rank 64")
    return with_legend(figure)


def distribution(place: Axes, matrices: Sequence[Tensor], rotations: int, title: str) -> None:
    level = cosine_by_chance(*(Rotated(64, float(matrix.trace()), float(matrix.square().sum())) for matrix in matrices))
    assert level
    low, high = level.mean - 2 * level.sd, level.mean + 2 * level.sd
    cosines = rotated_cosines(*matrices, rotations, torch.Generator().manual_seed(1))
    above = float((cosines > high).double().mean())
    with style():
        place.hist(cosines.tolist(), bins=60, density=True, color=BLUE, alpha=0.7, label="random rotations")
        place.axvspan(max(0, low), high, color="0.6", alpha=0.25, label="chance ± 2 SD")
        place.axvline(level.mean, color="0.2", label="chance")
        place.set(title=f"{title}: {100 * above:.1f} % lie above the band", xlabel="cosine", yticks=[])


# ---- the initial weights


def initial_weights(epochs: Sequence[int]) -> Figure:
    """AGOP vs NFM beside both levels, and with the initial weights removed."""
    sink, watch = Memory(), None
    options = {"examples": 1437, "relations": "agop_nfm,agop_nfm_init_removed", "sink": sink}
    with muted():
        for epoch, model in trained(epochs):
            watch = watch or nfa.watch(model, loss, TensorDataset(*digits()), **options)
            watch.record(epoch)
    figure, places = panels(3, columns=3)
    for layer, (place, site) in enumerate(zip(places, ("0", "2", "4"), strict=True)):
        with style():
            curve(place, sink.series, f"{site}/agop_nfm", "AGOP vs NFM", BLUE)
            curve(place, sink.series, f"{site}/agop_nfm_init_removed", "init removed", ORANGE)
            beside_curves(place, [(sink.series, f"{site}/agop_nfm", BLUE)], (0, 1))
            chance_band(place, [(sink.series, f"{site}/agop_nfm", BLUE)], (0, 1))
            place.set(title=f"layer {layer}", xlabel="epoch", ylim=(0, 1))
    places[0].set_ylabel("cosine")
    return with_legend(figure)


# ---- dead units


def dead_units(epoch: int) -> Figure:
    """Three relations against how many units of the first layer are alive."""
    ((_, model),) = trained([epoch])
    sink = Memory()
    for place, alive in enumerate(ALIVE):
        sink.log(measured(with_alive(model, alive), "agop_nfm,h_vs_m", 1437), place)
    figure, places = panels(3, columns=3)
    shown = {"0/agop_nfm": "layer 0: AGOP vs NFM", "2/agop_nfm": "layer 1: AGOP vs NFM", "2/h_vs_m": "layer 1: H vs M"}
    for axes, (key, title) in zip(places, shown.items(), strict=True):
        with style():
            curve(axes, sink.series, key, "value", BLUE)
            beside_curves(axes, [(sink.series, key, BLUE)], (0, 1))
            chance_band(axes, [(sink.series, key, BLUE)], (0, 1))
            axes.set_xticks(range(len(ALIVE)), [str(alive) for alive in ALIVE])
            axes.set(title=title, xlabel="units of layer 0 that are alive", ylim=(0, 1), xlim=(-0.4, len(ALIVE) - 0.6))
    return with_legend(figure)


def with_alive(model: nn.Sequential, alive: int) -> nn.Sequential:
    """A copy in which all but some units of the first layer are 0 for every image."""
    changed = copy.deepcopy(model)
    bias = changed[0].bias
    assert isinstance(bias, Tensor)
    bias.data[alive:] = -100
    return changed


# ---- few examples


def few_examples(draws: int, sizes: Sequence[int], epoch: int, key: str = "0/fact_nfm") -> Figure:
    """The plain and the unbiased cosine against the number of examples: over many draws, and of one."""
    ((_, model),) = trained([epoch])
    sinks = [Memory() for _ in range(draws)]
    for draw, sink in enumerate(sinks):
        for size in sizes:
            sink.log(measured(model, "fact_nfm", size, draw), size)
    series = [sink.series for sink in sinks]
    figure, places = panels(2, columns=2, width=4.4)
    with style():
        for one in series:
            places[0].plot(sizes, [one[key][size] for size in sizes], ".", color="0.7", label="plain, one draw")
        curve(places[0], means(series, key), key, "plain", BLUE)
        curve(places[0], means(series, f"{key}_unbiased"), f"{key}_unbiased", "unbiased", ORANGE)
        curve(places[1], series[0], key, "plain", BLUE)
        curve(places[1], series[0], f"{key}_unbiased", "unbiased", ORANGE)
        error_band(places[1], series[0], key, ORANGE)
        places[1].fill_between([], [], [], color=ORANGE, alpha=0.2, label="± 2 standard errors")
        for place, title in zip(places, (f"means over {draws} draws", "one draw"), strict=True):
            place.axhline(series[0][key][sizes[-1]], color="0.2", linestyle=":", label="all 1,437 examples")
            place.set(title=title, xlabel="examples", xscale="log")
            place.set_xticks(sizes, ["" if size == 1024 else f"{size:,}" for size in sizes])
            place.minorticks_off()
    places[0].set_ylabel("layer 0: FACT vs NFM")
    return with_legend(figure)


def means(series: Sequence[Series], key: str) -> Series:
    """Means over draws at the sizes at which every draw has a value."""
    found = [one.get(key, {}) for one in series]
    common = set.intersection(*({*of} for of in found))
    return {key: {size: sum(of[size] for of in found) / len(found) for size in sorted(common)}}


# ---- a few examples decide


def few_decide(epochs: Sequence[int]) -> Figure:
    """The share of ‖G′‖ of layer 2 that the examples with the largest gradients carry."""
    figure, (place,) = panels(1, columns=1, width=6)
    for (epoch, model), colour in zip(trained(epochs), (GREEN, BLUE, ORANGE), strict=False):
        error = measured(model, "out_g_vs_m", 512).get("4/out_g_vs_m_se")
        said = "no standard error" if error is None else f"standard error {error:.1g}"
        with muted(), style():
            products = nfa.gradient_gram(model, loss, digits(), examples=1437, parameters="4.bias")
            place.plot(range(1, 1438), shares(products).tolist(), color=colour, label=f"epoch {epoch}: {said}")
    with style():
        place.set(xscale="log", xlabel="examples with the largest gradients", ylabel="share of ‖G′‖", ylim=(0, 1.02))
        place.legend(loc="upper left")
    return figure


def shares(products: Tensor) -> Tensor:
    """‖Σ δδᵀ‖ over the m examples with the longest δ, relative to that over all, for every m; products are ⟨δ_a, δ_b⟩.
    """
    order = products.diagonal().argsort(descending=True)
    squares = products[order][:, order].square().cumsum(0).cumsum(1).diagonal()
    return (squares / squares[-1]).sqrt()


if __name__ == "__main__":
    main(*sys.argv[1:])
