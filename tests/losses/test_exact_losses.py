"""Losses that are only read are exact to float64, whatever is evaluated; trainings have the losses that they had."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from nfa import reference
from nfa.maths import exact_losses
from nfa.maths.exact_losses import negative_log_likelihood
from nfa.registry.families.eeg.losses import loss_terms
from nfa.registry.families.language.losses import answer_losses
from nfa.registry.families.mlp.ghm import TERMS, Harmonised
from nfa.registry.families.mlp.losses import LOSSES
from nfa.workload import Batch

VOCABULARY = 49_152


def envelope(f: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    return loss_terms(f[:, :, None], F.one_hot(y, f.shape[1])[:, :, None].float())


OF = {
    **LOSSES,
    "answers": lambda f, y: answer_losses(f[:, None], y[:, None])[0],
    "error of an envelope": lambda f, y: envelope(f, y)[0],
    "correlation of an envelope": lambda f, y: envelope(f, y)[1],
    **{f"ghm, {name}": lambda f, y, name=name: TERMS[name](f, y).losses for name in TERMS},
}


def logits_of(rows: int, width: int, scale: float = 3.0) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(0)
    return scale * torch.randn(rows, width, generator=random), torch.randint(width, (rows,), generator=random)


@pytest.mark.parametrize("scale", [0.1, 3.0, 30.0])
def test_a_softmax_over_a_large_vocabulary_is_the_reference_s(scale):
    """In float32 the mean is off by up to some 10⁻⁵."""
    logits, labels = logits_of(40, VOCABULARY, scale)
    found = negative_log_likelihood(logits, labels)
    for row in (0, 17, 39):
        ids = torch.tensor([0, int(labels[row])])
        expected, _ = reference.answer_loss(logits[row : row + 1], ids, start=1)
        assert float(found[row]) == pytest.approx(float(expected), rel=1e-13)
    assert float(found.mean()) == pytest.approx(float(F.cross_entropy(logits.double(), labels)), rel=1e-14)


@pytest.mark.parametrize("name", OF)
def test_what_is_read_is_float64_and_what_is_differentiated_as_before(name):
    logits, labels = logits_of(6, 4)
    read, exactly = OF[name](logits, labels), OF[name](logits.double(), labels)
    assert read.dtype is torch.float64
    torch.testing.assert_close(read, exactly, rtol=1e-15, atol=1e-15)
    learned = OF[name](logits.clone().requires_grad_(), labels)
    assert learned.dtype is torch.float32
    torch.testing.assert_close(learned.detach(), exactly.float())
    with torch.no_grad():
        assert OF[name](logits.clone().requires_grad_(), labels).dtype is torch.float64


def test_a_training_s_likelihood_is_pytorch_s_to_the_bit():
    logits, labels = logits_of(6, 1000)
    one, other = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    negative_log_likelihood(one, labels).sum().backward()
    F.cross_entropy(other, labels, reduction="sum").backward()
    assert torch.equal(one.grad, other.grad)  # type: ignore[arg-type]


def test_no_more_is_widened_at_a_time_than_memory_is_meant_for_it(monkeypatch):
    seen: list[torch.Size] = []

    def likelihood(logits: Tensor, labels: Tensor, **_: Any) -> Tensor:
        seen.append(logits.shape)
        return logits[:, 0] - labels

    monkeypatch.setattr(F, "cross_entropy", likelihood)
    logits, labels = logits_of(300, 100)
    for entries, rows in ((1000, 10), (100, 1), (99, 1), (10**9, 300)):
        monkeypatch.setattr(exact_losses, "ENTRIES", entries)
        seen.clear()
        assert len(negative_log_likelihood(logits, labels)) == 300
        assert max(shape[0] for shape in seen) == rows
    assert 2 * 8 * 2**22 == 64 * 2**20


def test_mixed_precision_narrows_no_loss():
    logits, labels = logits_of(5, 100)
    with torch.autocast("cpu", torch.bfloat16):
        found = negative_log_likelihood(logits, labels)
    assert torch.equal(found, negative_log_likelihood(logits, labels))


def test_without_rows_there_are_no_losses():
    assert len(negative_log_likelihood(torch.zeros(0, 5), torch.zeros(0, dtype=torch.int64))) == 0


def test_the_weighted_loss_that_is_logged_is_exact_too():
    logits, labels = logits_of(50, 4)
    found = []
    for outputs in (logits, logits.double()):
        histogram = Harmonised(TERMS["cross-entropy"], bins=5, momentum=0.0, alpha=0.0).histogram()
        histogram.update(outputs, Batch(None, labels, torch.arange(50)))
        found.append(histogram.values()["ghm/loss"])
    assert found[0] == pytest.approx(found[1], rel=1e-15)
