"""The examples that a run uses: drawn once from the seed, and from then on read from the run."""

import math

import numpy as np
import numpy.typing as npt
import torch

from nfa.registry.datasets.image_sizes import train_size
from nfa.seeding import generator
from nfa.workloads.stratified import stratified_order

Labels = npt.NDArray[np.int64]


def decide(
    train_labels: Labels, test_labels: Labels, *, seed: int, label_noise: float, classes: int
) -> dict[str, list[int]]:
    """Return the content of a run's example_ids.json: indices into the dataset's published order.

    The keys are "train", "val", "test" and "probe" (the training examples in class-stratified order); with label noise
    also "noisy" and "noisy_labels", the examples whose labels were changed and their new labels.
    """
    train, val = draw(train_labels, seed)
    changed = change_labels(train_labels, train, label_noise, classes, seed)
    labels = train_labels.copy()
    labels[list(changed)] = list(changed.values())
    ids = {"train": train, "val": val, "test": list(range(len(test_labels)))}
    ids["probe"] = stratified_order(train, labels, seed)
    return {**ids, "noisy": list(changed), "noisy_labels": list(changed.values())} if label_noise else ids


def draw(labels: Labels, seed: int) -> tuple[list[int], list[int]]:
    """Split the published training examples: return ⌊0.8·n⌋ training ids and the validation ids, each sorted."""
    order = torch.randperm(len(labels), generator=generator(seed, "split")).tolist()
    size = train_size(len(labels))
    return sorted(order[:size]), sorted(order[size:])


def change_labels(labels: Labels, ids: list[int], share: float, classes: int, seed: int) -> dict[int, int]:
    """Return new labels for ⌊share·n⌋ of the n `ids`, each drawn uniformly from the other classes."""
    random = generator(seed, "label_noise")
    count = math.floor(round(share * len(ids), 6))  # because 0.29 · 100 is 28.999…
    changed = sorted(ids[position] for position in torch.randperm(len(ids), generator=random)[:count].tolist())
    shifts = torch.randint(1, classes, (count,), generator=random).tolist()
    return {example: (int(labels[example]) + shift) % classes for example, shift in zip(changed, shifts, strict=True)}
