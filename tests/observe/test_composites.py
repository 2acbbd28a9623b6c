"""A module that adds something to a product of its input is one site, whatever values its parameters happen to have."""

from collections.abc import Callable

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

import nfa
from nfa.measures.site_matrices import chosen_sites
from nfa.observe.coverage import coverage
from nfa.observe.door import few_of, find_sites
from nfa.observe.found_sites import Sites
from nfa.observe.passes import site_weights
from nfa.sinks import Memory
from tests.support.grams import Forward, normal, probe
from tests.support.toy_models import seeded

SIDE, RANK = 6, 2
STARTS: dict[str, Callable[[Tensor], Tensor]] = {
    "zero": lambda B: B * 0,
    "tiny": lambda B: B * 1e-6,
    "trained": lambda B: B,
}


def frozen(*shape: int) -> nn.Parameter:
    return nn.Parameter(normal(*shape, seed=1), requires_grad=False)


def base() -> nn.Linear:
    return seeded(nn.Linear, SIDE, SIDE).double().requires_grad_(False)


def adapter(B: Tensor) -> Forward:
    return Forward(lambda self, x: self.base(x) + (x @ self.A.T) @ self.B.T, base=base(), A=normal(RANK, SIDE), B=B)


def three_layers(B: Tensor) -> Forward:
    a, b = (nn.Linear(*shape, bias=False).double() for shape in ((SIDE, RANK), (RANK, SIDE)))
    a.weight, b.weight = nn.Parameter(normal(RANK, SIDE)), nn.Parameter(B)
    return Forward(lambda self, x: self.base(x) + self.b(self.a(x)), base=base(), a=a, b=b)


def around(layer: nn.Module) -> nn.Sequential:
    first, last = seeded(nn.Linear, SIDE, SIDE), seeded(nn.Linear, SIDE, 3, seed=1)
    return nn.Sequential(first, nn.Tanh(), layer, nn.Tanh(), last).double()


def sites_of(net: nn.Module) -> Sites:
    workload = probe(net, normal(9, SIDE, seed=5))
    return find_sites(net, workload, few_of(workload))


def chosen(net: nn.Module) -> list[str]:
    workload = probe(net, normal(9, SIDE, seed=5))
    return sorted(chosen_sites(workload, net, sites_of(net), "*"))


class Plain(nn.Linear):
    """A layer of its own with a frozen weight, as loralib has it."""

    def __init__(self, B: Tensor) -> None:
        super().__init__(SIDE, SIDE)
        self.weight.requires_grad_(False)
        self.A, self.B = nn.Parameter(normal(RANK, SIDE)), nn.Parameter(B)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias) + x @ self.A.T @ self.B.T


ONE: dict[str, Callable[[Tensor], nn.Module]] = {
    "a frozen layer and factors": adapter,
    "three layers": three_layers,
    "a subclass of Linear": Plain,
    "parameters alone": lambda B: Forward(
        lambda self, x: x @ self.W.T + (x @ self.A.T) @ self.B.T, W=frozen(SIDE, SIDE), A=normal(RANK, SIDE), B=B
    ),
    "the other factor": lambda B: Forward(
        lambda self, x: x @ self.W.T + (x @ self.B) @ self.A, W=frozen(SIDE, SIDE), A=normal(RANK, SIDE), B=B
    ),
    "a gate": lambda B: Forward(
        lambda self, x: x @ self.W.T + self.gate * (x @ self.B @ self.A),
        W=frozen(SIDE, SIDE), A=normal(RANK, SIDE), B=normal(SIDE, RANK), gate=B[0, :1],
    ),
    "scaled by ones": lambda B: Forward(
        lambda self, x: self.scale * (x @ self.W.T) + x @ self.B @ self.A,
        W=frozen(SIDE, SIDE), A=normal(RANK, SIDE), B=B, scale=torch.ones(SIDE, dtype=torch.float64),
    ),
    "DoRA": lambda B: Forward(
        lambda self, x: self.size / (self.base.weight + self.B @ self.A).norm(dim=1) * (
            F.linear(x, self.base.weight) + x @ self.A.T @ self.B.T
        ),
        base=base(), A=normal(RANK, SIDE), B=B, size=normal(SIDE, seed=3),
    ),
    "slices of one parameter": lambda B: Forward(
        lambda self, x: F.linear(x, self.P[0]) + F.linear(x, self.P[1]),
        P=torch.stack([normal(SIDE, SIDE), F.pad(B, (0, SIDE - RANK))]),
    ),
    "an adapter on an adapter": lambda B: Forward(
        lambda self, x: self.inner(x) + (x @ self.A.T) @ self.B.T, inner=adapter(B), A=normal(RANK, SIDE), B=B
    ),
}


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("form", ONE)
def test_it_is_one_site_from_the_first_step_on(form: str, start: str) -> None:
    net = around(ONE[form](STARTS[start](normal(SIDE, RANK, seed=2))))
    assert chosen(net) == ["0", "2", "4"]


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("form", ONE)
def test_its_weight_is_the_map_of_all_that_is_added(form: str, start: str) -> None:
    net = around(ONE[form](STARTS[start](normal(SIDE, RANK, seed=2))))
    found = site_weights(probe(net, normal(9, SIDE)), net, ["2"], sites_of(net))["2"]
    expected = torch.func.jacrev(net[2])(normal(SIDE, seed=7))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-13)


