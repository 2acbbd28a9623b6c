"""The conformance suite itself: it finds what is wrong, says what is not seen, and raises nothing for either."""

import copy
import math

import pytest
import torch
import torch.nn as nn

from nfa.errors import Refusal
from nfa.reference.linear_twin import linear_twin
from nfa.testing import check_workload, conformance
from nfa.testing.expected import Case
from nfa.workload import Batch
from nfa.workloads.probe import Probe
from tests.support.toy_models import Noisy, half_square, layers, seeded, tiny_classifier


def normal(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def own(network: nn.Module, loss=half_square) -> Probe:
    return Probe(network, loss, normal(8, 4), normal(8, 3))


def test_a_workload_that_conforms_is_said_to_in_a_table(capsys):
    found = check_workload(lambda: own(seeded(Noisy, 4, 5, 3)))
    assert found.ok
    assert {row.study for row in found.rows} == {"alignment", "directions", "flow"}
    assert {row.precision for row in found.rows} == {"float64", "float32", "bitwise"}
    assert found.seen == ["first", "frozen", "readout"]
    assert found.unseen == found.unchecked == []
    printed = capsys.readouterr().out
    assert printed.strip() == str(found)
    assert "seen: 3 of 3 linear maps; not seen: none" in printed


def test_every_matrix_and_both_precisions_have_a_row():
    rows = check_workload(tiny_classifier, studies="alignment").rows
    quantities = [row.quantity for row in rows if row.precision == "float32"]
    matrices = ["agop", "nfm", "nfm_init_removed", "g", "h", "fact", "out_g", "out_h", "out_m"]
    assert quantities == [*matrices, "cosines", "stable ranks"]


def wrong_twin(model: nn.Module) -> nn.Module:
    twin = linear_twin(model)
    with torch.no_grad():
        twin[0].weight[0, 0] += 1e-3
    return twin


def test_a_small_difference_is_found_and_its_place_is_said():
    found = check_workload(lambda: own(seeded(layers, 4, 5, 3)), studies="alignment", twin=wrong_twin)
    worst = next(row for row in found.rows if (row.quantity, row.precision) == ("nfm", "float64"))
    assert not found.ok
    assert 1e-5 < worst.difference < 1e-2
    assert worst.note == "0"
    assert found.largest("alignment", "float64") >= worst.difference
    assert "DIFFERS" in str(found)


def test_a_study_that_refuses_the_model_is_a_row_that_says_why():
    found = check_workload(lambda: own(layers(4, 5, 3), lambda f, y: half_square(f, y).mean()), studies="alignment")
    values = [row for row in found.rows if row.quantity == "everything"]
    assert [row.precision for row in values] == ["float64", "float32"]
    assert all(row.difference == math.inf and "Refusal" in row.note for row in values)
    assert not found.ok


def test_layers_without_a_reference_are_named():
    def without_one(model: nn.Module) -> nn.Module:
        twin = linear_twin(model)
        twin[2].__class__ = type("Unknown", (nn.Linear,), {})
        return twin

    found = check_workload(lambda: own(seeded(layers, 4, 5, 3)), studies="alignment", twin=without_one)
    assert (found.seen, found.unchecked) == (["0"], ["2"])
    assert "without a reference: 2" in str(found)


@pytest.mark.parametrize("disturb", ["generator", "buffer", "mode", "gradient"])
def test_a_study_that_disturbs_the_model_or_the_generators_is_found(monkeypatch, disturb):
    def disturbing(case: Case, _precision: str):
        if disturb == "generator":
            torch.rand(1)
        elif disturb == "buffer":
            case.model.norm.running_mean += 1
        elif disturb == "mode":
            case.model.dropout.eval()
        else:
            case.model.readout.weight.grad = torch.zeros_like(case.model.readout.weight)
        return conformance.EXPECTED["flow"](case)

    monkeypatch.setitem(conformance.MEASURED, "flow", disturbing)
    rows = {row.quantity: row for row in check_workload(lambda: own(seeded(Noisy, 4, 5, 3)), studies="flow").rows}
    assert not rows["state left as it was"].ok
    assert disturb in rows["state left as it was"].note
    assert not rows["training as without it"].ok


@pytest.mark.parametrize("wrong", ["not a number", "of another shape", "absent"])
def test_a_value_that_is_none_is_infinitely_far_off(monkeypatch, wrong):
    def measured(case: Case, _precision: str):
        found = conformance.EXPECTED["flow"](case)["mean gradient"]
        if wrong == "not a number":
            found["2.bias"][0] = math.nan
        elif wrong == "absent":
            del found["2.bias"]
        else:
            found["2.bias"] = found["2.bias"][:1]
        return {"mean gradient": found}

    monkeypatch.setitem(conformance.MEASURED, "flow", measured)
    rows = check_workload(lambda: own(seeded(layers, 4, 5, 3)), studies="flow").rows
    assert [(row.difference, row.note) for row in rows if row.precision == "float64"] == [(math.inf, "2.bias")]


class Padding(Probe):
    """Two examples of two and of three steps; what stands behind them is not theirs."""

    def batches(self, split, **options):
        present = torch.tensor([[True, True, False], [True, True, True]])
        for batch in super().batches(split, **options):
            yield Batch(batch.inputs, batch.targets, batch.ids, present[batch.ids])


def test_padded_examples_are_taken_alone_at_their_own_length():
    net = nn.Linear(4, 3)
    workload = Padding(net, half_square, {"input": normal(2, 3, 4)}, normal(2, 3, 3))
    case = Case(workload, net, copy.deepcopy(net), [0, 1], linear_twin)
    shapes = [(tuple(one.inputs["input"].shape), tuple(one.targets.shape)) for one in case.alone()]
    assert shapes == [((1, 2, 4), (1, 2, 3)), ((1, 3, 4), (1, 3, 3))]
    assert all(one.present is None and one.targets.dtype == torch.float64 for one in case.alone())


def test_an_unknown_study_is_refused():
    with pytest.raises(Refusal, match="alignment,directions,flow"):
        check_workload(tiny_classifier, studies="alignment,flows")


def test_functions_that_nobody_hears_are_said_not_to_be_seen():
    class Hidden(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.seen, self.other = nn.Linear(4, 5), nn.Parameter(torch.randn(3, 5))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            hidden = torch.tanh(self.seen(x))
            return torch.stack([(hidden * row).sum(dim=1) for row in self.other], dim=1)

    class Twin(nn.Module):
        def __init__(self, model: Hidden) -> None:
            super().__init__()
            self.seen, self.other = copy.deepcopy(model.seen), nn.Linear(5, 3, bias=False)
            self.other.weight = model.other

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.other(torch.tanh(self.seen(x)))

    found = check_workload(lambda: own(seeded(Hidden)), twin=Twin)
    assert found.ok
    assert found.unseen == ["other"]
