"""Map and pictures of a checkpoint's gradients at n = 512, against the way of version 0.6: time, and what maps keep."""

import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from benchmarks.record import in_turn, one_thread, ratio, store
from nfa.figures.gradient_pictures import DrawnDirections, gradient_map, gradient_similarities, map_reach
from nfa.maths.embedding import fitting_perplexity, principal, tsne
from nfa.measures.gradient_gram import GradientGram, choose_parameters
from nfa.registry.datasets import image_files, images
from nfa.sinks.pictures import write_picture
from nfa.studies.gradient_directions import ProbeExamples, gradient_directions
from nfa.workloads.probe import Probe

DATASETS = ("digits", "fashion-mnist")
N, WIDTH, EPOCHS, SEEDS = 512, 64, (0, 1, 3, 10), (1, 2, 3)
TRAINED = 1024  # examples
NEIGHBOURS = (5, 15, 30)
Start = np.ndarray | None
Mapped = Callable[[np.ndarray, Start], np.ndarray]


def chord(cosines: np.ndarray) -> np.ndarray:
    """Distances of all pairs."""
    distances = np.sqrt(np.clip(2 - 2 * cosines.astype(np.float64), 0, None))
    np.fill_diagonal(distances, 0)
    return distances


def map_before(cosines: np.ndarray, start: Start) -> np.ndarray:
    """By the tree of scikit-learn, at its default angle."""
    from sklearn.manifold import TSNE

    anew = start is None
    method = TSNE(
        metric="precomputed",
        perplexity=fitting_perplexity(len(cosines)),
        init=principal(cosines) if anew else start,
        early_exaggeration=12 if anew else 1,
        max_iter=1000 if anew else 500,
    )
    found: np.ndarray = method.fit_transform(chord(cosines))
    return found


def map_now(cosines: np.ndarray, start: Start) -> np.ndarray:
    """As `gradient_directions` does it."""
    return tsne(cosines, perplexity=fitting_perplexity(len(cosines)), seed=0, start=start)


MAPS: Mapping[str, Mapped] = {"before": map_before, "now": map_now}


def pictures_before(shown: DrawnDirections, folder: Path) -> None:
    """With a line for each edge, mixed colours, two drawings, and PNG files with transparency."""
    matrix, of_map = gradient_similarities(shown, title=""), gradient_map(shown, title="", reach=map_reach([shown]))
    (lines,), (image,) = matrix.axes[0].collections, matrix.axes[0].images
    lines.remove()
    image.set_interpolation("antialiased")
    assert shown.classes is not None
    for edge in np.flatnonzero(np.diff(shown.classes)) + 0.5:
        matrix.axes[0].axhline(edge, color="0.2", linewidth=0.4)
        matrix.axes[0].axvline(edge, color="0.2", linewidth=0.4)
    for name, figure in (("matrix", matrix), ("map", of_map)):
        figure.savefig(folder / f"{name}.png", dpi=200, metadata={"Software": None})


def pictures_now(shown: DrawnDirections, folder: Path) -> None:
    """As `gradient_directions` does it."""
    write_picture(gradient_similarities(shown, title=""), folder / "matrix.png")
    write_picture(gradient_map(shown, title="", reach=map_reach([shown])), folder / "map.png")


@dataclass(frozen=True)
class Checkpoint:
    """Cosines and norms of the gradients of an MLP during a training, by class."""

    cosines: np.ndarray
    norms: np.ndarray
    classes: np.ndarray


