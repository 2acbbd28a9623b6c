"""All matrices of a checkpoint: only what is wanted is measured, nothing stale is reused, nothing wrong is guessed."""

from collections.abc import Callable, Iterator

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from nfa import reference
from nfa.errors import Refusal
from nfa.measures.second_moments import Moment
from nfa.measures.site_matrices import Conventions, SiteMeasures
from nfa.observe import passes
from nfa.observe.directions import Directions
from nfa.observe.door import few_of, find_sites
from nfa.observe.passes import site_weights
from nfa.reference.linear_twin import linear_twin
from nfa.relations import MATRICES
from tests.support.snapshots import assert_same, snapshot
from tests.support.toy_models import (
    Sequences,
    Tied,
    Toy,
    choose_sites,
    half_square,
    layers,
    seeded,
    tiny_classifier,
    toy,
)

CLOSE = {"rtol": 1e-9, "atol": 1e-12}  # float64 on both sides
ALL = frozenset(MATRICES)


def measures_of(toys: Toy, wanted: set[str] | frozenset[str], **conventions: object) -> SiteMeasures:
    """Of all sites of a toy; the initial weights are halves of the weights."""
    initial = {name: weight / 2 for name, weight in site_weights(toys, toys.net, toys.sites_named).items()}
    return SiteMeasures(toys, toys.sites_named, frozenset(wanted), Conventions(**conventions), initial)


def ready(toys: Toy, wanted: set[str] | frozenset[str], **conventions: object) -> SiteMeasures:
    """The same, with the door behind it."""
    measures = measures_of(toys, wanted, **conventions)
    measures.found = find_sites(toys.net, toys, few_of(toys))
    return measures


def batches(toys: Toy, batch_size: int = 3) -> Iterator:
    return toys.batches("train", batch_size=batch_size)


def dense(found: dict) -> dict[str, dict[str, Tensor]]:
    return {site: {name: matrix.dense() for name, matrix in of_site.items()} for site, of_site in found.items()}


def exact(
    net: nn.Module, site: str, inputs: Tensor, targets: Tensor, loss: Callable = half_square
) -> dict[str, Tensor]:
    """Every matrix by the reference; of the network's linear twin, where the site's name is `site`."""
    W = net.get_submodule(site).weight.detach().double()
    h, z = (read(net, site, inputs) for read in (reference.site_inputs, reference.site_outputs))
    delta = reference.loss_gradients(net, site, inputs, targets, loss)
    g = -delta @ W
    return {
        "agop": reference.agop(reference.jacobians(net, site, inputs)),
        "nfm": reference.nfm(W),
        "nfm_init_removed": reference.nfm_init_removed(W, W / 2),
        "g": reference.second_moment(g, g),
        "h": reference.second_moment(h, h),
        "fact": reference.fact(W, h, delta),
        "out_g": reference.second_moment(delta, delta),
        "out_h": reference.second_moment(z, z),
        "out_m": reference.nfm(W.T),
    }


def assert_exact(found: dict[str, dict[str, Tensor]], toys: Toy) -> None:
    for site, of_site in found.items():
        expected = exact(toys.net, site, toys.inputs, toys.targets)
        for name, matrix in of_site.items():
            torch.testing.assert_close(matrix, expected[name], **CLOSE)


def chain(**options: object) -> Toy:
    return toy(seeded(layers, 4, 6, 5, 3), 7, 4, sites=["0", "2", "4"], **options)


def frozen_front() -> Toy:
    """The first site's input, of 6 features, depends on a frozen layer; the second's, of 5, on a trained one."""
    toys = toy(seeded(layers, 4, 6, 5, 3), 7, 4, sites=["2", "4"])
    toys.net[0].requires_grad_(False)
    return toys


def normalised() -> Toy:
    """The first site's input, of 6 features, depends on buffers."""
    net = nn.Sequential(nn.BatchNorm1d(6, affine=False), *seeded(layers, 6, 5, 3))
    return toy(net, 7, 6, sites=["1", "3"])


