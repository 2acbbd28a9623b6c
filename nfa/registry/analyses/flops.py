"""Floating-point operations of analyses, counted on a few examples.

A few examples are measured once more, with a copy of the model, while a `Tally` counts. From several such trials follow
the operations of each batch, example and pair of examples, and thus those of a whole analysis. (A `Tally` around the
analysis itself would be simpler, but PyTorch takes other ways through some operations while one is there.)
"""

import copy
import dataclasses
import warnings
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from functools import partial
from typing import TypeVar

import numpy as np
import torch
import torch.nn as nn
from torch import Tensor

from nfa.analyses.alignment import Analysis
from nfa.analyses.gradient_directions import GradientAnalysis
from nfa.analyses.gradient_flow import FlowAnalysis
from nfa.console import muted
from nfa.maths.congruence import Congruence
from nfa.maths.replicates import Replicates
from nfa.maths.standard_errors import Matrix
from nfa.measures.evaluation import record_outputs
from nfa.measures.site_matrices import SiteMatrices
from nfa.observe.inertness import copied
from nfa.parallel import World
from nfa.registry.training.flops import Tally
from nfa.seeding import untouched
from nfa.studies.alignment import alignment
from nfa.workload import Batch, Workload

TRIALS = ((4, 4), (8, 8), (4, 8), (12, 12))  # examples at a time, and in all; one trial more than there are unknowns
GRAMS = (*TRIALS, (4, 12))  # of Gram matrices, which also take pairs of examples, multiplied in two ways
OF_ROWS = ("h", "out_g", "out_h")  # of few examples, rows stand for the matrix
Found = TypeVar("Found")
Work = tuple[int, ...]  # how often each thing is done that takes the same operations every time


def alignment_flops(analysis: Analysis, model: nn.Module) -> tuple[float, float] | None:
    """Return the operations of one checkpoint, and of a further one, for which matrices that are fixed are known.

    Chance levels, shared-weights levels and standard errors are not counted, and relations as if they were defined.

    Args:
        analysis: The analysis.
        model: The model at any checkpoint.

    Returns:
        The operations in all processes together; None if they cannot be counted.
    """
    return _if_countable(partial(_of_alignment, analysis), analysis, model)


def _of_alignment(analysis: Analysis, twin: nn.Module) -> tuple[float, float]:
    initial = {name: torch.zeros_like(weight) for name, weight in analysis.measures.initial.items()}
    measures = dataclasses.replace(analysis.measures, world=World(), errors=False, initial=initial)
    trials: dict[Work, int] = {}
    for size, n in TRIALS:
        measures.forget()
        measures.share = Fraction(n, len(analysis.ids))
        work = partial(measures, twin, _batches(analysis.workload, analysis.ids, size, n))
        trials[_passes(n, size)], found = _tallied(work)
    if set(found) < set(analysis.sites):
        raise ValueError("a site that few examples do not reach")
    again, _ = _tallied(work)  # matrices of fixed inputs are known now, which saves so much for each example
    saved = (trials[_passes(n, size)] - again) / n * len(analysis.ids)
    first = extrapolated(trials, _shared_work(analysis)) + _flops_of_relations(analysis, found)
    return first, first - saved


def _flops_of_relations(analysis: Analysis, found: SiteMatrices) -> int:
    """Return the operations of the values, without what stands beside them."""
    compared = {
        site: {name: _value(matrix, analysis, name) for name, matrix in of_site.items()}
        for site, of_site in found.items()
    }
    options = dataclasses.replace(analysis.options, chance=False, unbiased=False)
    return _tallied(partial(alignment, compared, analysis.relations, options, analysis.known))[0]


def _shared_work(analysis: Analysis) -> Work:
    """Return the work of all processes together."""
    worlds = [World(rank, analysis.world.size) for rank in range(analysis.world.size)]
    parts = [_passes(len(world.shard(analysis.ids)), analysis.batch_size) for world in worlds]
    return tuple(map(sum, zip(*parts, strict=True)))


