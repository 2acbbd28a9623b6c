"""Batches that use parameters in other ways than the examples that a model was tried on: right, or refused."""

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from nfa.errors import Refusal
from nfa.measures.gradient_gram import GradientGram
from nfa.observe.parameter_regions import Region
from tests.support.grams import Forward, assert_close, check, expected_gram, normal, probe, scrambled, tokens, trainable

END = 5


def texts() -> Tensor:
    """Sequences of up to nine tokens before the end; the first sixteen are short."""
    inputs = tokens(24, 9, below=END)
    inputs[:12, 4:] = END
    inputs[12:16, 6:] = END
    return inputs


def cut(inputs: Tensor) -> Tensor:
    """Without the columns that only the end is in."""
    return inputs[:, : int((inputs != END).any(dim=0).sum())]


class Reads(nn.Module):
    """A mean over the tokens before the end, of batches cut to their longest sequence."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(6, 4), nn.Parameter(torch.zeros(1, 9, 4))
        self.norm, self.map = nn.LayerNorm(4), nn.Linear(4, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        inputs = cut(inputs)
        hidden = self.norm(self.words(inputs) + self.places[:, : inputs.shape[1]])
        return (self.map(hidden).tanh() * (inputs != END).unsqueeze(2)).sum(dim=1)


@pytest.mark.parametrize("budget", [1, 3000, 2**29])
def test_batches_cut_to_their_longest_sequence_have_rules(budget):
    check(Reads(), texts(), budget=budget)


def test_rows_of_a_weight_as_many_as_a_batch_is_long_are_refused():
    """Views of different batches overlap: their products would be missing."""

    def forward(self, x):
        hidden = (self.words(cut(x)) * (cut(x) != END).unsqueeze(2)).sum(dim=1)
        rows = F.linear(hidden, self.w[: cut(x).shape[1]])
        return F.pad(rows, (0, 9 - rows.shape[1]))

    net = scrambled(Forward(forward, words=nn.Embedding(6, 4), w=normal(9, 4)))
    with pytest.raises(Refusal, match=r"parameter 'w', which batches use in different ways(.|\n)*one length"):
        GradientGram(probe(net, texts()), range(24), trainable(net), budget=3000)(net)


class Routed(nn.Module):
    """Each position goes to one of two experts, by the sign of its first feature."""

    def __init__(self, apply) -> None:
        super().__init__()
        self.apply_expert = apply
        self.experts = nn.ModuleList(nn.Linear(4, 3) for _ in range(2))

    def forward(self, inputs: Tensor) -> Tensor:
        outputs = torch.zeros(*inputs.shape[:2], 3, dtype=inputs.dtype)
        for place, expert in enumerate(self.experts):
            chosen = (inputs[..., 0] > 0) == bool(place)
            if chosen.any():
                outputs = outputs.index_put((chosen,), self.apply_expert(expert, inputs[chosen]).tanh())
        return outputs


def positions(first: Tensor) -> Tensor:
    """[n 4 4] with these signs of the first feature."""
    inputs = normal(len(first), 4, 4)
    inputs[..., 0] = inputs[..., 0].abs() * first
    return inputs


def test_experts_that_a_router_fills_with_any_rows_have_rules():
    check(Routed(lambda expert, rows: expert(rows)), normal(12, 4, 4))


def test_experts_that_get_whole_examples_while_the_model_is_tried_are_read_right_later():
    """Of 16 · 4 positions 48 come to one and 16 to the other: they could pass for three and one of every example."""
    signs = torch.ones(16, 4)
    signs[12:] = -1.0
    net = scrambled(Routed(lambda expert, rows: expert(rows)))
    workload = probe(net, positions(signs))
    assert_close(GradientGram(workload, range(16), trainable(net))(net), expected_gram(workload))


def test_an_expert_without_a_rule_that_is_first_called_later_is_refused():
    signs = torch.ones(16, 4)
    signs[12:] = -1.0
    net = scrambled(Routed(lambda expert, rows: torch.einsum("ni,oi->no", rows, expert.weight)))
    workload = probe(net, positions(signs))
    with pytest.raises(Refusal, match=r"parameter 'experts\.0\.weight', which batches use in different ways"):
        GradientGram(workload, range(16), trainable(net))(net)


def test_a_rule_that_only_some_batches_go_by_is_not_trusted():
    """The same function in two ways, by the batch."""

    def forward(self, x):
        positive = bool((x[:, 0] > 0).all())
        return F.linear(x, self.w) if positive else torch.einsum("ni,oi->no", x, self.w)

    inputs = normal(16, 4)
    inputs[:8, 0], inputs[8:, 0] = 1.0, -1.0
    net = Forward(forward, w=normal(3, 4))
    with pytest.raises(Refusal, match="parameter 'w', which batches use in different ways"):
        GradientGram(probe(net, inputs), range(16), ["w"])(net)


def test_outputs_may_depend_on_the_ids_of_the_examples():
    net = scrambled(nn.Sequential(nn.Linear(4, 3), nn.PReLU()))
    workload = probe(net, normal(12, 4))
    workload.outputs = lambda model, batch: model(batch.inputs + batch.ids.unsqueeze(1) / 10)
    gram = GradientGram(workload, range(12), trainable(net))
    assert_close(gram(net), expected_gram(workload))
    assert gram.exact == ["1.weight"]


@pytest.mark.parametrize(("view", "once"), [
    (lambda p: p, True),
    (lambda p: p.T, True),
    (lambda p: p[1:, ::2], True),
    (lambda p: p[:1].expand(1, 6), True),
    (lambda p: p[:1].expand(3, 6), False),
    (lambda p: p.flatten().unfold(0, 4, 2), False),
    (lambda p: p.flatten().unfold(0, 4, 4), True),
    (lambda p: p[0, 0], True),
])  # fmt: skip
def test_a_region_knows_whether_it_shows_an_entry_twice(view, once):
    seen = view(torch.zeros(4, 6))
    region = Region("p", seen.storage_offset(), tuple(seen.shape), seen.stride())
    assert region.once is once
    places = region.view(torch.arange(24).reshape(4, 6)).flatten()
    assert (len(places.unique()) == len(places)) is once


def test_regions_clash_where_their_memory_may_overlap_and_they_differ():
    rows = [Region("p", 6 * start, (2, 6), (6, 1)) for start in (0, 1, 2)]
    assert rows[0].clashes(rows[1])
    assert not rows[0].clashes(rows[2])
    assert not rows[0].clashes(rows[0])
    assert not rows[0].clashes(rows[1]._replace(parameter="q"))