def checkpoints(dataset: str, seed: int) -> list[Checkpoint]:
    """Train 64 units × 2 by Adam, and look at the gradients of 512 training examples now and then."""
    data = images.load(dataset, image_files.locate(dataset))
    inputs = torch.tensor(data.train_images[:TRAINED]).float() / data.scale
    labels = torch.tensor(data.train_labels[:TRAINED])
    torch.manual_seed(seed)
    hidden = (nn.Linear(data.features, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU())
    model = nn.Sequential(*hidden, nn.Linear(WIDTH, data.classes))
    optimizer, found = torch.optim.Adam(model.parameters(), lr=0.01), []
    for epoch in range(EPOCHS[-1] + 1):
        if epoch in EPOCHS:
            found.append(looked_at(model, inputs[:N], labels[:N]))
        for batch in torch.randperm(TRAINED).split(64):
            optimizer.zero_grad()
            F.cross_entropy(model(inputs[batch]), labels[batch]).backward()
            optimizer.step()
    return found


def looked_at(model: nn.Module, inputs: Tensor, labels: Tensor) -> Checkpoint:
    """The arrays of a checkpoint, with examples in the order of pictures."""
    probe = Probe(model, lambda outputs, y: F.cross_entropy(outputs, y, reduction="none"), inputs, labels)
    gram = GradientGram(probe, range(N), choose_parameters(probe, model))(model)
    arrays = gradient_directions(gram, ProbeExamples(torch.zeros(N), labels), seed=0).arrays
    assert len(arrays["kept"]) == N
    order = np.argsort(labels.numpy(), kind="stable")
    return Checkpoint(arrays["cosines"][np.ix_(order, order)], arrays["norms"][order], labels.numpy()[order])


def chain(run: list[Checkpoint], way: str) -> list[np.ndarray]:
    """Maps of a run's checkpoints, each from the one before."""
    maps: list[np.ndarray] = []
    for one in run:
        maps.append(MAPS[way](one.cosines, maps[-1] if maps else None))
    return maps


def times(dataset: str, run: list[Checkpoint], maps: list[np.ndarray], folder: Path) -> dict[str, object]:
    """CPU seconds of the last checkpoint, anew and continued, before and now."""
    last = run[-1]
    shown = DrawnDirections(last.cosines, maps[-1], last.norms, last.norms, last.classes)
    ways: dict[str, dict[str, Callable[[], object]]] = {
        "map anew": {way: partial(make, last.cosines, None) for way, make in MAPS.items()},
        "map that continues": {way: partial(make, last.cosines, maps[-2]) for way, make in MAPS.items()},
        "two pictures": {
            "before": partial(pictures_before, shown, folder),
            "now": partial(pictures_now, shown, folder),
        },
    }
    shares = {share: in_turn(of, rounds=3, clock=time.process_time) for share, of in ways.items()}
    found: dict[str, object] = {}
    for share, seconds in shares.items():
        for way in MAPS:
            found[f"{dataset}, {share}, {way}: CPU s"] = round(statistics.median(seconds[way]), 3)
    for kind in ("anew", "that continues"):
        sums = {
            way: [a + b for a, b in zip(shares[f"map {kind}"][way], shares["two pictures"][way], strict=True)]
            for way in MAPS
        }
        found[f"{dataset}, map {kind} and two pictures: share of the time before"] = (
            f"{ratio(sums['now'], sums['before']):.0%}"
        )
    return found


def kept(run: list[Checkpoint], maps: list[np.ndarray]) -> np.ndarray:
    """Trustworthiness [checkpoint, number of neighbours]."""
    from sklearn.manifold import trustworthiness

    return np.array(
        [
            [trustworthiness(chord(one.cosines), places, n_neighbors=k, metric="precomputed") for k in NEIGHBOURS]
            for one, places in zip(run, maps, strict=True)
        ]
    )


def moved(maps: list[np.ndarray]) -> list[float]:
    """Root mean square of the way from each map to the next, relative to its radius."""
    return [
        float(np.sqrt(np.square(after - before).sum() / np.square(after).sum())) for before, after in pairwise(maps)
    ]


def quality(
    dataset: str, runs: list[list[Checkpoint]], maps: Mapping[str, list[list[np.ndarray]]]
) -> dict[str, object]:
    """What the maps of all runs keep."""
    found: dict[str, object] = {}
    trust = {way: np.stack([kept(run, of_run) for run, of_run in zip(runs, maps[way], strict=True)]) for way in MAPS}
    for place, k in enumerate(NEIGHBOURS):
        for way in MAPS:
            found[f"{dataset}, trustworthiness of {k} neighbours, {way}: mean"] = round(
                float(trust[way][..., place].mean()), 4
            )
    found[f"{dataset}, trustworthiness, now / before: the least"] = round(
        float((trust["now"] / trust["before"]).min()), 4
    )
    for way in MAPS:
        ways = [length for of_run in maps[way] for length in moved(of_run)]
        found[f"{dataset}, way from one checkpoint to the next, {way}: share of the radius, mean"] = round(
            statistics.mean(ways), 3
        )
    return found


def main() -> None:
    """Train, measure and record."""
    one_thread()
    results: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as folder:
        for dataset in DATASETS:
            runs = [checkpoints(dataset, seed) for seed in SEEDS]
            maps = {way: [chain(run, way) for run in runs] for way in MAPS}
            results |= times(dataset, runs[0], maps["now"][0], Path(folder)) | quality(dataset, runs, maps)
    notes = [
        f"Cosines of the gradients of {N} examples in a {WIDTH} × 2 network that Adam trains on {TRAINED:,} examples. "
        "CPU seconds on one thread; the ways run in turn, and values are medians.",
        "Before: t-SNE of scikit-learn by the tree of Barnes and Hut, angle 0.5; pictures with a line for each edge "
        "between classes, drawn twice, PNG with transparency. Now: t-SNE with all pairs and as many iterations.",
        f"Trustworthiness on the chord distances of {len(SEEDS)} seeds at epochs {', '.join(map(str, EPOCHS))}; t-SNE "
        "itself draws no random numbers.",
    ]
    store("pictures", f"Map and two pictures of a checkpoint's gradients, {N} examples", results, notes)


if __name__ == "__main__":
    main()