def _value(matrix: Matrix, analysis: Analysis, name: str) -> Matrix:
    """Return a matrix without stored examples, from which only standard errors follow, and with rows of all examples.
    """
    if isinstance(matrix, Replicates):
        return dataclasses.replace(matrix, sample=matrix.sample[:0], numbers=None)
    if name not in OF_ROWS or not isinstance(matrix, Congruence) or matrix.core is not None or matrix.factor is None:
        return matrix
    few, missing = TRIALS[-1][1], len(analysis.ids) - TRIALS[-1][1]
    more = matrix.factor[torch.arange(len(matrix.factor) // few * missing) % len(matrix.factor)]
    return Congruence(torch.cat([matrix.factor, more]), None)


def directions_flops(analysis: GradientAnalysis, model: nn.Module) -> float | None:
    """Return the operations of the losses and of the Gram matrix that was computed last, without its statistics.

    Args:
        analysis: The analysis.
        model: The model at any checkpoint.

    Returns:
        The operations; None if they cannot be counted.
    """
    workload, ids = analysis.workload, analysis.ids

    def losses(outputs: Tensor, batch: Batch) -> None:
        workload.losses(outputs, batch)

    def count(twin: nn.Module) -> float:
        evaluations: dict[Work, int] = {}
        grams: dict[Work, int] = {}
        for size, n in GRAMS:
            batches, gram = _batches(workload, ids, size, n), analysis.gram.trial(n, size)
            evaluations[_passes(n, size)], _ = _tallied(partial(record_outputs, twin, workload, batches, losses))
            flops, _ = _tallied(partial(gram, twin))
            grams[gram.work] = flops  # what it has taken
        evaluation = extrapolated(evaluations, _passes(len(ids), workload.examples_at_once))
        return evaluation + extrapolated(grams, analysis.gram.work)

    return _if_countable(count, analysis, model)


def flow_flops(analysis: FlowAnalysis, model: nn.Module) -> float | None:
    """Return the operations of a checkpoint.

    Args:
        analysis: The analysis.
        model: The model at any checkpoint.

    Returns:
        The operations; None if they cannot be counted.
    """

    def count(twin: nn.Module) -> float:
        trial = copy.copy(analysis)
        trials: dict[Work, int] = {}
        for size, n in TRIALS:
            trial.ids, trial.batch_size = analysis.ids[:n], size
            trials[_passes(n, size)] = _tallied(partial(trial, twin))[0]
        return extrapolated(trials, _passes(len(analysis.ids), analysis.batch_size))

    return _if_countable(count, analysis, model)


def extrapolated(trials: Mapping[Work, float], work: Work) -> float:
    """Return the operations of `work`; ValueError if those of the trials are not linear in their work.

    >>> extrapolated({(1, 4): 14, (1, 8): 18, (1, 12): 22}, (1, 100))
    110.0
    """
    works, flops = np.array([*trials], dtype=np.float64), np.array([*trials.values()], dtype=np.float64)
    each = np.linalg.lstsq(works, flops, rcond=None)[0]
    if not np.allclose(works @ each, flops, rtol=1e-10, atol=0.1):
        raise ValueError("operations that do not grow linearly")
    return float(round(float(each @ np.array(work))))


def _passes(examples: int, size: int) -> Work:
    """Return the work of passes over batches: what is done once, the batches, and the examples."""
    return 1, -(-examples // size), examples


def _batches(workload: Workload, ids: Sequence[int], size: int, n: int) -> list[Batch]:
    """Return the batches of a trial."""
    return list(workload.batches("train", batch_size=size, ids=ids[:n]))


def _tallied(work: Callable[[], Found]) -> tuple[int, Found]:
    """Return the operations of `work`, and its result; ValueError where an operation has no formula."""
    with Tally() as tally:
        found = work()
    if tally.unknown:
        raise ValueError(f"no formula for {', '.join(sorted(tally.unknown))}")
    return tally.flops, found


def _if_countable(
    count: Callable[[nn.Module], Found], analysis: Analysis | GradientAnalysis | FlowAnalysis, model: nn.Module
) -> Found | None:
    """Return what is counted with a copy of the model; None if that fails, and for examples of different lengths."""
    try:
        with untouched(), muted(), warnings.catch_warnings(action="ignore"):
            most = max(n for _, n in TRIALS)
            few = _batches(analysis.workload, analysis.ids, most, most)[0]
            return count(copied(model)) if len(few) == most and few.present is None else None
    except Exception:  # a model may do anything while it is copied, counted, or given few examples
        return None
