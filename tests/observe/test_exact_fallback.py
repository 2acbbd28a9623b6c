"""Gradients of examples that no rule gives: exactly, one example at a time, never wrong for want of a rule."""

from typing import Any

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils import parametrizations

from nfa.errors import Refusal
from nfa.measures.gradient_gram import GradientGram
from nfa.observe import single_examples
from nfa.observe.checks import check_model
from nfa.observe.example_gradients import ExampleGradients
from tests.support.grams import (
    Forward,
    assert_close,
    check,
    everything,
    expected_gram,
    normal,
    probe,
    scrambled,
    tokens,
    trainable,
)

pytestmark = pytest.mark.filterwarnings("ignore:There is a performance drop")
N = 9  # more than the examples that a model is tried on

FUNCTIONS = {
    "torch.sub": lambda x, p: torch.sub(x, p).sin(),
    "subtracted from": lambda x, p: (1 - p) * x,
    "divided": lambda x, p: x / p,
    "einsum": lambda x, p: torch.einsum("ni,i->n", x, p),
    "in-place sum": lambda x, p: x.clone().add_(p).sin(),
    "in-place product": lambda x, p: x.clone().mul_(p),
    "edited on the left": lambda x, p: p.clone().mul_(2) * x,
    "doubled first": lambda x, p: x * (p * 2),
    "one more first": lambda x, p: x * (p + 1),
    "expanded": lambda x, p: (x + p.expand_as(x)).sin(),
    "concatenated": lambda x, p: torch.cat([x, p.expand(len(x), -1)], dim=1).prod(dim=1),
    "indexed": lambda x, p: x * p[[2, 0, 0, 1]],
    "a vector on the right": lambda x, p: x @ p,
    "with out=": lambda x, p: x * torch.exp(p),
    "repeated rows as a weight": lambda x, p: F.linear(x, p.expand(3, 4)),
    "windows of it as a weight": lambda x, p: F.linear(x[:, :2], p.unfold(0, 2, 1)).sin(),
    "inside vmap": lambda x, p: torch.vmap(lambda row: torch.add(row, p).sin())(x),
    "in a gradient": lambda x, p: gradient_of(lambda z: ((z * p).sin() * p).sum(), x),
}


def gradient_of(function: Any, x: Tensor) -> Tensor:
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        return torch.autograd.grad(function(x), x, create_graph=True)[0]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_without_a_rule_are_made_exactly_and_named(name):
    net = Forward(lambda self, x: FUNCTIONS[name](self.map(x).sin(), self.p), map=nn.Linear(3, 4), p=normal(4))
    check(net, normal(N, 3), exact=["p"])


@pytest.mark.parametrize("name", ["scalar * 2", "scalar + 1"])
def test_a_number_of_its_own_may_be_used_before_it_meets_the_examples(name):
    change = {"scalar * 2": lambda p: p * 2, "scalar + 1": lambda p: p + 1}[name]
    net = Forward(lambda self, x: self.map(x) * change(self.p), map=nn.Linear(3, 4), p=normal())
    check(net, normal(N, 3), exact=["p"])


@pytest.mark.parametrize("shape", [(1,), (1, 1)])
def test_a_bias_that_is_one_number_for_all_outputs_is_made_exactly(shape):
    net = Forward(lambda self, x: torch.addmm(self.p, x, self.w), p=normal(*shape), w=normal(3, 4))
    check(net, normal(N, 3), exact=["p", "w"])


