"""Models that keep something between calls, are not there yet, or are run in pieces: inert and right, or refused."""

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from nfa.analyses.gradient_directions import GradientAnalysis
from nfa.analyses.gradient_flow import FlowAnalysis
from nfa.errors import Refusal
from nfa.registry.analyses.config import GradientDirectionsConfig, GradientFlowConfig
from nfa.testing import inertness
from nfa.workloads.probe import Probe
from tests.support.models.loops import agree, alignment, analysis, heard, measured
from tests.support.models.workloads import EXAMPLES, alone, classifier, cross_entropy, normal, whole
from tests.support.toy_models import layers, seeded


class Kept(nn.Module):
    """Numbers that are no buffers: a count, a tensor edited in place, a list, and the last result with its graph."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.readout = nn.Linear(4, 5), nn.Linear(5, 3)
        self.calls, self.total, self.past, self.last = 0, torch.zeros(()), [1.0], None

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.total += 1
        self.past.append(2.0)
        self.last = torch.tanh(self.layer(x))
        factor = 1 + (self.calls + self.total + len(self.past)) / 10 if self.training else 1
        return self.readout(self.last) * factor


def kept() -> Probe:
    return classifier(seeded(Kept), normal(EXAMPLES, 4), 3)


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_attributes_that_a_forward_pass_changes_are_as_without_watching(precision):
    workload = kept()
    start, ids = copy.deepcopy(workload.model()), range(EXAMPLES)
    made = analysis(workload, copy.deepcopy(start), precision=precision)
    plain = inertness.trained(workload, start, ids)
    watched = inertness.trained(workload, start, ids, lambda model: made.values(model))
    assert inertness.differing(plain.state, watched.state) == []
    assert plain.model.calls == watched.model.calls == inertness.STEPS
    assert plain.model.past == watched.model.past


# ---- weights that are not there


def test_a_model_whose_shapes_are_not_known_is_refused_until_it_has_run_once():
    workload = classifier(nn.Sequential(nn.LazyLinear(5), nn.Tanh(), nn.LazyLinear(3)), normal(EXAMPLES, 4), 3)
    with pytest.raises(Refusal, match=r"'0.weight', whose shape is not known yet(.|\n)*call the model on one batch"):
        analysis(workload, workload.network)
    workload.network(normal(EXAMPLES, 4))
    assert analysis(workload, workload.network).sites == ["0", "2"]


def test_a_model_without_numbers_is_refused_until_it_has_some():
    with torch.device("meta"):
        model = layers(4, 5, 3)
    workload = classifier(model, normal(EXAMPLES, 4), 3)
    with pytest.raises(Refusal, match=r"on the meta device(.|\n)*to_empty"):
        analysis(workload, model)
    model.to_empty(device="cpu").load_state_dict(layers(4, 5, 3).state_dict())
    assert analysis(workload, model).sites == ["0", "2"]


# ---- gradients that torch.autograd.grad does not find


class Pieces(nn.Module):
    """A part that is computed again on the way back."""

    def __init__(self, reentrant: bool) -> None:
        super().__init__()
        self.part, self.readout, self.reentrant = layers(4, 5, 5), nn.Linear(5, 3), reentrant

    def forward(self, x: Tensor) -> Tensor:
        return self.readout(checkpoint(self.part, x.clone().requires_grad_(), use_reentrant=self.reentrant))


class Teacher(nn.Module):
    """A part that nothing flows through, though it could."""

    def __init__(self) -> None:
        super().__init__()
        self.part, self.readout = nn.Linear(4, 3), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            target = self.part(x)
        return self.readout(x) - target


def directions(workload: Probe, model: nn.Module) -> GradientAnalysis:
    return GradientAnalysis(workload, model, GradientDirectionsConfig(n=EXAMPLES))


def flow(workload: Probe, model: nn.Module) -> FlowAnalysis:
    return FlowAnalysis(workload, model, GradientFlowConfig(n=EXAMPLES), None)


@pytest.mark.parametrize("study", [directions, flow])
def test_gradients_of_reentrant_checkpoints_are_refused_and_those_of_others_are_taken(study: Callable):
    workload = classifier(seeded(Pieces, True), normal(EXAMPLES, 4), 3)
    with pytest.raises(Refusal, match=r"which is used only inside torch.no_grad(.|\n)*use_reentrant=False"):
        study(workload, workload.network)
    workload.network.reentrant = False
    assert study(workload, workload.network)(workload.network)


@pytest.mark.parametrize("study", [directions, flow])
def test_a_part_that_is_never_trained_is_refused_until_it_says_so(study: Callable):
    workload = classifier(seeded(Teacher), normal(EXAMPLES, 4), 3)
    with pytest.raises(Refusal, match="requires_grad_"):
        study(workload, workload.network)
    workload.network.part.requires_grad_(False)
    assert study(workload, workload.network)(workload.network)


@pytest.mark.parametrize("study", [directions, flow])
def test_a_model_in_which_nothing_is_trained_has_no_study_of_gradients(study: Callable):
    workload = classifier(layers(4, 5, 3).requires_grad_(False), normal(EXAMPLES, 4), 3)
    with pytest.raises(Refusal, match="without trainable parameters"):
        study(workload, workload.network)


class Cached(nn.Module):
    """A state that is edited in place after it was used, unless it is told not to be kept."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.readout = nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor, keep: bool = True) -> Tensor:
        state = torch.zeros_like(x)
        hidden = torch.exp(self.layer(x)) * (state + self.layer(x))
        state = hidden.clone()
        outputs = self.readout(state * state)
        if keep:
            state += 1
        return outputs


