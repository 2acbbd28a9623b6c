"""The loss over answers: each token by the reference, the mean over a step's tokens however the step is divided."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nfa import reference
from nfa.registry.families.language.answer_tokens import IGNORED
from nfa.registry.families.language.losses import TokenMean, answer_losses, answer_tokens
from nfa.workload import Batch

VOCABULARY = 11
SPANS = st.lists(st.tuples(st.integers(1, 5), st.integers(1, 6)), min_size=1, max_size=6)  # of question and answer


def drawn(spans, seed=0):
    """Items, where their answers start, logits [n s v] for the token after each, and labels [n s] where predicted."""
    random = torch.Generator().manual_seed(seed)
    length = max(question + answer for question, answer in spans)
    ids = [torch.randint(VOCABULARY, (question + answer,), generator=random) for question, answer in spans]
    logits = 3 * torch.randn(len(spans), length, VOCABULARY, generator=random, dtype=torch.float64)
    labels = torch.full((len(spans), length), IGNORED)
    for row, (item, (question, _)) in enumerate(zip(ids, spans, strict=True)):
        labels[row, question - 1 : len(item) - 1] = item[question:]
    return ids, [question for question, _ in spans], logits, labels


def batch(labels, places=slice(None)):
    ids = torch.arange(len(labels))[places]
    return Batch(None, labels[places], ids)


@given(SPANS)
def test_each_answer_s_loss_is_the_reference_s(spans):
    ids, starts, logits, labels = drawn(spans)
    sums, counts = answer_losses(logits, labels)
    for row in range(len(spans)):
        loss, count = reference.answer_loss(logits[row], ids[row], starts[row])
        assert float(sums[row]) == pytest.approx(float(loss), rel=1e-12)
        assert int(counts[row]) == count
    assert torch.equal(counts, answer_tokens(labels))


@given(SPANS)
def test_a_step_s_loss_is_the_mean_over_its_tokens(spans):
    ids, starts, logits, labels = drawn(spans)
    found = TokenMean()(logits, batch(labels))
    assert float(found) == pytest.approx(float(reference.token_mean(list(logits), ids, starts)), rel=1e-12)


@given(SPANS, st.integers(1, 6))
def test_value_and_gradient_do_not_depend_on_how_a_step_is_divided(spans, size):
    _, _, logits, labels = drawn(spans)
    objective, whole = TokenMean(), logits.clone().requires_grad_()
    expected = objective(whole, batch(labels))
    expected.backward()
    parts = [batch(labels, slice(first, first + size)) for first in range(0, len(spans), size)]
    divided = logits.clone().requires_grad_()
    total = torch.zeros(())
    for part in parts:
        loss = objective(divided[part.ids], part) * objective.share(part, parts, len(spans))
        loss.backward()
        total = total + loss.detach()
    assert sum(objective.share(part, parts, len(spans)) for part in parts) == pytest.approx(1)
    assert float(total) == pytest.approx(float(expected.detach()), rel=1e-12)
    torch.testing.assert_close(divided.grad, whole.grad, rtol=1e-12, atol=1e-15)


def test_the_mean_of_the_parts_means_would_be_another_value():
    """Answers of different lengths: a mean over batches would weigh the tokens of short ones more."""
    _, _, logits, labels = drawn([(2, 1), (2, 6)])
    objective = TokenMean()
    parts = [batch(labels, slice(place, place + 1)) for place in range(2)]
    means = [float(objective(logits[part.ids], part)) for part in parts]
    assert float(objective(logits, batch(labels))) != pytest.approx(sum(means) / 2, rel=1e-3)


@given(SPANS, st.integers(1, 6))
def test_fixed_gives_losses_of_single_answers_whose_mean_is_the_mean_over_tokens(spans, size):
    _, _, logits, labels = drawn(spans)
    parts = [batch(labels, slice(first, first + size)) for first in range(0, len(spans), size)]
    losses = TokenMean().fixed((logits[part.ids], part) for part in parts)
    each = torch.cat([losses(logits[part.ids], part) for part in parts])
    assert each.shape == (len(spans),)
    assert float(each.mean()) == pytest.approx(float(TokenMean()(logits, batch(labels))), rel=1e-12)


@given(SPANS)
def test_logits_and_labels_where_nothing_is_predicted_change_nothing(spans):
    _, _, logits, labels = drawn(spans)
    sums, counts = answer_losses(logits, labels)
    other = logits.where((labels != IGNORED)[..., None], torch.tensor(1e4, dtype=torch.float64))
    longer = [torch.cat([each, each[:, :1]], dim=1) for each in (other, torch.full_like(labels, IGNORED))]
    for found, expected in zip(answer_losses(other, labels), (sums, counts), strict=True):
        torch.testing.assert_close(found, expected)
    padded = answer_losses(longer[0], torch.cat([labels, longer[1][:, -1:]], dim=1))
    torch.testing.assert_close(padded[0], sums, rtol=1e-12, atol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_logits_in_half_precision_are_widened_before_their_softmax(dtype):
    _, _, logits, labels = drawn([(2, 40), (3, 30)])
    half = logits.to(dtype)
    sums, _ = answer_losses(half.requires_grad_(), labels)
    assert sums.dtype == torch.float32
    torch.testing.assert_close(sums, answer_losses(half.float(), labels)[0])


def test_it_has_no_state():
    objective = TokenMean()
    objective.step()
    objective.load_state_dict(objective.state_dict())
    assert objective.state_dict() == {}
