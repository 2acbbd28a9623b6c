"""What levels, standard errors and all relations cost: 784-1024×5-10 on 2,000 examples, and 64-64×3-10."""

import functools
import statistics
import time
from collections.abc import Sequence

import numpy as np
import torch

from benchmarks.record import in_turn, one_thread, ratio, store
from nfa.maths.standard_errors import Sampling
from nfa.measures.site_matrices import Conventions, SiteMatrices, SiteMeasures
from nfa.observe.passes import BATCH_SIZE, site_weights
from nfa.registry.datasets.images import ImageData
from nfa.registry.families.mlp.config import TrainConfig
from nfa.registry.families.mlp.workload import MLPClassifier
from nfa.relations import DEFAULT, OF_ANY_MODEL, needed
from nfa.studies.alignment import AlignmentOptions, alignment

EXAMPLES, CLASSES, POPULATION = 2000, 10, 48000
CHANGE = 0.3  # of the weights since initialisation, relative; C = WWᵀ stays so flat that nothing is rotated
SAMPLING = Sampling(EXAMPLES, POPULATION, torch.arange(EXAMPLES) % CLASSES)


class Network:
    """A network on simulated pixels whose weights have moved away from their initial values."""

    def __init__(self, pixels: int, width: int, depth: int) -> None:
        draw = np.random.default_rng(0)
        images = draw.integers(0, 256, (EXAMPLES, pixels), dtype=np.uint8)
        labels = np.arange(EXAMPLES, dtype=np.int64) % CLASSES
        data = ImageData("simulated", 255.0, images, labels, images[:1], labels[:1])
        ids = list(range(EXAMPLES))
        self.workload = MLPClassifier(TrainConfig(width=width, depth=depth), data, {"train": ids, "probe": ids})
        self.model = self.workload.model()
        self.sites = list(self.workload.sites(self.model))[:-1]
        weights = site_weights(self.workload, self.model, self.sites)
        self.initial = {name: weight.clone() for name, weight in weights.items()}
        random = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for weight in self.model.matrices():
                weight.add_(torch.randn(weight.shape, generator=random), alpha=CHANGE * float(weight.std()))

    def measure(self, relations: Sequence[str], *, levels: bool, errors: bool) -> SiteMatrices:
        """The matrices that relations need."""
        wanted = needed(relations, levels=levels)
        measures = SiteMeasures(self.workload, self.sites, wanted, Conventions(), self.initial, errors=errors)
        return measures(self.model, self.workload.batches("train", batch_size=BATCH_SIZE))

    def analysis(self, relations: Sequence[str], *, levels: bool, errors: bool) -> None:
        """Measure and compare."""
        study(self.measure(relations, levels=levels, errors=errors), relations, levels=levels, errors=errors)


def study(measured: SiteMatrices, relations: Sequence[str], *, levels: bool, errors: bool) -> None:
    """Compare matrices that have been measured."""
    alignment(measured, relations, AlignmentOptions(chance=levels), {}, SAMPLING if errors else None)


def relations_compared(network: Network, name: str) -> dict[str, str | float]:
    """The time of a study of all relations against that of the default ones."""
    found: dict[str, str | float] = {}
    for beside in (False, True):
        ways = {}
        for relations in (DEFAULT, OF_ANY_MODEL):
            measured = network.measure(relations, levels=beside, errors=beside)
            ways[str(len(relations))] = functools.partial(study, measured, relations, levels=beside, errors=beside)
        default, everything = in_turn(ways, rounds=3, clock=time.process_time).values()
        words = f"{name}, {'with' if beside else 'without'} levels and errors"
        found[f"{words}: default relations, s"] = float(f"{statistics.median(default):.3g}")
        found[f"{words}: all relations, times the default"] = round(ratio(everything, default), 2)
    return found


def additions(network: Network, name: str) -> dict[str, str | float]:
    """What levels and errors add to an analysis of the default relations."""
    kinds = {"plain": (False, False), "levels": (True, False), "levels and errors": (True, True)}
    ways = {kind: functools.partial(network.analysis, DEFAULT, levels=a, errors=b) for kind, (a, b) in kinds.items()}
    seconds = in_turn(ways, rounds=3, clock=time.process_time)
    found: dict[str, str | float] = {f"{name}, analysis without both, s": round(statistics.median(seconds["plain"]), 2)}
    for kind in ("levels", "levels and errors"):
        share = 1 - 1 / ratio(seconds[kind], seconds["plain"])
        found[f"{name}, share of {kind} in an analysis"] = f"{share:.1%}"
    return found


def main() -> None:
    """Measure and record."""
    one_thread()
    small, large = Network(64, 64, 3), Network(784, 1024, 5)
    store(
        "levels",
        "Chance levels, shared-weights levels and standard errors: what they cost, 2,000 examples",
        {
            **relations_compared(small, "64-64×3-10"),
            **relations_compared(large, "784-1024×5-10"),
            **additions(large, "784-1024×5-10"),
        },
        [
            "Processor time on one thread. The ways that are compared run in turn; ratios are medians over rounds.",
            "An analysis is one pass over the examples, and the study of the matrices that it measures; loading and "
            "logging are not counted.",
            "The weights of the large network are so flat that every level has its closed form. The levels of the "
            "small one include rotations: all relations have a level by rotations there.",
        ],
    )


if __name__ == "__main__":
    main()