def test_alignment_of_a_model_that_edits_what_the_way_back_needs_is_refused_with_a_remedy():
    network, inputs, targets = seeded(Cached), normal(EXAMPLES, 4), whole(3, EXAMPLES)
    with pytest.raises(Refusal, match="cannot be differentiated in evaluation mode"):
        analysis(Probe(network, cross_entropy, inputs, targets), network)
    plain = Probe(network, cross_entropy, inputs, targets, lambda model, x: model(x, keep=False))
    assert analysis(plain, network).values(network)


# ---- copies in float64


@pytest.mark.filterwarnings("ignore")
def test_weights_of_an_old_weight_norm_are_right_in_float64():
    def build() -> nn.Module:
        return nn.Sequential(nn.utils.weight_norm(nn.Linear(4, 5)), nn.Tanh(), nn.Linear(5, 3))

    workload = classifier(seeded(build), normal(EXAMPLES, 4) + 1, 3)
    slow = seeded(build).double().eval()
    passes = heard(slow, "0", workload, alone(workload))
    agree(measured(workload, "0", precision="float64"), alignment(slow[0].weight, passes), 1e-9)


class Narrow(nn.Module):
    """Works in float32 only."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        if x.dtype is not torch.float32:
            raise RuntimeError("Expected Float32")
        return self.layer(x)


def test_a_model_that_does_not_run_in_float64_is_refused_at_the_door_and_not_when_it_is_measured():
    workload = classifier(seeded(Narrow), normal(EXAMPLES, 4), 3)
    with pytest.raises(Refusal, match=r"precision=float64 (.|\n)*do: precision=float32"):
        analysis(workload, workload.network, precision="float64")
    assert analysis(workload, workload.network, precision="float32").values(workload.network)


# ---- what is said


class Hidden(nn.Module):
    """Runs a module that is none of its own with parameters of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.other = [layers(4, 5, 3)]
        own = {name.replace(".", "_"): nn.Parameter(of.detach()) for name, of in self.other[0].named_parameters()}
        self.own = nn.ParameterDict(own)

    def forward(self, x: Tensor) -> Tensor:
        given = {name: self.own[name.replace(".", "_")] for name, _ in self.other[0].named_parameters()}
        return torch.func.functional_call(self.other[0], given, (x,))


def test_weights_that_a_hidden_module_is_called_with_have_the_names_of_the_parameters():
    workload = classifier(seeded(Hidden), normal(EXAMPLES, 4), 3)
    assert analysis(workload, workload.network).sites == ["own.0_weight", "own.2_weight"]


class Scaled(nn.Module):
    """Weights and biases times a parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.scale = nn.Linear(4, 3), nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.layer.weight * self.scale, self.layer.bias * self.scale)


class ChannelsLast(nn.Module):
    """Weights that are not contiguous."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.readout = nn.Conv2d(2, 3, 3), nn.Linear(3, 3)
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> Tensor:
        return self.readout(torch.tanh(self.layer(x)).mean(dim=(2, 3)))