def trained(toys: Toy) -> None:
    """Move every weight that is trained."""
    with torch.no_grad():
        for weight in toys.net.parameters():
            weight.mul_(1.3 if weight.requires_grad else 1)


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Features of all rows that an H adds up."""
    features, add = [], Moment.add

    def noted(self: Moment, rows: Tensor) -> None:
        features.append(rows.shape[-1])
        add(self, rows)

    monkeypatch.setattr(Moment, "add", noted)
    return features


@given(st.lists(st.integers(1, 8), min_size=2, max_size=4), st.integers(1, 5), st.integers(1, 6))
@settings(max_examples=8)
def test_every_matrix_of_any_chain_equals_the_reference_at_every_batch_size(sizes, n, batch_size):
    names = [str(2 * index) for index in range(len(sizes) - 1)]
    toys = toy(seeded(layers, *sizes), n, sizes[0], sites=names)
    found = dense(measures_of(toys, ALL)(toys.net, batches(toys, batch_size)))
    assert list(found) == names
    assert all(of_site.keys() == ALL for of_site in found.values())
    assert_exact(found, toys)


@pytest.mark.parametrize(("build", "first"), [(chain, 4), (frozen_front, 6), (normalised, 6)])
def test_h_of_an_input_that_training_does_not_move_is_measured_once(build, first, heard):
    """In three batches a checkpoint; deeper ones are measured each time."""
    toys = build()
    measures = measures_of(toys, {"h", "nfm"})
    assert_exact(dense(measures(toys.net, batches(toys))), toys)
    assert heard.count(first) == 3
    deeper = len(heard) - 3
    assert deeper == 3 * (len(toys.sites_named) - 1)
    for _ in range(2):
        heard.clear()
        trained(toys)
        assert_exact(dense(measures(toys.net, batches(toys))), toys)
        assert first not in heard
        assert len(heard) == deeper


class Detached(nn.Module):
    """An encoder that gradients do not reach, so that its output looks fixed, although something else may train it."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.head, self.readout = nn.Linear(4, 6), nn.Linear(6, 5), nn.Linear(5, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.readout(torch.tanh(self.head(self.encoder(inputs).detach())))
        return outputs


def test_h_behind_a_detached_encoder_that_has_changed_is_measured_again(heard):
    toys = toy(seeded(Detached), 7, 4, sites=["head"])
    measures = measures_of(toys, {"h"})
    assert_exact(dense(measures(toys.net, batches(toys))), toys)
    trained(toys)
    assert_exact(dense(measures(toys.net, batches(toys))), toys)
    assert heard == [6] * 6


@pytest.mark.parametrize("change", ["frozen parameter", "buffer"])
def test_h_is_measured_again_where_a_frozen_tensor_has_changed(change, heard):
    toys = frozen_front() if change == "frozen parameter" else normalised()
    measures = measures_of(toys, {"h"})
    first = dense(measures(toys.net, batches(toys)))
    heard.clear()
    with torch.no_grad():
        if change == "frozen parameter":
            toys.net[0].weight[0, 0] += 0.5
        else:
            toys.net[0].running_mean[0] += 0.5
    second = dense(measures(toys.net, batches(toys)))
    assert heard.count(6) == 3
    assert_exact(second, toys)
    site = toys.sites_named[0]
    assert (second[site]["h"] - first[site]["h"]).norm() > 1e-3 * first[site]["h"].norm()


def test_h_is_measured_again_where_a_layer_before_it_has_been_thawed(heard):
    toys = frozen_front()
    measures = measures_of(toys, {"h"})
    measures(toys.net, batches(toys))
    toys.net[0].requires_grad_(True)
    for _ in range(2):
        heard.clear()
        trained(toys)
        assert_exact(dense(measures(toys.net, batches(toys))), toys)
        assert heard.count(6) == 3


def test_a_site_after_a_frozen_site_has_its_own_h_at_every_checkpoint():
    toys = frozen_front()
    toys.sites_named = ["0", "2", "4"]
    measures = measures_of(toys, ALL - {"nfm_init_removed"})
    for _ in range(3):
        assert_exact(dense(measures(toys.net, batches(toys))), toys)
        trained(toys)


def test_a_frozen_network_has_the_same_matrices():
    toys = toy(seeded(Sequences, 3, 5, 2), 6, 4, 3, sites=["first", "second", "readout"])
    expected = dense(measures_of(toys, ALL)(toys.net, batches(toys)))
    toys.net.requires_grad_(False)
    for site, of_site in dense(measures_of(toys, ALL)(toys.net, batches(toys))).items():
        for name, matrix in of_site.items():
            torch.testing.assert_close(matrix, expected[site][name], rtol=1e-12, atol=1e-14)