LAYERS = {
    "Bilinear": lambda: (Forward(lambda self, x: self.b(x[:, :2], x[:, 2:]), b=nn.Bilinear(2, 3, 4)), (5,)),
    "PReLU": lambda: (nn.PReLU(4), (4,)),
    "InstanceNorm": lambda: (nn.Sequential(nn.InstanceNorm1d(3, affine=True), nn.Flatten(), nn.Tanh()), (3, 4)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers_without_a_rule_are_made_exactly_and_named(name):
    net, shape = LAYERS[name]()
    check(net, normal(N, *shape), exact=[name for name, _ in net.named_parameters()])


def test_a_bias_whose_layers_input_is_edited_after_the_call_is_made_exactly():
    """Autograd keeps no input for a frozen weight, and does not mind."""

    def forward(self, x):
        hidden = x.clone()
        mapped = self.map(hidden)
        return mapped.sin() * hidden.mul_(2)

    net = Forward(forward, map=nn.Linear(4, 4))
    net.map.weight.requires_grad_(False)
    check(net, normal(N, 4), exact=["map.bias"])


def test_parametrised_weights_are_made_exactly_and_their_biases_by_rule():
    net = nn.Sequential(parametrizations.weight_norm(nn.Linear(4, 5)), nn.Tanh(), nn.Linear(5, 4), nn.Tanh())
    net.append(parametrizations.orthogonal(nn.Linear(4, 4)))
    check(net, normal(N, 4), exact=[name for name, _ in net.named_parameters() if "parametrizations" in name])


@pytest.mark.parametrize("options", [{"max_norm": 1.0}, {"scale_grad_by_freq": True}])
def test_embeddings_whose_gradient_depends_on_more_than_the_position_are_made_exactly(options):
    """Not that of the tried examples. Frequencies are those within an example, as a batch of one has them."""
    once, repeated = torch.arange(24).reshape(8, 3), tokens(8, 3, below=3)
    net = nn.Sequential(nn.Embedding(24, 3, **options), nn.Flatten())
    check(net, torch.cat([once, repeated]), exact=["0.weight"])


ESCAPING = {
    "beside a rule": lambda x, w: F.linear(x, w) + torch.einsum("ni,oi->no", x.sin(), w),
    "beside a rule, faintly": lambda x, w: F.linear(x, w) + 1e-7 * torch.einsum("ni,oi->no", x.sin(), w),
}
OVERLAPPING = {
    "and its transpose": lambda x, w: F.linear(F.linear(x, w).tanh(), w.T),
    "overlapping rows": lambda x, w: F.linear(x, w[:3]) * F.linear(x, w[1:]),
    "overlapping columns": lambda x, w: F.linear(x[:, :3], w[:, :3]) * F.linear(x[:, 1:], w[:, 1:]),
    "all, and rows": lambda x, w: F.linear(x, w) * F.linear(x, w[1:]).sum(-1, keepdim=True),
    "rows, and added": lambda x, w: F.linear(x, w[:3]) * (x.unsqueeze(1) + w[:1]).sum(-1),
    "embedding and product": lambda x, w: F.embedding(torch.arange(4).expand(len(x), 4), w)[..., 0].sin() @ w.T,
}


@pytest.mark.parametrize("name", [*ESCAPING, *OVERLAPPING])
def test_a_parameter_is_made_exactly_where_a_use_escapes_the_rules_but_not_where_uses_overlap(name):
    use = {**ESCAPING, **OVERLAPPING}[name]
    net = Forward(lambda self, x: use(self.map(x), self.w), map=nn.Linear(4, 4), w=normal(4, 4))
    check(net, normal(N, 4), exact=["w"] if name in ESCAPING else [])


@pytest.mark.parametrize("name", [*ESCAPING, *OVERLAPPING])
def test_a_use_that_the_tried_examples_do_not_feel_is_found_all_the_same(name):
    """The first eight are zero where the parameter is used."""
    use = {**ESCAPING, **OVERLAPPING}[name]
    net = Forward(lambda self, x: self.map(x) + use(x[:, :4].relu(), self.w).sum(1, keepdim=True), w=normal(4, 4))
    net.map = nn.Linear(5, 4)
    inputs = normal(12, 5)
    inputs[:8, :4] = -inputs[:8, :4].abs()
    net = scrambled(net)
    workload = probe(net, inputs)
    gram = GradientGram(workload, range(12), trainable(net))
    assert_close(gram(net), expected_gram(workload))
    assert gram.exact == (["w"] if name in ESCAPING else [])


@pytest.mark.parametrize("flat", [True, False])
def test_examples_whose_loss_is_zero_hide_no_use(flat):
    """A margin that the tried examples keep."""
    net = Forward(lambda self, x: torch.einsum("ni,oi->no", x, self.w), w=normal(3, 4))

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        return outputs.square().sum(dim=1) * (targets[:, 0] if flat else targets[:, 0].relu())

    workload = probe(net, normal(12, 4), loss)
    workload.all.targets[:8] = 0.0 if flat else -1.0
    gram = GradientGram(workload, range(12), ["w"])
    found = gram(net)
    assert gram.exact == ["w"]
    assert_close(found, expected_gram(workload))
    assert (found.diagonal()[:8] == 0).all()


class Chooses(nn.Module):
    """A branch for each example, by its value: what torch.func cannot follow."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Linear(4, 3), nn.Linear(4, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        rows = [self._row(row) for row in inputs]
        return torch.stack(rows)

    def _row(self, row: Tensor) -> Tensor:
        if row[0].item() > 0.5:
            return row[:3] * 1  # reaches no parameter
        return self.one(row) if row[1].item() > 0 else self.other(row).sin()


def test_data_dependent_control_flow_is_followed_by_a_loop():
    net = Chooses()
    check(net, normal(N, 4), exact=[name for name, _ in net.named_parameters()])


def test_a_parameter_that_a_module_keeps_in_a_list_is_found_by_the_loop():
    """torch.func puts other tensors into a module's attributes, not into its lists."""
    net = Forward(lambda self, x: torch.einsum("ni,oi->no", x, self.kept[0]), w=normal(3, 4))
    net.kept = [net.w]
    check(net, normal(N, 4), exact=["w"], scramble=False)


class Own(torch.autograd.Function):
    """A function without rules for vmap."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor) -> Tensor:
        ctx.save_for_backward(x, w)
        return x @ w.T

    @staticmethod
    def backward(ctx: Any, delta: Tensor) -> tuple[Tensor, Tensor]:
        x, w = ctx.saved_tensors
        return delta @ w, delta.T @ x


def test_an_autograd_function_of_ones_own_is_followed_by_the_loop():
    check(Forward(lambda self, x: Own.apply(x, self.w), w=normal(3, 4)), normal(N, 4), exact=["w"])


def test_the_ways_of_torch_func_and_of_the_loop_agree_in_chunks_of_any_size(monkeypatch):
    workload = probe(scrambled(nn.Sequential(nn.Linear(4, 3), nn.PReLU(), nn.Linear(3, 2))), normal(N, 4))
    names, batch = trainable(workload.network), everything(workload)
    gradients = ExampleGradients(workload.network, workload, names, batch)
    assert gradients.door.exact == ["1.weight"]
    slope = {"1.weight": gradients.parameters["1.weight"]}
    single = single_examples.SingleExamples(workload.network, workload, slope, by_loop=False)
    cotangent, found = normal(N, 2, seed=3), []
    for chunk in (1, 4, 32):
        monkeypatch.setattr(single_examples, "CHUNK", chunk)
        found.append(single(batch, cotangent))
        assert not single.by_loop
    single.by_loop = True
    found.append(single(batch, cotangent))
    for one in found:
        torch.testing.assert_close(one, found[0], rtol=1e-12, atol=1e-12)
        assert not any(values.requires_grad for values in one.values())


@pytest.mark.parametrize(
    ("n", "length"), [(8, 8), (7, 7), (9, 8), (16, 16), (9, 16), (56, 56), (9, 56), (2, 2), (1, 8)]
)
def test_a_transformer_with_time_first_is_read_right_where_positions_could_pass_for_examples(n, length):
    net = Forward(
        lambda self, x: self.layer(self.map(x).transpose(0, 1)).mean(dim=0),
        map=nn.Linear(3, 4),
        layer=nn.TransformerEncoderLayer(4, 2, 6),
    )
    check(net, normal(n, length, 3))


@pytest.mark.parametrize("rows", [7, 8, 9, 56])
def test_a_map_of_what_all_examples_share_is_made_exactly(rows):
    net = Forward(
        lambda self, x: x + self.map(self.table).tanh().sum(dim=0), map=nn.Linear(4, 4), table=normal(rows, 4)
    )
    check(net, normal(rows, 4), exact=["table", "map.weight", "map.bias"])


def test_attention_among_what_all_examples_share_is_made_exactly():
    def forward(self, x):
        return x + self.attention(*[self.latents] * 3)[0].mean(dim=(0, 1))

    net = Forward(forward, attention=nn.MultiheadAttention(4, 2, batch_first=True), latents=normal(1, 3, 4))
    check(net, normal(N, 4), exact=[name for name, _ in net.named_parameters()])


def test_a_frozen_transformer_behind_a_parameter_without_a_rule_is_differentiated():
    layer = nn.TransformerEncoderLayer(4, 2, 6, batch_first=True).requires_grad_(False)
    check(Forward(lambda self, x: self.layer(x - self.p).flatten(1), layer=layer, p=normal(4)), normal(N, 3, 4), ["p"])


def test_a_model_whose_examples_see_each_other_is_refused():
    """Where an example alone is another function, and at the door of every analysis."""
    coupled = Forward(lambda self, x: torch.einsum("ni,oi->no", x - x.mean(dim=0), self.w), w=normal(3, 4))
    workload = probe(coupled, normal(N, 4))
    with pytest.raises(
        Refusal, match=r"gradients for a single example differ from those in a batch(.|\n)*batch statistics"
    ):
        GradientGram(workload, range(N), ["w"])(coupled)
    with pytest.raises(Refusal, match="depend on the others in the batch"):
        check_model(coupled, workload, everything(workload))


def test_a_model_that_squeezes_a_single_example_out_of_its_dimension_is_followed():
    net = Forward(lambda self, x: (x.unsqueeze(2) * self.p.exp()).sum(dim=1), p=normal(4, 3))
    squeezing = Forward(lambda self, x: self.net(x).squeeze(), net=net)
    expected = expected_gram(probe(net, normal(N, 4)))
    gram = GradientGram(probe(squeezing, normal(N, 4)), range(N), ["net.p"])
    assert_close(gram(squeezing), expected)
    assert gram.exact == ["net.p"]