@pytest.mark.parametrize(("build", "shape"), [(Scaled, (4,)), (ChannelsLast, (2, 4, 5))])
def test_coverage_counts_computed_biases_and_weights_that_are_not_contiguous(build, shape):
    workload = classifier(seeded(build), normal(EXAMPLES, *shape), 3)
    assert "(100 %)" in analysis(workload, workload.network).coverage


def test_where_no_layer_is_seen_the_remedy_is_not_to_leave_out_one_more():
    workload = classifier(nn.Sequential(nn.LayerNorm(3)), normal(EXAMPLES, 3), 3)
    with pytest.raises(Refusal, match="do: study directions or flow, which accept any model"):
        analysis(workload, workload.network)
    assert directions(workload, workload.network)(workload.network)


@pytest.mark.parametrize("sites", ["!*", "0,!0", "!0,!/2/"])
def test_sites_that_leave_nothing_are_refused(sites):
    workload = classifier(layers(4, 5, 3), normal(EXAMPLES, 4), 3)
    with pytest.raises(Refusal, match=r"which excludes every site\n  allowed: 0, 2"):
        analysis(workload, workload.network, sites=sites)


def test_a_probe_without_examples_is_refused():
    with pytest.raises(Refusal, match="a probe without examples"):
        Probe(layers(4, 3), cross_entropy, normal(0, 4), whole(3, 0))


def test_a_loss_whose_targets_are_places_in_the_batch_is_refused_as_one_that_couples_examples():
    network = layers(4, 5)
    contrastive = Probe(
        network, cross_entropy, normal(EXAMPLES, 4), torch.arange(EXAMPLES), lambda model, x: model(x) @ model(x).T
    )
    with pytest.raises(Refusal, match="models and losses that treat each example alone"):
        analysis(contrastive, network)


class Tries(nn.Module):
    """Catches what a layer raises, and goes on by functions."""

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.weight, self.scale = nn.Linear(9, 3), nn.Parameter(normal(3, 4)), nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        try:
            return self.wide(x)
        except RuntimeError:
            return F.linear(x, self.weight * self.scale)


@pytest.mark.filterwarnings("error")
def test_what_follows_a_layer_that_has_raised_is_not_taken_for_a_part_of_it():
    workload = classifier(seeded(Tries), normal(EXAMPLES, 4), 3)
    assert analysis(workload, workload.network).sites == ["computed"]


class Mapped(nn.Module):
    """A layer inside torch.vmap, and one outside."""

    def __init__(self) -> None:
        super().__init__()
        self.inside, self.readout = nn.Linear(4, 5), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.readout(torch.vmap(lambda one: torch.tanh(self.inside(one)))(x))


def test_a_layer_inside_vmap_is_left_out_by_name_and_the_others_are_seen():
    workload = classifier(seeded(Mapped), normal(EXAMPLES, 4), 3)
    made = analysis(workload, workload.network)
    assert (made.sites, made.coverage.partition("; ")[2]) == (["readout"], "not seen: 'inside'")
    slow = copy.deepcopy(workload.network).double()
    right = alignment(slow.readout.weight, heard(slow, "readout", workload, alone(workload)))
    agree(measured(workload, "readout"), right)


class Apart(nn.Module):
    """A bias that is added by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.layer.weight) + self.layer.bias


def test_of_a_layer_that_is_watched_in_part_the_other_part_is_named():
    workload = classifier(seeded(Apart), normal(EXAMPLES, 4), 3)
    assert analysis(workload, workload.network).coverage.endswith("not seen: 'layer.bias'")


def test_a_batch_of_a_model_with_many_outputs_is_small():
    wide = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2**21))
    few, narrow = classifier(wide, normal(EXAMPLES, 4), 3), classifier(layers(4, 6, 3), normal(EXAMPLES, 4), 3)
    assert (few.examples_at_once, narrow.examples_at_once) == (3, 2048)


class Phases(nn.Module):
    """A complex layer before real ones."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.readout = nn.Linear(4, 5, dtype=torch.complex64), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.readout(self.layer(x.to(torch.complex64)).abs())


@pytest.mark.parametrize("study", [directions, flow])
def test_gradients_of_complex_parameters_are_refused_until_these_are_not_trained(study: Callable):
    workload = classifier(seeded(Phases), normal(EXAMPLES, 4), 3)
    with pytest.raises(Refusal, match=r"'layer.weight', which is complex(.|\n)*requires_grad_"):
        study(workload, workload.network)
    workload.network.layer.requires_grad_(False)
    assert study(workload, workload.network)(workload.network)
