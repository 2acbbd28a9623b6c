"""Models in whatever they are wrapped in, in whatever mode: watched they train to bitwise the same weights."""

import copy
import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn as nn

import nfa
from nfa.errors import Refusal
from nfa.sinks import Memory
from nfa.watching.models import is_second, unwrapped
from tests.support.snapshots import assert_same, snapshot
from tests.support.stores import Store
from tests.support.toy_models import Toy, layers, seeded
from tests.test_watching import CLASSES, cross_entropy, in_a_run, only, plain, toy

EVERY = "alignment,directions,flow"


def same(model: nn.Module) -> nn.Module:
    return model


def partly_frozen(model: nn.Module) -> nn.Module:
    for part in list(model.children())[:2]:
        part.requires_grad_(False)
    return model


def compiled(model: nn.Module) -> nn.Module:
    made: nn.Module = torch.compile(model, backend="eager")
    return made


def partly_compiled(model: nn.Module) -> nn.Module:
    model[3] = torch.compile(model[3], backend="eager")
    return model


def normalised(model: nn.Module) -> nn.Module:
    """A weight that moves buffers whenever it is read in training mode."""
    nn.utils.parametrizations.spectral_norm(model[7])
    return model


WRAPPED: dict[str, Callable[[nn.Module], nn.Module]] = {
    "as it is": same,
    "frozen in part": partly_frozen,
    "with a weight that is computed": normalised,
    "compiled": compiled,
    "compiled in part": partly_compiled,
    "DataParallel": nn.DataParallel,
    "compiled in DataParallel": lambda model: nn.DataParallel(compiled(model)),
}


def trained(toys: Toy, model: nn.Module, record: Callable[[int], Any]) -> torch.optim.Optimizer:
    optimizer = torch.optim.Adam([weight for weight in model.parameters() if weight.requires_grad], lr=0.01)
    random.seed(7), np.random.seed(7), torch.manual_seed(7)
    for step in range(3):
        record(step)
        batch = torch.randint(len(toys.inputs), (8,))
        optimizer.zero_grad()
        toys.loss(model(toys.inputs[batch]), toys.targets[batch]).mean().backward()
        optimizer.step()
    return optimizer


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name == "compiled in part" else name for name in WRAPPED]
)
@in_a_run
def test_training_is_bitwise_the_same_with_every_study_and_without(name: str) -> None:
    left = {}
    for seen in (True, False):
        toys = toy("convolutions")
        model = WRAPPED[name](toys.net)
        probe = toys.inputs[:10], toys.targets[:10]
        if seen:
            with nfa.watch(model, toys.loss, probe, studies=EVERY) as watch:
                optimizer = trained(toys, model, watch.record)
        else:
            optimizer = trained(toys, model, lambda _: None)
        left[seen] = snapshot(toys, optimizer)
    assert_same(left[True], left[False])


@pytest.mark.parametrize("name", ["compiled", "DataParallel", "compiled in DataParallel"])
@in_a_run
def test_what_a_model_is_wrapped_in_changes_no_name_and_no_value(name: str) -> None:
    toys = toy("convolutions")
    probe = toys.inputs[:10], toys.targets[:10]
    values = []
    for number, model in enumerate([toys.net, WRAPPED[name](toys.net)]):
        with nfa.watch(model, toys.loss, probe, studies=EVERY, prefix=f"{number}/") as watch:
            values.append({key.removeprefix(f"{number}/"): value for key, value in watch.record(0).items()})
    assert values[0] == values[1]


@pytest.mark.parametrize("around", [torch.inference_mode, torch.no_grad, nullcontext])
@in_a_run
def test_it_records_whatever_is_set_around_it(around: Callable[[], AbstractContextManager[Any]]) -> None:
    toys = toy("convolutions")
    with around():
        inputs, targets = toys.inputs[:10].clone(), toys.targets[:10].clone()
        with nfa.watch(toys.net, toys.loss, (inputs, targets), studies=EVERY) as watch:
            found = watch.record(0)
        assert torch.is_inference_mode_enabled() is (around is torch.inference_mode)
    probe = toys.inputs[:10], toys.targets[:10]
    with nfa.watch(toys.net, toys.loss, probe, studies=EVERY, prefix="plain/") as watch:
        plain_values = watch.record(0)
    assert {f"plain/{key}": value for key, value in found.items()} == plain_values
    toys.loss(toys.net(toys.inputs), toys.targets).mean().backward()


def test_autocast_around_it_is_for_the_model_and_products_of_what_it_rounds_are_in_float32() -> None:
    """h and z are in bfloat16; sums and cosines that are rounded too are off by some 0.001."""
    net, x, y = seeded(layers, 4, 6, 5, CLASSES), torch.randn(512, 4) + 1, torch.randint(CLASSES, (512,))
    kept: list[tuple[torch.Tensor, torch.Tensor]] = []
    net[2].register_forward_hook(lambda _module, given, output: kept.append((given[0], output)))
    memory, options = Memory(), {"relations": "h_vs_m,out_h_vs_m", "studies": EVERY}
    with torch.autocast("cpu", torch.bfloat16):
        with nfa.watch(net, cross_entropy, (x, y), sink=memory, **options) as watch:
            found = watch.record(0)
        net(x)
        assert torch.is_autocast_enabled("cpu")
    assert kept[-1][0].dtype is kept[-1][1].dtype is torch.bfloat16
    (h, z), W = (part.detach().double() for part in kept[-1]), net[2].weight.detach().double()
    for key, (A, B) in {"2/h_vs_m": (h.T @ h, W.T @ W), "2/out_h_vs_m": (z.T @ z, W @ W.T)}.items():
        assert found[key] == pytest.approx(float((A * B).sum() / A.norm() / B.norm()), abs=1e-6)
    with nfa.watch(net, cross_entropy, (x, y), sink=Memory(), **options) as watch:
        exact = watch.record(0)
    assert abs(exact["2/h_vs_m"] - found["2/h_vs_m"]) > 1e-5  # the model does compute in bfloat16
    for key in ("gradient/mean_gradient_squared", "flow/2/grad_rms"):
        assert found[key] == pytest.approx(exact[key], rel=0.01)


