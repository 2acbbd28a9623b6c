"""Sums of the parts of one parameter's per-example gradients."""

from collections.abc import Sequence

import torch

from nfa.maths.example_gradients import Dense, GradientFactors, Part
from nfa.maths.image_gradients import ImageFactors
from nfa.maths.lookup_gradients import Rows


def add_part(parts: list[Part], part: Part) -> None:
    """Append a part to a sum of parts, in place.

    Two dense parts in a row are added at once, because many of them would take much memory.

    Args:
        parts: The parts so far.
        part: The part to add.
    """
    last = parts[-1] if parts else None
    if isinstance(part, Dense) and isinstance(last, Dense):
        parts[-1] = Dense(last.values + part.values)
    else:
        parts.append(part)


def joined(parts: Sequence[Part]) -> list[Part]:
    """Merge the parts of a sum: parts of one form are concatenated along s, or added if they are dense.

    Args:
        parts: The parts of one parameter's gradients.

    Returns:
        Fewer parts with the same sum.
    """
    if len(parts) == 1:
        return [*parts]
    factors: dict[torch.Size, list[GradientFactors]] = {}
    for part in parts:
        one = part.factors() if isinstance(part, ImageFactors) else part
        if isinstance(one, GradientFactors):
            factors.setdefault(one.left.shape[2:], []).append(one)
    rows = [part for part in parts if isinstance(part, Rows)]
    dense = [part.values for part in parts if isinstance(part, Dense)]
    found: list[Part] = []
    for alike in factors.values():
        left, right = (torch.cat(sides, dim=1) for sides in zip(*((f.left, f.right) for f in alike), strict=True))
        found.append(GradientFactors(left, right))
    if rows:
        index, values = (torch.cat(sides, dim=1) for sides in zip(*((r.index, r.values) for r in rows), strict=True))
        found.append(Rows(index, values, rows[0].rows))
    return [*found, Dense(torch.stack(dense).sum(dim=0))] if dense else found


def summed(parts: Sequence[Part]) -> Part:
    """Return the sum of some parts as one part.

    Args:
        parts: At least one part.

    Returns:
        The only part as it is, or the sum written out.
    """
    return parts[0] if len(parts) == 1 else Dense(torch.stack([part.dense().values for part in parts]).sum(dim=0))
