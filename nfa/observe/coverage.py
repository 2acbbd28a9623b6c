"""How much of a model is watched, in one line."""

from collections.abc import Collection, Iterable

import torch.nn as nn

SHOWN = 4  # the number of names that are listed


def coverage(model: nn.Module, watched: Collection[str], seen: Collection[str] = ()) -> str:
    """Return the share of a model's weights that belong to the parameters `watched`, and name the layers that do not.

    These are layers that could be chosen, such as the readout, and layers that no study can observe.

    >>> network = nn.Sequential(nn.Linear(3, 2), nn.LayerNorm(2), nn.Linear(2, 1, bias=False))
    >>> coverage(network, {"0.weight", "0.bias"}, {"2.weight"})
    "watching 8 of 14 weights (57 %); not chosen: '2'; not seen: '1'"
    """
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    total, found = sum(sizes.values()), sum(size for name, size in sizes.items() if name in watched)
    share = 100 * found / max(1, total)
    share = share if found in (0, total) else min(99, max(1, share))  # only all is 100 %, and only nothing is 0 %
    known = {_layer(name) for name in sizes if name in watched or name in seen}
    others = [name for name in sizes if name not in watched]
    not_chosen = _some("not chosen", (_layer(name) for name in others if name in seen))
    unseen = (name if _layer(name) in known else _layer(name) for name in others if name not in seen)
    return f"watching {found:,} of {total:,} weights ({share:.0f} %){not_chosen}{_some('not seen', unseen)}"


def _layer(name: str) -> str:
    return name.removesuffix(".weight").removesuffix(".bias")


def _some(what: str, names: Iterable[str]) -> str:
    """List the first few names, each once; return an empty text for none."""
    found = list(dict.fromkeys(names))
    more = len(found) - SHOWN
    named = ", ".join(map(repr, found[:SHOWN]))  # quoted: the name of a layer may be a number
    return f"; {what}: {named}{f' and {more} more' if more > 0 else ''}" if found else ""
