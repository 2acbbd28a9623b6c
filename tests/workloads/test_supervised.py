"""`nfa.Supervised`: a workload from a function that makes a model and datasets; every study works on it."""

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset, TensorDataset

import nfa
from nfa.analyses.alignment import Analysis
from nfa.analyses.gradient_directions import GradientAnalysis
from nfa.analyses.gradient_flow import FlowAnalysis
from nfa.errors import Refusal
from nfa.measures.evaluation import evaluate_split
from nfa.observe.passes import site_weights
from nfa.registry.analyses.config import AnalyzeConfig, GradientDirectionsConfig, GradientFlowConfig
from nfa.workload import Workload
from tests.support.toy_models import layers

CLASSES = 3
X = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
Y = torch.arange(60) // 20


def loss(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(outputs, targets, reduction="none")


def accuracy(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs.argmax(dim=1) == targets).float()


class Items(Dataset):
    """Examples in one form or another."""

    def __init__(self, make: Callable[[int], Any], count: int = 60) -> None:
        self.make, self.count = make, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, place: int) -> Any:
        if place >= self.count:
            raise IndexError(place)
        return self.make(place)


FORMS = {
    "tensors": TensorDataset(X, Y),
    "pairs": Items(lambda place: (X[place], int(Y[place]))),
    "dicts": Items(lambda place: {"input": X[place], "labels": Y[place]}),
    "lists": Items(lambda place: {"input": X[place].tolist(), "label": int(Y[place])}),
}


def supervised(train: Any = FORMS["tensors"], **options: Any) -> nfa.Supervised:
    given = {"model": lambda: layers(4, 6, CLASSES), "loss": loss, "val": train, "device": "cpu"}
    return nfa.Supervised(train=train, **{**given, **options})


@pytest.mark.parametrize("form", FORMS)
def test_ids_are_places_in_the_dataset_and_batches_are_those_examples(form: str) -> None:
    workload = supervised(FORMS[form])
    assert isinstance(workload, Workload)
    assert list(workload.ids("train")) == list(range(60))
    (batch,) = workload.batches("train", batch_size=10, ids=[7, 40, 3])
    inputs = batch.inputs["input"] if isinstance(batch.inputs, dict) else batch.inputs
    assert torch.equal(inputs, X[[7, 40, 3]])
    assert batch.targets.tolist() == Y[[7, 40, 3]].tolist()
    assert batch.ids.tolist() == [7, 40, 3]
    assert [len(part) for part in workload.batches("val", batch_size=25)] == [25, 25, 10]
    assert list(workload.batches("val", batch_size=25, ids=[])) == []


def test_a_model_is_the_same_at_every_call_and_moves_no_generator() -> None:
    def made() -> nn.Module:
        net = layers(4, 6, CLASSES)
        net.register_buffer("drawn", torch.tensor([random.random(), np.random.rand()]))
        return net

    workload = supervised(model=made)
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    first, second = workload.model().state_dict(), workload.model().state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before[:2]
    assert torch.equal(torch.get_rng_state(), before[2])
    other = supervised(model=made, seed=1).model().state_dict()
    assert all(not torch.equal(first[name], other[name]) for name in first)


def test_the_probe_holds_the_classes_in_their_shares_for_every_n() -> None:
    for form in FORMS.values():
        probe = supervised(form).ids("probe")
        assert sorted(probe) == list(range(60))
        for n in (3, 9, 30):
            assert Y[probe[:n]].bincount(minlength=3).tolist() == pytest.approx([n / 3] * 3, abs=1)


def test_without_classes_the_probe_is_the_training_set_as_it_comes() -> None:
    workload = supervised(TensorDataset(X, X[:, :1]), loss=lambda f, y: (f[:, :1] - y).square().mean(dim=1))
    assert list(workload.ids("probe")) == list(range(60))
    assert workload.classes(next(workload.batches("train", batch_size=4))) is None


def test_of_a_large_dataset_only_some_labels_are_read() -> None:
    read: list[int] = []

    def make(place: int) -> tuple[Tensor, int]:
        read.append(place)
        return X[0], place // 10_000

    workload = supervised(Items(make, 20_000))
    read.clear()
    probe = workload.ids("probe")
    assert len(set(read)) <= 4097
    assert sorted(probe) == list(range(20_000))
    assert sum(place >= 10_000 for place in probe[:100]) == pytest.approx(50, abs=3)


def test_losses_metrics_and_classes_are_of_each_example() -> None:
    workload = supervised(metrics={"accuracy": accuracy}, test=FORMS["pairs"])
    model, batch = workload.model(), next(workload.batches("test", batch_size=60))
    outputs = workload.outputs(model, batch)
    assert torch.equal(workload.losses(outputs, batch), loss(model(X), Y))
    assert torch.equal(workload.classes(batch), Y)
    assert workload.described_loss(plain=True) == "loss"
    found = evaluate_split(model, workload, "test")
    assert found["test/accuracy"] == pytest.approx(float(accuracy(model(X), Y).mean()))


