"""What is measured and trained on a device, against the same on the processor."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn as nn
from torch import Tensor
from torch.utils.data import TensorDataset

import nfa
from benchmarks.device.accelerator import NO_TIME, Accelerator, Clock, Missing
from benchmarks.device.plan import Plan
from benchmarks.networks import Case, losses
from nfa.maths.float32_products import full_float32
from nfa.maths.standard_errors import mean_of
from nfa.measures.gradient_gram import GradientGram, choose_parameters
from nfa.measures.site_matrices import Conventions, SiteMeasures, chosen_sites
from nfa.observe.door import few_of, find_sites
from nfa.observe.passes import Precision
from nfa.registry.training.loop import Training
from nfa.registry.training.optimizer_parameters import OptimizerParameters
from nfa.registry.training.optimizer_table import OPTIMIZERS
from nfa.registry.training.optimizers import Group, Optimizers, build
from nfa.relations import needed
from nfa.studies.alignment import alignment
from nfa.workloads.probe import Probe

RELATIONS_OF_ANY_POINT = ("agop_nfm", "g_vs_h", "g_vs_m", "h_vs_m")  # they need no initial weights
SHOWN = {"agop": "AGOP", "g": "G", "h": "H"}
STEPS = 3
PROCESSOR = torch.device("cpu")
DTYPES = {"float64": torch.float64, "float32": torch.float32}
ALLOWED: Mapping[str, float] = {"float64": 1e-9, "float32": 1e-5, "bfloat16": 2e-2}
# Adam divides by the size of a gradient, and Muon by singular values, so that those which are rounding errors alone, as
# of the biases of keys, count as much as the others.
ALLOWED_OF_STEPS: Mapping[str, Mapping[str, float]] = {
    "sgd": {"float64": 1e-9, "float32": 1e-4},
    "adam": {"float64": 1e-7, "float32": 1e-2},
    "muon": {"float32": 1e-2, "bfloat16": 0.5},
}
Values = Mapping[str, Tensor]  # float64 on the processor, by what they are


@dataclass(frozen=True)
class Difference:
    """How far values on a device are from those on the processor, in the same precision and in float64.

    Attributes:
        same: The largest relative difference from the same precision; of cosines, the largest difference.
        exact: The same from float64.
        allowed: What both may be at most.
    """

    same: float
    exact: float
    allowed: float

    @property
    def ok(self) -> bool:
        """Whether both are allowed; NaN is not."""
        return self.same <= self.allowed and self.exact <= self.allowed

    def __str__(self) -> str:
        found = f"{self.same:.1e}, from float64 {self.exact:.1e}; allowed {self.allowed:.0e}"
        return found if self.ok else f"{found}: TOO LARGE"


def differences(plan: Plan, accelerator: Accelerator, clock: Clock) -> Iterator[tuple[str, Difference | Missing]]:
    """Yield every comparison by what was compared, as long as there is time."""
    for name, case in plan.values.items():
        if clock.left() <= 0:
            yield f"values of {name}", NO_TIME
            continue
        for kind, measure, allowed in KINDS:
            exact = measure(case, plan.examples, PROCESSOR, "float64")
            for precision in allowed:
                found = accelerator.attempt(partial(measure, case, plan.examples, accelerator.device, precision))
                if isinstance(found, Missing):
                    yield f"values of {name}{kind}, {precision}", found
                    continue
                same = measure(case, plan.examples, PROCESSOR, precision)
                for key, difference in compared(found, same, exact, allowed[precision]):
                    yield f"{name}, {key}{kind}, {precision}: difference", difference


def compared(found: Values, same: Values, exact: Values, allowed: float) -> Iterator[tuple[str, Difference]]:
    """Yield the differences of what was found on a device, by what it is."""
    for key in dict.fromkeys(name.partition("/")[0] for name in found):
        names = [name for name in found if name.partition("/")[0] == key]
        own, exactly = (max(_apart(key, found[name], other[name]) for name in names) for other in (same, exact))
        yield key, Difference(own, exactly, allowed)


def _apart(key: str, found: Tensor, other: Tensor) -> float:
    """Return the relative difference in the Frobenius norm; of cosines, the largest difference."""
    if key == "cosines":
        return float((found - other).abs().max())
    return float((found - other).norm() / other.norm())


def _probe(case: Case, examples: int, device: torch.device, dtype: torch.dtype) -> tuple[Probe, nn.Module]:
    model, (inputs, targets) = case.build(examples)
    model = model.to(device, dtype)
    return Probe(model, losses, inputs.to(dtype), targets), model


def matrices(case: Case, examples: int, device: torch.device, precision: str) -> Values:
    """AGOP, G, H of all sites, and the cosines of their relations."""
    probe, model = _probe(case, examples, device, torch.float32)
    found = find_sites(model, probe, few_of(probe))
    sites = chosen_sites(probe, model, found)
    conventions = Conventions(precision=_precision(precision))
    measures = SiteMeasures(probe, sites, needed(RELATIONS_OF_ANY_POINT), conventions, found=found)
    measured = measures(model, probe.batches("train", batch_size=examples))
    dense = {
        f"{SHOWN[name]}/{site}": _plain(mean_of(matrix).double().dense())
        for site, of_site in measured.items()
        for name, matrix in of_site.items()
        if name in SHOWN
    }
    cosines = list(alignment(measured, RELATIONS_OF_ANY_POINT).scalars.values())
    return {**dense, "cosines": torch.tensor(cosines, dtype=torch.float64)}


def _precision(name: str) -> Precision:
    known: dict[str, Precision] = {"float64": "float64", "float32": "float32", "bfloat16": "bfloat16"}
    return known[name]


def _plain(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().double()


def gram(case: Case, examples: int, device: torch.device, precision: str) -> Values:
    """The Gram matrix of per-example gradients."""
    probe, model = _probe(case, examples, device, DTYPES[precision])
    return {"Gram matrix": _plain(GradientGram(probe, probe.ids("train"), choose_parameters(probe, model))(model))}


def steps(optimizer: str) -> Callable[[Case, int, torch.device, str], Values]:
    """Return what trains a network for three steps and returns how far its weights have moved."""

    def trained(case: Case, examples: int, device: torch.device, precision: str) -> Values:
        dtype = DTYPES.get(precision, torch.float32)
        model, (inputs, targets) = case.build(examples)
        data = TensorDataset(inputs.to(dtype), targets)
        made = lambda: case.build(1)[0].to(dtype)  # noqa: E731
        workload = nfa.Supervised(model=made, loss=losses, train=data, val=data, device=device)
        moved = workload.model()
        optimizers = _optimizers(optimizer, moved, precision)
        training = Training(workload, moved, optimizers, batch_size=examples, seed=0, count_flops=False)
        with full_float32():  # a training keeps PyTorch's settings, and convolutions are rounded to TF32 by default
            training.run(STEPS, lambda _: None)
        pairs = zip(moved.parameters(), model.parameters(), strict=True)
        return {"weights": torch.cat([(_plain(after) - _plain(before)).flatten() for after, before in pairs])}

    return trained


def _optimizers(name: str, model: nn.Module, precision: str) -> Optimizers:
    """Return an optimizer with its own defaults; Muon iterates in the precision that is compared, or in float32."""
    entry = OPTIMIZERS[name]
    inside = "bfloat16" if precision == "bfloat16" else "float32"
    asked = OptimizerParameters(
        optimizer=name,
        lr=entry.lr,
        momentum="auto" if entry.momentum is None else entry.momentum,
        optimizer_args=f"precision={inside}" if entry.companion else "",
    )
    weights = list(model.parameters())
    hidden, others = ([one for one in weights if (one.ndim == 2) == matrix] for matrix in (True, False))
    return build(asked, [Group(hidden, others)])


Measure = Callable[[Case, int, torch.device, str], Values]
KINDS: list[tuple[str, Measure, Mapping[str, float]]] = [
    ("", matrices, ALLOWED),
    ("", gram, {precision: ALLOWED[precision] for precision in DTYPES}),
    *((f" after {STEPS} steps of {name}", steps(name), allowed) for name, allowed in ALLOWED_OF_STEPS.items()),
]