def conv(B: Tensor) -> nn.Module:
    return nn.Sequential(nn.Unflatten(1, (SIDE, 1)), convolutions(B), nn.Flatten())


def convolutions(B: Tensor) -> nn.Module:
    base, a, b = (seeded(nn.Conv1d, *shape, 1) for shape in ((SIDE, SIDE), (SIDE, RANK), (RANK, SIDE)))
    b.weight = nn.Parameter(B[:, :, None])
    return Forward(lambda self, x: self.base(x) + self.b(self.a(x)), base=base, a=a, b=b)


class Two(nn.Module):
    """Of two inputs."""

    def __init__(self, B: Tensor) -> None:
        super().__init__()
        self.W, self.B, self.C = (nn.Parameter(one) for one in (normal(SIDE, SIDE), normal(RANK, SIDE), B))

    def forward(self, x: Tensor, state: Tensor) -> Tensor:
        return x @ self.W + state @ self.B.T @ self.C.T


SEVERAL: dict[str, tuple[Callable[[Tensor], nn.Module], list[str]]] = {
    "an adapter that is not linear": (
        lambda B: Forward(
            lambda self, x: self.base(x) + F.relu(x @ self.A.T) @ self.B.T, base=base(), A=normal(RANK, SIDE), B=B
        ),
        ["2.A", "2.B", "2.base"],
    ),
    "layers one after the other": (lambda _: nn.Sequential(base(), base()), ["2.0", "2.1"]),
    "a product of factors": (
        lambda B: Forward(lambda self, x: (x @ self.A.T) @ self.B.T, A=normal(RANK, SIDE), B=B),
        ["2.A", "2.B"],
    ),
    "a block with its input added": (
        lambda B: Forward(lambda self, x: x + torch.tanh(x @ self.a) @ self.b, a=normal(SIDE, RANK), b=B.T),
        ["2.a", "2.b"],
    ),
    "an adapter with its input added": (lambda B: Forward(lambda self, x: x + self.f(x), f=adapter(B)), ["2.f"]),
    "an adapter in a container": (lambda B: nn.Sequential(adapter(B), nn.Dropout()), ["2.0"]),
    "convolutions": (conv, ["2.1.a", "2.1.b", "2.1.base"]),
    "a module of two inputs": (
        lambda B: Forward(lambda self, x: self.cell(x, torch.tanh(x)), cell=Two(B)),
        ["2.cell.B", "2.cell.C", "2.cell.W"],
    ),
}


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("form", SEVERAL)
def test_other_modules_have_the_sites_of_their_parts_from_the_first_step_on(form: str, start: str) -> None:
    build, inside = SEVERAL[form]
    assert chosen(around(build(STARTS[start](normal(SIDE, RANK, seed=2))))) == ["0", *inside, "4"]


