"""An order of examples whose first n, for every n, hold the classes in their proportions."""

import numpy as np
import numpy.typing as npt
import torch

from nfa.seeding import generator

Labels = npt.NDArray[np.int64]


def stratified_order(ids: list[int], labels: Labels, seed: int) -> list[int]:
    """Order examples so that the first n hold the classes in their proportions, for every n.

    Example j of a class with m examples is placed at (j + u)/m on a line, with one random offset u per class.

    Args:
        ids: The ids of the examples.
        labels: The class of every example of the dataset, indexed by id.
        seed: The seed of the order.

    Returns:
        The ids in order.
    """
    shuffle = generator(seed, "probe")
    by_class: dict[int, list[int]] = {}
    for position in torch.randperm(len(ids), generator=shuffle).tolist():
        by_class.setdefault(int(labels[ids[position]]), []).append(ids[position])
    places = []
    for _, members in sorted(by_class.items()):
        offset = torch.rand((), generator=shuffle).item()
        places += [((index + offset) / len(members), example) for index, example in enumerate(members)]
    return [example for _, example in sorted(places)]
