"""What the studies find when they are called in the ordinary way."""

import copy
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import torch
import torch.nn as nn
from torch import Tensor

from nfa.analyses.alignment import Analysis
from nfa.analyses.parameters import AlignmentParameters
from nfa.maths.congruence import Congruence
from nfa.measures.gradient_gram import GradientGram, choose_parameters
from nfa.measures.mean_gradient import mean_gradient
from nfa.observe.passes import site_weights
from nfa.relations import MATRICES
from nfa.studies.alignment import AlignmentOptions
from nfa.studies.alignment import alignment as related
from nfa.testing.expected import RELATIONS, Case, Values
from nfa.workload import Batch, Workload

Precision = Literal["float32", "float64"]
AT_ONCE = 4  # examples per batch; the last batch is smaller


def analysis(case: Case, precision: Precision) -> Analysis:
    """Return an analysis of every relation at every site, with every output differentiated.

    Args:
        case: The workload with its models and examples.
        precision: "float32" or "float64".

    Returns:
        The analysis.
    """
    workload, start = _in(precision, case.workload, case.start)
    return Analysis(
        case.workload,
        case.model,
        AlignmentParameters(
            relations="all",
            sites="*",
            directions="all",
            precision=precision,
            max_samples=len(case.ids),
            batch_size=AT_ONCE,
            top_k=1,
            chance=False,
        ),
        lambda names, sites: site_weights(workload, start, names, sites),
    )


def alignment(case: Case, precision: Precision) -> Values:
    """Return matrices and relations by site.

    Args:
        case: The workload with its models and examples.
        precision: "float32" or "float64".

    Returns:
        The values by quantity and site.
    """
    made = analysis(case, precision)
    measured = made.measures(case.model, case.workload.batches("train", batch_size=AT_ONCE, ids=case.ids))
    found: Values = {name: {} for name in (*MATRICES, *RELATIONS)}
    for site, matrices in measured.items():
        for name, matrix in matrices.items():
            assert isinstance(matrix, Congruence)  # of all directions
            found[name][site] = matrix.double().dense()
    for kind, relations in RELATIONS.items():
        values = related(measured, list(relations), AlignmentOptions(chance=False)).scalars
        found[kind] = {key: torch.tensor(value, dtype=torch.float64) for key, value in values.items()}
    return found


def directions(case: Case, precision: Precision) -> Values:
    """Return Gram matrices of per-example gradients, over all parameters together and over each.

    Args:
        case: The workload with its models and examples.
        precision: "float32" or "float64".

    Returns:
        The values by quantity and parameter.
    """
    workload, model = _in(precision, case.workload, case.model)
    names = choose_parameters(workload, model)
    each = {name: _gram(workload, model, case.ids, [name]) for name in names}
    return {"gradient Gram": {"all": _gram(workload, model, case.ids, names)}, "gradient Gram by parameter": each}


def _gram(workload: Workload, model: nn.Module, ids: Sequence[int], names: Sequence[str]) -> Tensor:
    return GradientGram(workload, ids, names)(model)


def flow(case: Case, precision: Precision) -> Values:
    """Return the gradient of the mean loss by parameter.

    Args:
        case: The workload with its models and examples.
        precision: "float32" or "float64".

    Returns:
        The values by quantity and parameter.
    """
    workload, model = _in(precision, case.workload, case.model)
    batches = workload.batches("train", batch_size=AT_ONCE, ids=case.ids)
    return {"mean gradient": mean_gradient(workload, model, batches)}


def _in(precision: Precision, workload: Workload, model: nn.Module) -> tuple[Any, nn.Module]:
    if precision == "float32":
        return workload, model
    return _Doubled(workload), copy.deepcopy(model).double()


class _Doubled:
    """A workload whose examples are in float64."""

    def __init__(self, workload: Workload) -> None:
        self.workload = workload

    def batches(self, split: str, **options: Any) -> Iterator[Batch]:
        return (batch.double() for batch in self.workload.batches(split, **options))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.workload, name)