@pytest.mark.parametrize("form", ["a frozen layer and factors", "a subclass of Linear", "parameters alone"])
def test_a_watch_from_the_first_step_on_gives_the_values_of_an_analysis_after_training(form: str) -> None:
    net = around(ONE[form](torch.zeros(SIDE, RANK, dtype=torch.float64)))
    inputs, labels, sink = normal(40, SIDE, seed=6), torch.arange(40) % 3, Memory()
    loss = nn.CrossEntropyLoss(reduction="none")
    optimizer = torch.optim.SGD([one for one in net.parameters() if one.requires_grad], lr=1.0)
    with nfa.watch(net, loss, (inputs, labels), sink=sink) as watch:
        watch.record(0)
        for _ in range(5):
            optimizer.zero_grad()
            loss(net(inputs), labels).mean().backward()
            optimizer.step()
        watch.record(5)
    after = nfa.alignment(net, loss, (inputs, labels))
    assert {row.site for row in after} == {"0", "2"}
    for key in ("2/agop_nfm", "2/h_vs_m"):
        assert sink.series[key][5] == pytest.approx(after[key], rel=1e-9)
    assert "2/agop_nfm_init_removed" in sink.series
    assert not [key for key in sink.series if key.startswith("2.")]


def test_the_change_of_a_composite_is_that_of_what_was_added() -> None:
    net = around(adapter(torch.zeros(SIDE, RANK, dtype=torch.float64)))
    workload, sites = probe(net, normal(9, SIDE)), sites_of(net)
    before = site_weights(workload, net, ["2"], sites)["2"]
    net[2].B.data = normal(SIDE, RANK, seed=2)
    change = site_weights(workload, net, ["2"], sites)["2"] - before
    torch.testing.assert_close(change, (net[2].B @ net[2].A).detach(), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_a_composite_in_half_precision_is_one_site(half: torch.dtype) -> None:
    net = around(adapter(torch.zeros(SIDE, RANK))).to(half)
    workload = probe(net, normal(9, SIDE).to(half))
    found = find_sites(net, workload, few_of(workload))
    assert [name for name in found.seen if not found.is_inside(name)] == ["0", "2", "4"]
    assert site_weights(workload, net, ["2"], found)["2"].dtype == torch.float32


COMPUTED: dict[str, Callable[[], nn.Module]] = {
    "frozen": lambda: Forward(
        lambda self, x: F.linear(x, self.W + self.B @ self.A), W=frozen(4, SIDE), A=normal(2, SIDE), B=normal(4, 2)
    ),
    "detached": lambda: Forward(
        lambda self, x: F.linear(x, torch.add(self.W.detach(), other=self.B @ self.A)),
        W=normal(4, SIDE), A=normal(2, SIDE), B=normal(4, 2),
    ),
    "joined from rows": lambda: Forward(
        lambda self, x: F.linear(x, torch.cat([self.W, self.B])), W=frozen(3, SIDE), B=normal(1, SIDE)
    ),
    "masked, all of it frozen": lambda: Forward(
        lambda self, x: F.linear(x, self.W * torch.ones_like(self.W).tril()), W=frozen(4, SIDE)
    ),
}


@pytest.mark.parametrize("form", COMPUTED)
def test_a_weight_that_is_computed_covers_all_parameters_that_it_is_computed_from(form: str) -> None:
    net = nn.Sequential(COMPUTED[form](), nn.LayerNorm(4), nn.Linear(4, 3)).double()
    found = sites_of(net)
    watched = found.parameters(found.seen)
    assert {name for name, _ in net[0].named_parameters()} == {
        name.removeprefix("0.") for name in watched if name.startswith("0.")
    }
    assert coverage(net, watched).endswith("not seen: '1'")


def test_a_frozen_parameter_beside_the_weight_is_not_part_of_it() -> None:
    net = nn.Sequential(
        Forward(lambda self, x: F.linear(x, self.W * 2) + self.other, W=frozen(4, SIDE), other=frozen(4)),
        nn.Linear(4, 3),
    ).double()
    assert sites_of(net).parameters(["0"]) == {"0.W"}
