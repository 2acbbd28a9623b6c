"""Examples in an order of which every beginning holds the classes in their shares."""

import numpy as np
import numpy.typing as npt
import torch

from nfa.seeding import generator

Labels = npt.NDArray[np.int64]


def stratified_order(ids: list[int], labels: Labels, seed: int) -> list[int]:
    """All of `ids`, so ordered that the first n hold the classes in their shares, for every n.

    Example j of a class with m examples stands at (j + u)/m on a line, u its class's own draw.
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
