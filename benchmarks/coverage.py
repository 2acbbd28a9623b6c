"""How often value ± 2 standard errors holds the value of all training examples: `python -m benchmarks.coverage`.

Fashion-MNIST, 784-64×3-10, trained with Adam. At initialisation, in mid-training and after fitting, 1,000 probes of 512
examples are drawn as `analyze` draws them, by class, and every cosine is compared with that of all 48,000 examples.
"""

import sys
from collections.abc import Iterator, Mapping

import torch
import torch.nn.functional as F

from benchmarks.record import store
from nfa.analyses.alignment import sampling_of
from nfa.maths.standard_errors import Sampling
from nfa.measures.site_matrices import SiteMatrices, SiteMeasures
from nfa.observe.passes import site_weights
from nfa.registry.datasets.image_files import locate
from nfa.registry.datasets.images import load
from nfa.registry.datasets.splits import draw
from nfa.registry.families.mlp.config import TrainConfig
from nfa.registry.families.mlp.model import MLP
from nfa.registry.families.mlp.workload import MLPClassifier
from nfa.relations import COSINES, needed
from nfa.studies.alignment import AlignmentOptions, alignment
from nfa.workloads.stratified import stratified_order

CONFIG = TrainConfig(dataset="fashion-mnist", width=64, depth=3, loss="cross-entropy")
PROBE, PROBES, REACH = 512, 1000, 2  # standard errors, as figures draw them
EPOCHS = {"at initialisation": 0, "in mid-training": 1, "after fitting": 60}
RELATIONS = tuple(relation.name for relation in COSINES)


def workload_of() -> MLPClassifier:
    """The training set as `train` splits it."""
    data = load("fashion-mnist", locate("fashion-mnist"))
    train, val = draw(data.train_labels, CONFIG.seed)
    return MLPClassifier(CONFIG, data, {"train": train, "val": val, "test": [], "probe": train})


def trained(workload: MLPClassifier) -> Iterator[tuple[str, MLP]]:
    """Yield the network at each of the stages."""
    model, last = workload.model(), 0
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    random = torch.Generator().manual_seed(0)
    ids = torch.tensor(workload.ids("train"))
    for stage, epochs in EPOCHS.items():
        for _ in range(epochs - last):
            for batch in workload.batches("train", batch_size=128, ids=ids[torch.randperm(len(ids), generator=random)]):
                optimizer.zero_grad()
                F.cross_entropy(model(batch.inputs), batch.targets).backward()
                optimizer.step()
        last = epochs
        yield stage, model


def covered(workload: MLPClassifier, model: MLP, probes: int) -> tuple[dict[str, list[bool | None]], dict[str, float]]:
    """Whether each probe's interval holds the value of all examples, None where it gives none; and these values."""
    sites = list(workload.sites(model))[:-1]
    initial = site_weights(workload, workload.model(), sites)
    measures = SiteMeasures(workload, sites, needed(RELATIONS), initial=initial, errors=True)

    def values(ids: list[int], sampling: Sampling) -> Mapping[str, float]:
        found: SiteMatrices = measures(model, workload.batches("train", batch_size=1024, ids=ids))
        return alignment(found, RELATIONS, AlignmentOptions(chance=False), sampling=sampling).scalars

    train = list(workload.ids("train"))
    exact = values(train, Sampling(len(train), len(train)))
    keys = [f"{site}/{name}" for site in sites for name in RELATIONS if f"{site}/{name}" in exact]
    found: dict[str, list[bool | None]] = {key: [] for key in keys}
    for seed in range(probes):
        ids = stratified_order(train, workload.data.train_labels, seed)[:PROBE]
        drawn = values(ids, sampling_of(workload, ids, len(train)))
        for key in keys:
            se = drawn.get(f"{key}_se")
            held = None if se is None else abs(drawn[f"{key}_unbiased"] - exact[key]) <= REACH * se
            found[key].append(held)
    return found, {key: exact[key] for key in keys}


def share(held: list[bool | None]) -> float | None:
    """The share of intervals that hold the value, of those that are given."""
    given = [one for one in held if one is not None]
    return sum(given) / len(given) if given else None


def main(probes: int) -> None:
    """Train, draw, compare and record."""
    workload = workload_of()
    results: dict[str, object] = {}
    for stage, model in trained(workload):
        found, _ = covered(workload, model, probes)
        shares = {key: share(held) for key, held in found.items()}
        often = [share(held) for held in found.values() if sum(one is not None for one in held) >= len(held) / 20]
        given = [value for value in often if value is not None]
        together = share([one for held in found.values() for one in held])
        results[f"{stage}, all intervals together"] = round(together or 0, 4)
        results[f"{stage}, mean of the relations"] = round(sum(given) / len(given), 4)
        results[f"{stage}, lowest and highest"] = f"{min(given):.3f} … {max(given):.3f}"
        print(stage, results[f"{stage}, lowest and highest"], flush=True)
        for key, held in found.items():
            absent = sum(one is None for one in held) / len(held)
            value = shares[key]
            results[f"{stage}, {key}"] = f"{'–' if value is None else f'{value:.3f}'}; none given {absent:.1%}"
    store(
        "coverage",
        f"Coverage of nominal 95 % intervals over {probes:,} probes of {PROBE}, Fashion-MNIST, 784-64×3-10",
        results,
        [
            "Relations that have a standard error in less than 5 % of the probes are left out of means and extremes, "
            "and listed with the others.",
            "An interval is the unbiased cosine ± 2 standard errors; the true value is that of all 48,000 examples.",
        ],
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else PROBES)
