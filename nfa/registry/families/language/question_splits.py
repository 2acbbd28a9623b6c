"""Which questions a run trains on and which it validates on, decided once from the seed."""

from collections.abc import Sequence

import torch

from nfa.errors import Refusal
from nfa.seeding import generator


def split(n: int, train_items: int | None, excluded: Sequence[int], seed: int) -> dict[str, list[int]]:
    """The content of a run's example_ids.json for n items: "train" and "val" sorted, "test" empty, "probe".

    The first `train_items` are for training and the others for validation; with None a tenth of them all is drawn for
    validation, rounded down, at least 1 and at most half. Items in `excluded` are nowhere; leaving one out changes the
    draw of at most one other. "probe" is the training items in an order drawn by the seed. `Refusal` where nothing is
    left to train on or to validate on.
    """
    left_out = set(excluded)
    if train_items is None:
        order = torch.randperm(n, generator=generator(seed, "split")).tolist()
        kept = [item for item in order if item not in left_out]
        size = min(max(1, len(kept) // 10), len(kept) // 2)
        val, train = sorted(kept[:size]), sorted(kept[size:])
    else:
        train, val = (
            [item for item in part if item not in left_out] for part in (range(train_items), range(train_items, n))
        )
    if not train or not val:
        raise Refusal(
            f"{n} items, {len(left_out)} of them too long, empty or beyond max_items: {len(train)} to train on, "
            f"{len(val)} to validate on",
            "at least one of each",
            "more items, or a larger max_length or max_items",
        )
    places = torch.randperm(len(train), generator=generator(seed, "probe")).tolist()
    return {"train": train, "val": val, "test": [], "probe": [train[place] for place in places]}
