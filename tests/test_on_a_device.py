"""Studies and trainings on a device that is only pretended: no tensor stays behind on the processor.

A real one is measured by `make device`.
"""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import TensorDataset

import nfa
from benchmarks.device import fine_tuning, values
from benchmarks.device.plan import SMALL
from benchmarks.networks import Case, losses
from nfa.analyses.alignment import Analysis
from nfa.analyses.parameters import AlignmentParameters
from nfa.maths.similarity import inner, scaled
from nfa.measures.evaluation import Evaluation
from nfa.observe.found_sites import Sites
from nfa.observe.passes import site_weights
from nfa.relations import OF_ANY_MODEL
from nfa.workloads.probe import Probe
from tests.support.pretended_device import WAITS, pretended_device

EXAMPLES = 40  # standard errors need 32
CASES = list(SMALL.values)
PROCESSOR = torch.device("cpu")


def test_the_pretended_device_refuses_tensors_of_the_processor_and_counts_what_waits() -> None:
    with pretended_device() as device:
        here, there = torch.ones(3), torch.ones(3).to(device)
        for mix in (lambda: here + there, lambda: torch.cat([here, there]), lambda: there.add_(here), there.numpy):
            with pytest.raises((RuntimeError, TypeError)):
                mix()
        assert torch.equal((there + 1 + torch.tensor(1.0)).cpu(), torch.full((3,), 3.0))
        assert {there.device, torch.zeros(2, device=device).device, there.new_zeros(2).device} == {device}
        assert (float(there[0]), there.tolist()) == (1.0, [1.0] * 3)
        assert WAITS == {"numbers": 2, "copies": 1}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("kind", values.KINDS, ids=lambda kind: kind[0] or kind[1].__name__)
def test_values_and_steps_are_those_of_the_processor(name: str, kind: Any) -> None:
    _, measure, allowed = kind
    for precision in allowed:
        expected = measure(SMALL.values[name], 6, PROCESSOR, precision)
        with pretended_device() as device:
            found = measure(SMALL.values[name], 6, device, precision)
        for key in expected:
            torch.testing.assert_close(found[key], expected[key], rtol=1e-5, atol=1e-6, msg=key)


def relations(case: Case, device: torch.device, options: dict[str, Any]) -> dict[str, float]:
    model, (inputs, targets) = case.build(EXAMPLES)
    model = model.to(device)
    probe = Probe(model, losses, inputs, targets)

    def initial(names: list[str], sites: Sites) -> dict[str, Tensor]:
        return {name: weight * 1.1 for name, weight in site_weights(probe, model, names, sites).items()}

    return Analysis(probe, model, AlignmentParameters(**options), initial).values(model)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(
    "options",
    [{}, {"centre": "entry"}, {"centre": "jacobian"}, {"agop_power": "0.5"}, {"positions": "sum"}, {"directions": "2"}],
    ids=str,
)
def test_every_relation_with_its_levels_and_errors_is_that_of_the_processor(name: str, options: dict[str, Any]) -> None:
    exact, everything = "directions" not in options, set(OF_ANY_MODEL)
    asked = {"relations": "all" if exact else "*_vs_*,agop_nfm", "max_samples": EXAMPLES, "top_k": 2, **options}
    expected = relations(SMALL.values[name], PROCESSOR, asked)
    with pretended_device() as device:
        assert relations(SMALL.values[name], device, asked) == pytest.approx(expected, rel=1e-5, abs=1e-6)
    assert not exact or {key.partition("/")[2] for key in expected} >= everything


def test_a_device_is_asked_once_how_large_entries_are_and_once_for_an_inner_product_of_them() -> None:
    with pretended_device() as device:
        a, b = torch.rand(4, 4).to(device), torch.rand(4, 4).to(device)
        scaled(a)
        assert WAITS == {"numbers": 1}
        inner(a, b)
        assert WAITS == {"numbers": 1 + 3}


def tables(device: torch.device) -> dict[str, float]:
    model, (inputs, targets) = SMALL.agop.build(EXAMPLES)
    studies: list[Any] = [nfa.alignment, nfa.gradient_directions, nfa.gradient_flow]
    found = [study(model.to(device), losses, (inputs, targets)) for study in studies]
    return {row.key: row.value for table in found for row in table}


def test_studies_of_a_notebook_are_those_of_the_processor() -> None:
    expected = tables(PROCESSOR)
    with pretended_device() as device:
        assert tables(device) == pytest.approx(expected, rel=1e-5, abs=1e-6)


def means(device: torch.device) -> dict[str, float]:
    data = TensorDataset(*SMALL.agop.build(EXAMPLES)[1])
    workload = nfa.Supervised(model=SMALL.agop.network, loss=losses, train=data, val=data, seed=0, device=device)
    model, evaluation = workload.model(), Evaluation(workload)
    WAITS.clear()
    for batch in workload.batches("val", batch_size=8):
        evaluation.update(workload.outputs(model, batch), batch)
    waits = dict(WAITS)
    found = evaluation.means()
    assert not waits, "the device is asked before all batches are done"
    return found


def test_an_evaluation_waits_for_the_device_only_at_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = means(PROCESSOR)
    monkeypatch.setattr("nfa.workloads.supervised.choose_device", torch.device)  # which tries the device
    with pretended_device() as device:
        assert means(device) == pytest.approx(expected)


def test_a_step_of_fine_tuning_asks_a_device_once_and_has_the_loss_of_the_processor(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("nfa.registry.families.language.workload.ARGUMENTS", {})  # no fused kernel is there
    def last(device: torch.device) -> Tensor:
        training = fine_tuning.started(SMALL.language, "float32", device)
        training.run(1, lambda _: None)
        WAITS.clear()
        training.run(2, lambda _: None)
        waits.append(WAITS.total())
        return training.last["loss"].cpu()

    waits: list[int] = []
    expected = last(PROCESSOR)
    with pretended_device() as device:
        torch.testing.assert_close(last(device), expected)
    # The number of answer tokens, and whether the loss is finite; transformers reads the mask, and clipping copies.
    assert waits[1] <= 4