@in_a_run
def test_hooks_of_ones_own_stay_and_count_for_what_they_do() -> None:
    toys = toy("convolutions")
    handle = toys.net[7].register_forward_hook(lambda _module, _args, output: 2 * output)
    with nfa.watch(toys.net, toys.loss, (toys.inputs[:10], toys.targets[:10])) as watch:
        hooked = watch.record(0)["probe/loss"]
    assert list(toys.net[7]._forward_hooks) == [handle.id]
    net = toys.net.eval()
    with torch.no_grad():
        assert hooked == pytest.approx(float(cross_entropy(net(toys.inputs[:10]), toys.targets[:10]).mean()), rel=1e-5)


def test_wrappers_come_off_in_any_order() -> None:
    net = plain()[0]
    for model in (net, compiled(net), nn.DataParallel(compiled(nn.DataParallel(net)))):
        assert unwrapped(model) is net


@in_a_run
def test_what_is_no_module_is_refused() -> None:
    with pytest.raises(Refusal, match="a model that is a function"):
        nfa.watch(plain, cross_entropy, plain()[1:])


@pytest.fixture
def pieces(monkeypatch: pytest.MonkeyPatch) -> Iterator[nn.Module]:
    """A model whose weights are divided among processes, of which there is one."""
    import torch.distributed as dist
    from torch.distributed.fsdp import fully_shard

    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        net = plain()[0]
        yield fully_shard(net, mesh=dist.init_device_mesh("cpu", (1,)))
    finally:
        dist.destroy_process_group()


@in_a_run
def test_a_model_in_pieces_is_refused(pieces: nn.Module) -> None:
    with pytest.raises(Refusal, match=r"sharded across processes\n.*\n  do: load its full state_dict"):
        nfa.watch(pieces, cross_entropy, plain()[1:])


def test_a_second_process_needs_no_run_and_does_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RANK", "1")
    assert not is_second()  # one of one
    monkeypatch.setenv("WORLD_SIZE", "2")
    net, x, y = plain()
    with nfa.watch(net, cross_entropy, (x, y), studies=EVERY) as watch:
        assert watch.record(0) == watch.record_last(1) == {}
    assert store.runs() == []
    assert capsys.readouterr().out == ""
    with pytest.raises(Refusal, match="option 'relation'"):  # in every process
        nfa.watch(net, cross_entropy, (x, y), relation="h_vs_m")


def test_a_model_without_a_parameter_that_is_trained_is_still_seen(run: Store) -> None:
    net, x, y = plain()
    with nfa.watch(net.requires_grad_(False), cross_entropy, (x, y)) as watch:
        assert "0/h_vs_m" in watch.record(0)
    assert run.metrics(only(run))


# ---- names and outputs that a store or a record could stumble over


class Experts(nn.Module):
    """A stack of matrices, and layers with names that no metric key can have."""

    def __init__(self) -> None:
        super().__init__()
        self.stack = nn.Parameter(torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(0)))
        self.layers = nn.ModuleDict({"user->item": nn.Linear(5, 5), "('a', 'b')": nn.Linear(5, CLASSES)})

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        hidden = torch.tanh(sum(nn.functional.linear(inputs, matrix) for matrix in self.stack))
        for layer in self.layers.values():
            hidden = torch.tanh(layer(hidden))
        return hidden


@in_a_run
def test_matrices_of_a_stack_and_layers_with_odd_names_are_recorded(run: Store) -> None:
    probe = torch.randn(9, 4), torch.arange(9) % CLASSES
    with nfa.watch(seeded(Experts), cross_entropy, probe, sites="*") as watch:
        watch.record(0)
    keys = {key.rpartition("/")[0] for key, _, _ in run.metrics(only(run)) if key.endswith("/g_vs_h")}
    assert keys == {"stack.0", "stack.1", "layers.user-_item", "layers.__a__ _b__"}


@in_a_run
def test_what_has_no_evaluation_mode_or_no_output_is_refused_before_anything_is_recorded() -> None:
    inputs, targets = torch.randn(9, 4), torch.arange(9) % CLASSES
    model = nn.Linear(4, CLASSES)
    with pytest.raises(Refusal, match="which hold no number"):
        nfa.watch(model, lambda f, _: f.sum(dim=1), (inputs, targets), outputs=lambda model, x: model(x)[:, :0])
    exported = torch.export.export(model, (inputs,)).module()
    with pytest.raises(Refusal, match="eval"):
        nfa.watch(exported, cross_entropy, (inputs, targets))


def test_150_000_outputs_are_read_right_with_no_matrix_of_their_size() -> None:
    """One such matrix would take 90 GB."""
    net, x = seeded(layers, 4, 6, 5, 150_000), torch.randn(5, 4)
    memory = Memory()
    with nfa.watch(net, cross_entropy, (x, torch.arange(5)), sites="*", sink=memory) as watch:
        found = watch.record(0)
    assert watch.workload.examples_at_once < 500
    slow = copy.deepcopy(net).double()
    h, W = slow[:4](x.double()).detach(), slow[4].weight.detach()
    H, M = h.T @ h, W.T @ W
    assert found["4/h_vs_m"] == pytest.approx(float((H * M).sum() / H.norm() / M.norm()), abs=1e-5)
    assert {"0/agop_nfm", "2/agop_nfm", "4/g_vs_m"} <= found.keys()
