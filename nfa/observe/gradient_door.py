"""The check of per-example gradients: what rules return is compared with autograd before it is used.

A parameter's gradients are computed by torch.func if a use of it was not recorded or cannot be read, or if a random
combination of them differs from autograd.
"""

from collections.abc import Hashable, Iterable, Iterator

import torch
from torch import Tensor

from nfa.errors import Refusal
from nfa.maths.example_gradients import Part
from nfa.observe.example_axis import axis
from nfa.observe.gradient_reading import Gradients, Reader, Reading, Uses
from nfa.observe.layouts import Axis
from nfa.observe.moved import expect_finite, seen_moved
from nfa.observe.parameter_regions import Region, overlapping
from nfa.observe.single_examples import gradients
from nfa.observe.trials import Trial, coarse, strided, tolerance
from nfa.seeding import generator
from nfa.workload import Batch


class GradientDoor:
    """Test a model on a few examples, and again whenever a batch uses parameters in a new way."""

    def __init__(self, reader: Reader) -> None:
        self.reader, self.door = reader, reader.door
        self.model, self.workload, self.parameters = reader.model, reader.workload, reader.parameters

    def open(self, batch: Batch, names: Iterable[str], changed: bool) -> None:
        """Test the model, whose parameters may be moved, and fill in the door's findings."""
        door = self.door
        door.seen, door.ways, door.idle = set(), set(), []  # without those of a test that failed
        outputs, uses = self.reader.recorded(batch, whole=True)
        expect_finite(outputs, changed)
        trial = self._trial(batch, outputs, uses)
        few = len(batch) - 1
        fewer = self.reader.recorded(batch.take(range(few)), whole=True) if few else None
        door.places = _places(uses, fewer[1] if fewer else {}, len(batch))
        door.overlapping = overlapping(one for of in uses.values() for use in of for one in use.regions.values())
        found = self.reader.read(outputs, uses, trial.cotangent)
        door.ways.add(found.way)
        unrecorded = self._unrecorded(trial, found)
        if fewer:
            unrecorded |= self._unrecorded_of_fewer(trial, found, *fewer)
        door.exact = [name for name in names if name in unrecorded]
        self._check_single(trial)
        door.ways = {frozenset(one for one in way if one[0].parameter not in unrecorded) for way in door.ways}
        self._set_idle()

    def check(self, batch: Batch, way: frozenset[object]) -> set[str]:
        """Return the parameters that a batch uses in a way that is not read correctly; if there are none, the way is
        known now.
        """
        if way in self.door.ways:
            return set()
        return seen_moved(self.model, lambda changed: self._different(batch, changed))

    def _different(self, batch: Batch, changed: bool) -> set[str]:
        outputs, uses = self.reader.recorded(batch)
        expect_finite(outputs, changed)
        trial = self._trial(batch, outputs, uses)
        again = self.reader.read(outputs, uses, trial.cotangent)
        different = self._unrecorded(trial, again) - {*self.door.exact}
        self.door.ways.add(again.way)
        self._set_idle()
        return different

    def _set_idle(self) -> None:
        met = {*self.door.exact, *(region.parameter for region in self.door.seen)}
        self.door.idle = [name for name in self.parameters if name not in met]

    def _trial(self, batch: Batch, outputs: Tensor, uses: Uses) -> Trial:
        if outputs.shape[:1] != (len(batch),):
            got = f"outputs of shape {tuple(outputs.shape)} for {len(batch)} examples"
            allowed = "outputs with the examples in the first dimension"
            raise Refusal(got, allowed, "transpose them, or do not reduce them over the examples")
        random = generator(0, "door")
        cotangent = torch.randn(outputs.shape, generator=random).to(outputs)
        weights = (torch.rand(len(batch), generator=random) + 0.5).to(outputs)
        weighted = torch.einsum("n...,n->n...", cotangent, weights)
        made = gradients(outputs, [*self.parameters.values()], weighted, keep=True)
        pairs = zip(self.parameters.items(), made, strict=True)
        expected = {name: torch.zeros_like(of) if value is None else strided(value) for (name, of), value in pairs}
        return Trial(batch, outputs.detach(), cotangent, weights, expected, coarse(uses))

    def _unrecorded(self, trial: Trial, found: Reading) -> set[str]:
        """Return the parameters whose gradients cannot all be read, or are wrong."""
        self.door.seen |= found.parts.keys()
        clashing = {a.parameter for a in found.parts for b in self.door.seen if a.clashes(b)}
        cut, _ = self.reader.recorded(trial.batch, cut=True)
        rest = zip(self.parameters, gradients(cut, [*self.parameters.values()], trial.cotangent), strict=True)
        elsewhere = {name for name, value in rest if value is not None}
        return found.unread | clashing | elsewhere | trial.differing(self._totals(found.parts, trial.weights))

    def _unrecorded_of_fewer(self, trial: Trial, whole: Reading, outputs: Tensor, uses: Uses) -> set[str]:
        """Repeat the test with one example fewer, so that no other dimension can pass for that of the examples.

        If all parts equal those of before, the earlier result holds.
        """
        few = len(outputs)
        found = self.reader.read(outputs, uses, trial.cotangent[:few])
        self.door.ways.add(found.way)
        if not found.unread and _begin_alike(found.parts, whole.parts, trial.rounding):
            return set()
        batch = trial.batch.take(range(few))
        outputs, uses = self.reader.recorded(batch)
        trial = self._trial(batch, outputs, uses)
        return self._unrecorded(trial, self.reader.read(outputs, uses, trial.cotangent))

    def _totals(self, parts: Gradients, weights: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Yield Σ_a w_a γ_a of each parameter."""
        summands: dict[str, list[tuple[Region, Part]]] = {name: [] for name in self.parameters}
        for region, found in parts.items():
            summands[region.parameter] += [(region, part) for part in found]
        for name, of in summands.items():
            totals = ((region, part.total(weights).view(region.shape)) for region, part in of)
            if len(of) == 1 and of[0][0] == self.reader.whole(name):
                yield name, next(totals)[1]
                continue
            total = self.parameters[name].new_zeros(self.parameters[name].shape)
            for region, value in totals:
                region.view(total).add_(value)
            yield name, total

    def _check_single(self, trial: Trial) -> None:
        """Use torch.func if it is correct (it misses parameters that a module keeps in a list), otherwise a loop."""
        if not self.door.exact:
            return
        single = self.reader.single()
        made = single(trial.batch, trial.cotangent).items()
        differing = trial.differing((name, torch.tensordot(trial.weights, values, dims=1)) for name, values in made)
        wrong = {name for name in differing if trial.expected[name].isfinite().all()}
        self.door.by_loop = single.by_loop or bool(wrong)
        if wrong and not self._same_alone(trial):
            got = f"parameter {min(wrong)!r}, whose gradients for a single example differ from those in a batch"
            remedy = "keep examples in the first dimension, even if there is only one, and batch statistics fixed"
            raise Refusal(got, "models that treat each example alone", remedy)

    def _same_alone(self, trial: Trial) -> bool:
        """Tell whether the model gives the same outputs for examples one by one."""
        with torch.no_grad():
            rows = [self.workload.outputs(self.model, trial.batch.take([place])) for place in range(len(trial.batch))]
        alone = torch.stack([row.reshape(trial.outputs.shape[1:]) for row in rows])
        scale = float(trial.outputs.abs().max())
        return float((alone - trial.outputs).abs().max()) <= tolerance(alone) * scale


def _places(uses: Uses, fewer: Uses, n: int) -> dict[Hashable, Axis | None]:
    """Return the axis of the examples for every way of using a parameter: the same wherever it is used so, or None."""
    found: dict[Hashable, set[Axis]] = {}
    for key, of in uses.items():
        less = fewer.get(key, [])
        pairs = zip(of, less, strict=True) if len(of) == len(less) else ()
        places = {axis(many.tensors(), one.tensors(), n) for many, one in pairs} if n > 1 else {Axis(1)}
        for way in key:
            found.setdefault(way, set()).update(place for place in places if place)  # no axis: shared by all examples
    return {way: next(iter(places)) if len(places) == 1 else None for way, places in found.items()}


def _begin_alike(few: Gradients, many: Gradients, rounding: float) -> bool:
    """Tell whether the parts of the first examples equal those of the same examples among more."""
    if few.keys() != many.keys() or any(len(few[key]) != len(many[key]) for key in few):
        return False
    pairs = [pair for key in few for pair in zip(few[key], many[key], strict=True)]
    return all(a.begins(b, max(rounding, tolerance(a.tensors[-1]))) for a, b in pairs)
