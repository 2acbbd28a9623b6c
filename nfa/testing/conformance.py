"""Run every study on a workload, and compare it with slow references and with a training that is not watched."""

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
import torch.nn as nn
from torch import Tensor

from nfa.errors import Refusal
from nfa.reference.linear_twin import linear_twin
from nfa.testing import expected, inertness, measured
from nfa.testing.expected import Case, Twin, Values
from nfa.testing.measured import Precision
from nfa.testing.table import CheckRow, Conformance
from nfa.workload import Workload

EXPECTED = {"alignment": expected.alignment, "directions": expected.directions, "flow": expected.flow}
MEASURED = {"alignment": measured.alignment, "directions": measured.directions, "flow": measured.flow}
TOLERANCES: dict[Precision, float] = {"float64": 1e-9, "float32": 1e-5}
ROUNDINGS = 10  # relative to the largest gradient; a smaller one counts as 0, such as that of a bias before a softmax
EVERY = "alignment,directions,flow"


def check_workload(
    make: Callable[[], Workload], *, studies: str = EVERY, twin: Twin = linear_twin, examples: int = 6
) -> Conformance:
    """Run studies on a workload, compare them with slow references, print a table and return it.

    Values are compared in float64 and, if the weights are of that type, in float32. Every study must leave parameters,
    buffers, modes, `.grad`, hooks and random number generators bitwise unchanged, and therefore also the weights after
    some steps of training. A difference, or a study that refuses the model, raises nothing: see `Conformance.ok`.

    Args:
        make: A function that returns the same untrained workload at every call.
        studies: Comma-separated names of studies: alignment, directions, flow.
        twin: A function that turns a model into the same function made of nn.Linear only
            (nfa/reference/linear_twin.py); a site is looked up under the path that `twin_sites` gives.
        examples: How many examples of the probe are used.

    Returns:
        The table, one row for each quantity of a study.

    Raises:
        Refusal: A study does not exist.
    """
    chosen = [name.strip() for name in studies.split(",")]
    if unknown := [name for name in chosen if name not in EXPECTED]:
        raise Refusal(f"studies={unknown[0]}", EVERY, "leave it out")
    workload = make()
    start = copy.deepcopy(workload.model())
    ids = list(workload.ids("probe"))[:examples]
    unwatched = inertness.trained(workload, start, ids)
    case = Case(workload, start, unwatched.model, ids, twin)
    checks = {name: _Check(name, case, unwatched) for name in chosen}
    result = _conformance([row for check in checks.values() for row in check.rows()], checks.get("alignment"))
    print(result)
    return result


class _Check:
    """One study on one workload."""

    def __init__(self, study: str, case: Case, unwatched: inertness.TrainedModel) -> None:
        self.study, self.case, self.unwatched = study, case, unwatched
        self.right = EXPECTED[study](case)
        self.found: Values = {}

    def rows(self) -> list[CheckRow]:
        """Return the rows for values in every precision, and for whether anything is disturbed."""
        types = {weight.dtype for weight in self.case.start.parameters()}
        precisions: list[Precision] = ["float64", "float32"] if types == {torch.float32} else ["float64"]
        return [row for precision in precisions for row in self._values(precision)] + self._inert()

    def _values(self, precision: Precision) -> list[CheckRow]:
        tolerance = TOLERANCES[precision]
        try:
            self.found = MEASURED[self.study](self.case, precision)
        except Exception as error:
            return [CheckRow(self.study, "everything", precision, 0, math.inf, tolerance, _said(error))]
        return [
            _row(CheckRow(self.study, quantity, precision, 0, 0, tolerance), self._seen(right), self._known(quantity))
            for quantity, right in self.right.items()
        ]

    def _seen(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Drop the sites that the study does not see."""
        every = self.found.get("nfm", values)
        return {name: value for name, value in values.items() if _site(name) in every}

    def _known(self, quantity: str) -> dict[str, Tensor]:
        """Return what was found, without the sites that the reference does not know."""
        every = self.right.get("nfm", self.right[quantity])
        return {name: value for name, value in self.found[quantity].items() if _site(name) in every}

    def _inert(self) -> list[CheckRow]:
        """Run the study on a model in training mode with gradients, and before every step of a training."""
        model = copy.deepcopy(self.case.model).train()
        for place, weight in enumerate(model.parameters()):
            weight.grad = torch.full_like(weight, float(place)) if weight.requires_grad else None
        before = inertness.state(model)
        self._watch(model)
        after = inertness.state(model)
        watched = inertness.trained(self.case.workload, self.case.start, self.case.ids, self._watch)
        return [
            self._bitwise("state left as it was", before, after),
            self._bitwise("training as without it", self.unwatched.state, watched.state),
        ]

    def _watch(self, model: nn.Module) -> None:
        try:
            MEASURED[self.study](replace(self.case, model=model), "float32")
        except Exception:
            return  # another row reports the error; here only its side effects count

    def _bitwise(self, quantity: str, before: inertness.State, after: inertness.State) -> CheckRow:
        changed = inertness.differing(before, after)
        return CheckRow(self.study, quantity, "bitwise", len(before), float(len(changed)), 0, ", ".join(changed[:3]))


def _site(name: str) -> str:
    """Return the site of a quantity: a matrix has the site's name, and a relation has it before its last slash."""
    return name.rpartition("/")[0] or name


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _row(row: CheckRow, right: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> CheckRow:
    """Compare the values of a quantity; a value that exists on one side only is infinitely far off."""
    negligible = _negligible(row, right)
    differences = {name: _difference(row.quantity, right[name], found.get(name), negligible) for name in right}
    differences |= {name: math.inf for name in found if name not in right}
    worst = max(differences, key=lambda name: differences[name], default="")
    return replace(row, compared=len(differences), difference=differences.get(worst, 0.0), note=worst)


def _difference(quantity: str, right: Tensor, found: Tensor | None, negligible: float) -> float:
    """Return ‖found − right‖ / ‖right‖; for a cosine, return the difference itself."""
    if found is None or found.shape != right.shape:
        return math.inf
    size = 1.0 if quantity == "cosines" else max(float(right.norm()), negligible)
    apart = float((found.double() - right).norm())
    relative = apart / size if apart else 0.0
    return relative if math.isfinite(relative) else math.inf


def _negligible(row: CheckRow, right: Mapping[str, Tensor]) -> float:
    """Return the size below which a gradient is rounding, so that it is compared with this size and not with itself."""
    linear = row.study == "flow"
    rounding = ROUNDINGS * torch.finfo(getattr(torch, row.precision)).eps
    largest = max((float(value.norm()) for value in right.values()), default=0.0)
    return largest * (rounding if linear else rounding**2) / row.tolerance


def _conformance(rows: list[CheckRow], alignment: "_Check | None") -> Conformance:
    known, seen = (
        (set(), set()) if alignment is None else (set(alignment.right["nfm"]), set(alignment.found.get("nfm", {})))
    )
    return Conformance(rows, sorted(known & seen), sorted(known - seen), sorted(seen - known))