# ---- studies


def test_every_study_works_on_it_and_does_not_depend_on_how_it_is_given() -> None:
    found = []
    for form in ("tensors", "dicts"):
        workload = supervised(FORMS[form], outputs=_call)
        model = workload.model()
        start = {name: weight.detach() / 2 for name, weight in model.named_parameters()}
        analysis = Analysis(
            workload,
            model,
            AnalyzeConfig(max_samples=30, relations="all", top_k=2),
            lambda names, sites, on=(workload, model): {
                name: weight / 2 for name, weight in site_weights(*on, names, sites).items()
            },
        )
        directions = GradientAnalysis(workload, model, GradientDirectionsConfig(n=30))
        flow = FlowAnalysis(workload, model, GradientFlowConfig(n=30), start)
        found.append({**analysis.values(model), **directions(model).scalars, **flow(model)})
    assert found[0] == pytest.approx(found[1], rel=1e-5)
    assert {"0/agop_nfm_init_removed", "0/fact_nfm", "gradient/silhouette", "flow/0/grad_rms"} <= found[0].keys()
    assert found[0]["flow/0/weight_change"] == pytest.approx(1)


def _call(model: nn.Module, inputs: Any) -> Tensor:
    outputs: Tensor = model(inputs["input"] if isinstance(inputs, dict) else inputs)
    return outputs


# ---- sequences


WORDS = [torch.tensor([4, 2, 7]), torch.tensor([3]), torch.tensor([5, 6])]


def padded(items: list[Any]) -> Any:
    tokens = nn.utils.rnn.pad_sequence([words for words, _ in items], batch_first=True)
    return tokens, torch.tensor([label for _, label in items])


def masked(items: list[Any]) -> Any:
    tokens, labels = padded(items)
    return {"tokens": tokens, "attention_mask": (tokens > 0).long(), "labels": labels}


def test_own_positions_come_from_the_attention_mask_or_from_present() -> None:
    rows = [(words, 0) for words in WORDS]
    by_mask = supervised(rows, collate=masked)
    by_hand = supervised(rows, collate=padded, present=lambda tokens: tokens > 0)
    for workload in (by_mask, by_hand):
        assert next(workload.batches("train", batch_size=3)).present.sum(dim=1).tolist() == [3, 1, 2]
    assert next(by_mask.batches("train", batch_size=1)).present is None


def test_padded_sequences_without_either_are_refused() -> None:
    with pytest.raises(Refusal, match=r"look padded.*\n  allowed: an attention_mask among the inputs, or present="):
        supervised([(words, 0) for words in WORDS], collate=padded)


def test_sequences_of_different_lengths_are_refused_where_nothing_pads_them() -> None:
    with pytest.raises(Refusal, match=r"combined into one batch .*\n.*pads them and returns an attention_mask"):
        supervised([(words, 0) for words in WORDS])


# ---- refusals


def test_a_reduced_loss_and_a_reduced_metric_are_refused() -> None:
    workload = supervised(loss=F.cross_entropy, metrics={"accuracy": lambda f, y: accuracy(f, y).mean()})
    batch = next(workload.batches("train", batch_size=6))
    outputs = workload.outputs(workload.model(), batch)
    with pytest.raises(Refusal, match=r"losses of shape \(\) for 6 examples\n.*\n  do: .*reduction='none'"):
        workload.losses(outputs, batch)
    with pytest.raises(Refusal, match=r"metric 'accuracy' of shape \(\) for 6 examples\n  allowed: one value for each"):
        workload.metrics(outputs, batch)


class Stream(IterableDataset):
    def __iter__(self) -> Any:
        return iter([])


@pytest.mark.parametrize(
    ("train", "match"),
    [
        (TensorDataset(X[:0], Y[:0]), "a dataset without examples"),
        (Stream(), r"a Stream without a length or without items\n  allowed: a map-style Dataset"),
        (Items(lambda place: X[place]), r"examples that are a Tensor\n  allowed: pairs \(inputs, targets\), or dicts"),
        (Items(lambda place: {"x": X[place]}), "examples with x, but without labels"),
        (Items(lambda place: (X[place], X[place], Y[place])), "a list of 3|a tuple of 3"),
    ],
)
def test_what_is_no_dataset_of_examples_is_refused_at_once(train: Any, match: str) -> None:
    with pytest.raises(Refusal, match=match):
        supervised(train)


def test_a_split_that_was_not_given_and_a_device_that_is_none_are_refused() -> None:
    with pytest.raises(Refusal, match="split 'test'\n  allowed: train, val, probe\n  do: pass a dataset to Supervised"):
        supervised().ids("test")
    with pytest.raises(Refusal, match="device='gpu'"):
        supervised(device="gpu")
