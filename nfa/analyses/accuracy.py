"""How many examples an accuracy needs: one number for all checkpoints, doubled until every standard error is small."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from nfa.relations import RELATIONS

FEWEST = 256  # examples of the first prefix

Values = Mapping[str, float]  # by metric key


@dataclass(frozen=True)
class Widest:
    """The relation with the largest standard error; infinite where a few examples decide, so that there is none."""

    se: float
    key: str
    step: int


@dataclass(frozen=True)
class Chosen:
    """What a search has found: the number of examples, the values by step, and whether the accuracy is reached."""

    examples: int
    values: Mapping[int, Values]
    reached: bool
    widest: Widest


def search(
    measure: Callable[[int, int, int], tuple[Values, Values]],
    steps: Sequence[int],
    *,
    target: float,
    most: int,
    population: int | None,
) -> Chosen:
    """Double the number of examples, from 256, until no standard error exceeds the target twice in a row.

    As soon as a checkpoint exceeds it, the next number is tried, with this checkpoint first.

    Args:
        measure: A function of step, smaller and larger number of examples that returns the values of both prefixes.
        steps: The steps of all checkpoints.
        target: The largest standard error that is allowed.
        most: The largest number of examples.
        population: The size of the training set, of which a complete measurement has no sampling error.

    Returns:
        The number of examples, and what was measured with it.
    """
    order, before, now = list(steps), min(FEWEST, max(1, most // 2)), min(2 * FEWEST, most)
    while True:
        found: dict[int, Values] = {}
        widest, reached = Widest(0.0, "", order[0]), True
        for step in order:
            first, found[step] = measure(step, before, now)
            last = widest_of(found[step], step, complete=now == population)
            widest = max(widest, last, key=lambda one: one.se)
            reached = reached and last.se <= target and (now == population or widest_of(first, step).se <= target)
            if not reached and now < most:
                order = [step, *(one for one in order if one != step)]
                break
        else:
            return Chosen(now, {step: found[step] for step in steps}, reached, widest)
        before, now = now, min(2 * now, most)


def widest_of(values: Values, step: int, *, complete: bool = False) -> Widest:
    """Return the largest standard error of a checkpoint's cosines and stable ranks.

    Args:
        values: The values by metric key.
        step: The step.
        complete: Whether all training examples were measured, so that only random directions leave an error.

    Returns:
        The standard error, with the key of the relation.
    """
    found = [
        Widest(values.get(f"{key}_se", 0.0 if complete else math.inf), key, step)
        for key in values
        if key.rpartition("/")[2] in ESTIMATED
    ]
    return max(found, key=lambda one: one.se, default=Widest(0.0, "", step))


ESTIMATED = frozenset(
    name
    for name, relation in RELATIONS.items()
    if relation.kind == "cosine"
    or (relation.kind == "stable rank" and relation.matrices[0] not in ("nfm", "nfm_init_removed", "out_m"))
)