class Convolved(nn.Sequential):
    """A convolution and a readout."""

    def __init__(self) -> None:
        super().__init__(nn.Conv1d(2, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(12, 3))


@pytest.mark.parametrize(
    ("build", "shape", "sites"),
    [
        (lambda: seeded(layers, 4, 6, 5, 3), (7, 4), ["0", "2", "4"]),
        (lambda: seeded(Sequences, 3, 5, 2), (7, 4, 3), ["first", "second", "readout"]),
        (lambda: seeded(Tied, 3, 5, 2), (7, 4, 3), ["shared"]),
        (lambda: seeded(Convolved), (7, 2, 5), ["0", "3"]),
    ],
    ids=["chain", "positions", "called twice", "convolution"],
)
def test_in_float64_a_float32_model_equals_the_reference_and_stays_bitwise_what_it_was(build, shape, sites):
    toys = toy(build(), *shape, sites=sites, dtype=torch.float32)
    before = snapshot(toys)
    found = dense(measures_of(toys, ALL, precision="float64")(toys.net, batches(toys)))
    assert_same(snapshot(toys), before)
    twin = linear_twin(toys.net)
    for site in sites:
        of_twin = site if isinstance(twin.get_submodule(site), nn.Linear) else f"{site}.linear"
        expected = exact(twin, of_twin, toys.inputs, toys.targets)
        for name, matrix in found[site].items():
            assert matrix.dtype == torch.float64
            torch.testing.assert_close(matrix, expected[name], **CLOSE)


def test_in_float64_the_workload_of_train_equals_the_reference():
    """Whose labels are whole numbers, made targets in its loss."""
    workload = tiny_classifier()
    model, sites = workload.model(), ["layer_0", "layer_1", "layer_2"]
    weights = {name: weight.clone() for name, weight in model.state_dict().items()}
    initial = {name: weight / 2 for name, weight in site_weights(workload, model, sites).items()}
    measures = SiteMeasures(workload, sites, ALL, Conventions(precision="float64"), initial)
    found = dense(measures(model, workload.batches("val", batch_size=5)))
    batch = next(workload.batches("val", batch_size=12))

    def loss(outputs: Tensor, labels: Tensor) -> Tensor:
        return (outputs - F.one_hot(labels.long(), 3)).square().mean(dim=1)

    for index, site in enumerate(sites):
        expected = exact(model, f"layers.{index}", batch.inputs, batch.targets, loss)
        for name, matrix in found[site].items():
            torch.testing.assert_close(matrix, expected[name], **CLOSE)
    assert all(torch.equal(weight, weights[name]) for name, weight in model.state_dict().items())


def test_float32_does_not_equal_the_reference_so_far():
    """So that the tests of float64 would notice a model that was not converted."""
    toys = chain(dtype=torch.float32)
    found = dense(measures_of(toys, {"agop"})(toys.net, batches(toys)))["0"]["agop"].double()
    expected = exact(toys.net, "0", toys.inputs, toys.targets)["agop"]
    assert 1e-9 < (found - expected).norm() / expected.norm() < 1e-5


class Backward(Exception):
    """A backward pass nobody needs."""


def refuse(*_args: object, **_kwargs: object) -> None:
    raise Backward


@pytest.mark.parametrize("wanted", [{"h"}, {"out_h"}, {"h", "out_h", "nfm", "nfm_init_removed", "out_m"}])
def test_no_gradient_is_taken_where_only_the_forward_pass_is_asked_about(wanted, monkeypatch):
    toys = chain()
    few, more = ready(toys, wanted), ready(toys, wanted | {"g"})
    with monkeypatch.context() as patch:
        patch.setattr(torch.autograd, "grad", refuse)
        found = dense(few(toys.net, batches(toys)))
        with pytest.raises(Backward):
            more(toys.net, batches(toys))
    assert all(set(of_site) == wanted for of_site in found.values())
    assert_exact(found, toys)


@pytest.mark.parametrize(
    ("wanted", "directions", "backward_passes"),
    [
        ({"h"}, 0, 0),
        ({"g"}, 0, 1),
        ({"g", "out_g", "fact", "h"}, 0, 1),
        ({"agop"}, 0, 3),
        ({"agop", "nfm", "out_h"}, 0, 3),
        (ALL, 0, 4),
        ({"agop"}, 2, 2),
        (ALL, 2, 3),
    ],
)
def test_needs_are_joined_each_batch_takes_one_forward_and_no_more_backward_passes_than_needed(
    wanted, directions, backward_passes, monkeypatch
):
    """For all sites together: three outputs or two random directions, and one loss."""
    toys, calls, forward = chain(), [], []
    measures = ready(toys, wanted, directions=Directions(directions))
    measures(toys.net, batches(toys))  # looks for the readout
    original = torch.autograd.grad
    monkeypatch.setattr(torch.autograd, "grad", lambda *args, **kwargs: calls.append(1) or original(*args, **kwargs))
    toys.net.register_forward_hook(lambda *_: forward.append(1))
    measures(toys.net, batches(toys))
    assert len(forward) == 3
    assert len(calls) == 3 * backward_passes


def test_only_a_few_examples_are_run_for_what_weights_say():
    toys = chain()

    def untouched() -> Iterator:
        raise Backward
        yield

    wanted = {"nfm", "nfm_init_removed", "out_m"}
    found = dense(measures_of(toys, wanted)(toys.net, untouched()))
    assert all(set(of_site) == wanted for of_site in found.values())


@pytest.mark.parametrize("wanted", [{"nfm"}, {"h"}, {"agop"}])
def test_who_hears_outputs_hears_all_of_them_whatever_is_left_to_measure(wanted):
    """Also where every H is known already: an evaluation rides on this pass."""
    toys = toy(seeded(layers, 4, 3), 7, 4, sites=["0"])
    measures = measures_of(toys, wanted)
    for _ in range(2):
        heard: list[Tensor] = []
        measures(toys.net, batches(toys), record_outputs=lambda outputs, _batch, heard=heard: heard.append(outputs))
        torch.testing.assert_close(torch.cat(heard), toys.net(toys.inputs).detach(), **CLOSE)


def test_no_patches_are_made_where_nobody_asks_for_inputs(monkeypatch):
    toys = toy(seeded(Convolved), 7, 2, 5, sites=["0"])
    few, more = ready(toys, ALL - {"h", "fact"}), ready(toys, {"h"})
    monkeypatch.setattr(F, "unfold", refuse)
    assert set(few(toys.net, batches(toys))["0"]) == ALL - {"h", "fact"}
    with pytest.raises(Backward):
        more(toys.net, batches(toys))


@pytest.mark.parametrize("record_bytes", [1, 3 * 6 * 8, 2 * 3 * 6 * 8 + 1, 10**9])
def test_patches_are_made_of_few_examples_at_a_time_and_give_the_same_values(record_bytes, monkeypatch):
    """Three positions of six features in float64 an example: so many as fit, never less than one."""
    toys = toy(seeded(Convolved), 7, 2, 5, sites=["0"])
    expected = dense(measures_of(toys, ALL)(toys.net, batches(toys, 7)))["0"]
    measures, sizes, unfold = ready(toys, ALL), [], F.unfold
    monkeypatch.setattr(F, "unfold", lambda x, *args, **kwargs: sizes.append(len(x)) or unfold(x, *args, **kwargs))
    monkeypatch.setattr(passes, "RECORD_BYTES", record_bytes)
    found = dense(measures(toys.net, batches(toys, 7)))["0"]
    for name, matrix in found.items():
        torch.testing.assert_close(matrix, expected[name], rtol=1e-12, atol=1e-14)
    fitting = min(7, max(1, record_bytes // (3 * 6 * 8)))
    assert max(sizes) == fitting
    assert sum(sizes) == 2 * 7  # once for H, once for FACT


class Edited(nn.Module):
    """`edit` changes the second layer's input, or its output, after the call."""

    def __init__(self, edit: Callable[[Tensor, Tensor], object]) -> None:
        super().__init__()
        self.first, self.second, self.readout = nn.Linear(4, 5), nn.Linear(5, 5), nn.Linear(5, 3)
        self.edit = edit

    def forward(self, inputs: Tensor) -> Tensor:
        h = self.first(inputs) + 1
        z = self.second(h)
        self.edit(h, z)
        outputs: Tensor = self.readout(h + z)
        return outputs


EDITS = {
    "h += z": lambda h, z: h.add_(z),
    "h[:, 0] = 0": lambda h, _: h[:, 0].zero_(),
    "h.mul_(2)": lambda h, _: h.mul_(2),
}


@pytest.mark.parametrize("edit", EDITS)
@pytest.mark.parametrize("frozen", [False, True])
def test_an_input_that_is_edited_in_place_after_the_call_is_read_as_it_was(edit, frozen):
    net = seeded(Edited, EDITS[edit]).requires_grad_(not frozen)
    net.second.requires_grad_(False)  # autograd itself refuses such an edit where it needs the input
    toys = toy(net, 6, 4, sites=["second"])
    assert_exact(dense(measures_of(toys, ALL)(toys.net, batches(toys))), toys)


@pytest.mark.parametrize("edit", EDITS)
def test_what_needs_no_input_does_not_mind(edit):
    toys = toy(seeded(Edited, EDITS[edit]).requires_grad_(False), 6, 4, sites=["second"])
    assert_exact(dense(measures_of(toys, {"agop", "g", "out_g", "out_h"})(toys.net, batches(toys))), toys)


@pytest.mark.parametrize("frozen", [False, True])
def test_an_output_that_is_edited_in_place_is_heard_as_it_was(frozen):
    """By relu(inplace=True), or by += ; z is the output before its activation."""
    plain, in_place = (
        toy(seeded(layers, 4, 6, 6, 2, activation=activation), 6, 4, sites=["0", "2", "4"])
        for activation in (nn.ReLU, lambda: nn.ReLU(inplace=True))
    )
    added = toy(seeded(Edited, lambda _, z: z.add_(1)), 6, 4, sites=["first", "second"])
    for toys in (plain, in_place, added):
        toys.net.requires_grad_(not frozen)
    found = dense(measures_of(in_place, ALL)(in_place.net, batches(in_place)))
    for site, of_site in dense(measures_of(plain, ALL)(plain.net, batches(plain))).items():
        for name, matrix in of_site.items():
            assert torch.equal(found[site][name], matrix)
    assert_exact(dense(measures_of(added, ALL)(added.net, batches(added))), added)


def test_calls_on_flattened_positions_are_read_right():
    """[n·s, i] instead of [n, s, i]."""

    class Flattened(nn.Module):
        def __init__(self, *, flat: bool) -> None:
            super().__init__()
            self.first, self.readout, self.flat = nn.Linear(3, 5), nn.Linear(5, 2), flat

        def forward(self, inputs: Tensor) -> Tensor:
            hidden = torch.tanh(self.first(inputs.flatten(0, 1) if self.flat else inputs))
            outputs: Tensor = self.readout(hidden.view(*inputs.shape[:2], 5).sum(dim=1))
            return outputs

    plain, flat = (toy(seeded(Flattened, flat=flat), 6, 4, 3, sites=["first"]) for flat in (False, True))
    found = dense(measures_of(flat, ALL)(flat.net, batches(flat)))
    assert_exact(found, plain)


class Named(nn.Module):
    """Two blocks with attention, a readout."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.ModuleDict({"attend": nn.MultiheadAttention(4, 2, batch_first=True), "mlp": nn.Linear(4, 4)})
            for _ in range(2)
        )
        self.readout = nn.Linear(4, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        for block in self.blocks:
            inputs = block["mlp"](block["attend"](inputs, inputs, inputs)[0])
        outputs: Tensor = self.readout(inputs.sum(dim=1))
        return outputs


PARTS = ["attend.q_proj", "attend.k_proj", "attend.v_proj", "attend.out_proj", "mlp"]
NAMES = [f"blocks.{index}.{part}" for index in range(2) for part in PARTS] + ["readout"]


@pytest.mark.parametrize(
    ("pattern", "chosen"),
    [
        ("", NAMES[:-1]),
        ("*", NAMES),
        ("readout", ["readout"]),
        ("blocks.1.*", NAMES[5:10]),
        ("*.q_proj, *.k_proj", [NAMES[0], NAMES[1], NAMES[5], NAMES[6]]),
        ("readout,blocks.0.mlp,*.0.mlp", [NAMES[4], "readout"]),
        ("blocks.[01].mlp", [NAMES[4], NAMES[9]]),
    ],
)
def test_sites_are_chosen_by_names_and_globs_in_the_models_order(pattern, chosen):
    """Without a pattern, all but the readout."""
    modules = [f"blocks.{index}.{part}" for index in range(2) for part in ("attend", "mlp")] + ["readout"]
    toys = toy(seeded(Named), 3, 5, 4, sites=modules)
    assert choose_sites(toys, toys.net, pattern) == chosen
    measures = SiteMeasures(toys, chosen, frozenset({"h", "nfm"}))
    assert list(measures(toys.net, batches(toys))) == chosen


def test_a_single_site_is_analysed_though_it_is_the_readout():
    toys = toy(seeded(layers, 4, 3), 3, 4, sites=["0"])
    assert choose_sites(toys, toys.net) == ["0"]


@pytest.mark.parametrize(("pattern", "got"), [("layer_7", "layer_7"), ("0,layer_*,nope", r"layer_\*, nope")])
def test_a_pattern_that_fits_nothing_is_refused_with_what_there_is(pattern, got):
    toys = chain()
    with pytest.raises(Refusal, match=rf"(?s)sites={got}\n.*allowed: 0, 2, 4\n.*name some, by globs"):
        choose_sites(toys, toys.net, pattern)
