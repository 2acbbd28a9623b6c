"""Workloads that are ready by name: made from plain arguments, right in every study, and learning what they show."""

import ast
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

import nfa
from nfa.analyses.alignment import Analysis
from nfa.analyses.parameters import AlignmentParameters
from nfa.errors import Refusal
from nfa.figures.gradient_words import gradients_of
from nfa.measures.evaluation import evaluate_split
from nfa.plain_text import loss_in_words
from nfa.registry.datasets import image_files, images, splits
from nfa.registry.datasets.tensor_datasets import image_datasets
from nfa.registry.places import named
from nfa.registry.ready import READY
from nfa.registry.ready.cnn import cnn
from nfa.registry.ready.modular_addition import modular_addition
from nfa.registry.ready.multi_index import multi_index
from nfa.registry.ready.resnet import resnet
from nfa.registry.ready.sparse_parity import sparse_parity
from nfa.registry.ready.transformer import transformer
from nfa.seeding import generator
from nfa.testing import check_workload
from tests.support.processes import ROOT

MADE: dict[str, Callable[..., Any]] = {name: named(place) for name, place in READY.items()}
TINY: dict[str, tuple[Callable[..., Any], Mapping[str, Any]]] = {
    "cnn": (cnn, {"width": 2, "depth": 2}),
    "resnet": (resnet, {"width": 2}),
    "transformer": (transformer, {"modulus": 5, "width": 8, "heads": 2, "depth": 1}),
    "transformer on text": (transformer, {"task": "text", "context": 6, "width": 8, "heads": 2, "depth": 1}),
    "modular-addition": (modular_addition, {"modulus": 5, "width": 8}),
    "sparse-parity": (sparse_parity, {"bits": 6, "width": 8, "examples": 40}),
    "multi-index": (multi_index, {"size": 5, "width": 8, "examples": 40}),
}
LONG = ("resnet", "transformer on text")  # to compare, one example at a time


def made(name: str, **more: Any) -> Any:
    make, arguments = TINY[name]
    return make(**{**arguments, **more})


def trained(workload: Any, epochs: int, *, lr: float, weight_decay: float = 0, batch_size: int = 32) -> torch.nn.Module:
    """By AdamW, in the order of our loop."""
    model, ids = workload.model(), torch.as_tensor(workload.ids("train"))
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=weight_decay)
    for epoch in range(epochs):
        order = ids[torch.randperm(len(ids), generator=generator(0, f"order/{epoch}"))]
        for batch in workload.batches("train", batch_size=batch_size, ids=order):
            optimizer.zero_grad()
            workload.losses(workload.outputs(model.train(), batch), batch).mean().backward()
            optimizer.step()
    return model


def shares(workload: Any, model: torch.nn.Module) -> dict[str, float]:
    """In the known features of the first layer."""
    values = Analysis(workload, model, AlignmentParameters(relations="agop_nfm"), None).values(model)
    return {key.removeprefix("0/"): value for key, value in values.items() if "known" in key}


# ---- all of them


def test_the_names_that_are_registered_are_those_of_the_files() -> None:
    files = {path.stem for path in (ROOT / "nfa/registry/ready").glob("*.py")} - {"__init__"}
    assert {name.replace("-", "_") for name in READY} == {make.__name__ for make in MADE.values()} == files


@pytest.mark.parametrize("name", READY)
def test_a_file_is_short_and_its_function_has_plain_arguments_with_defaults(name: str) -> None:
    make = MADE[name]
    text = Path(inspect.getfile(make)).read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 90
    for argument in inspect.signature(make).parameters.values():
        assert argument.annotation in (int, float, str, bool)
        assert isinstance(argument.default, argument.annotation)
    assert make.__module__ == f"nfa.registry.ready.{make.__name__}"
    imported = [node.module or "" for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ImportFrom)]
    assert not {module.split(".")[0] for module in imported} - {"nfa", "torch"}


@pytest.mark.parametrize("name", TINY)
def test_a_workload_has_three_splits_and_the_same_model_and_examples_at_every_call(name: str) -> None:
    first, second = made(name), made(name)
    assert type(first) is nfa.Supervised
    weights = [list(workload.model().parameters()) for workload in (first, second)]
    assert all(torch.equal(*pair) for pair in zip(*weights, strict=True))
    for split in ("train", "val", "test"):
        one, other = (next(workload.batches(split, batch_size=2)) for workload in (first, second))
        assert torch.equal(one.inputs, other.inputs)
        assert torch.equal(one.targets, other.targets)
        assert len(first.losses(first.outputs(first.model().eval(), one), one)) == 2


@pytest.mark.parametrize("name", TINY)
def test_figures_can_say_which_loss_it_is(name: str) -> None:
    workload = made(name)
    words = loss_in_words(workload.described_loss(plain=True))
    assert words in ("cross-entropy", "squared error")
    inputs = next(workload.batches("val", batch_size=2))
    assert f"({words})" in gradients_of({"loss": workload.described_loss(plain=False)}, len(inputs))


@pytest.mark.parametrize("name", [name for name in TINY if name != "transformer on text"])
def test_another_seed_gives_other_weights_and_another_split(name: str) -> None:
    first, second = made(name), made(name, seed=1)
    assert not torch.equal(*(next(iter(workload.model().parameters())) for workload in (first, second)))
    one, other = (next(workload.batches("train", batch_size=20)) for workload in (first, second))
    assert not torch.equal(one.inputs, other.inputs)


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow if name in LONG else ()) for name in TINY])
def test_every_study_of_a_workload_agrees_with_the_references_and_changes_nothing(name: str) -> None:
    found = check_workload(lambda: made(name))
    assert found.ok
    assert not found.unseen
    assert not found.unchecked


# ---- images


def test_images_are_split_as_those_of_train_and_pixels_go_from_0_to_1() -> None:
    data, found = images.load("digits", image_files.locate("digits")), image_datasets("digits", seed=7)
    ids = splits.decide(data.train_labels, data.test_labels, seed=7, label_noise=0, classes=10)
    for name, (pixels, labels) in {
        "train": (data.train_images, data.train_labels),
        "val": (data.train_images, data.train_labels),
        "test": (data.test_images, data.test_labels),
    }.items():
        inputs, targets = found[name].tensors
        assert inputs.shape == (len(ids[name]), 1, 8, 8)
        assert torch.equal(inputs.flatten(1), torch.tensor(pixels[ids[name]], dtype=torch.float32) / 16)
        assert targets.tolist() == labels[ids[name]].tolist()


def test_channels_come_before_rows_and_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = torch.arange(3072).remainder(251).to(torch.uint8).repeat(10, 1).numpy()
    data = images.ImageData("svhn", 255.0, pixels, torch.arange(10).numpy(), pixels, torch.arange(10).numpy())
    monkeypatch.setattr(image_files, "locate", lambda *_: {})
    monkeypatch.setattr(images, "load", lambda *_: data)
    image = image_datasets("svhn")["test"][3][0]
    assert image.shape == (3, 32, 32)
    assert float(image[2, 5, 7]) == pytest.approx((2 * 1024 + 5 * 32 + 7) % 251 / 255)


@pytest.mark.parametrize("make", [cnn, resnet])
def test_a_data_set_that_is_missing_is_refused_as_train_refuses_it(make: Callable[..., Any], tmp_path: Path) -> None:
    with pytest.raises(Refusal) as said:
        image_files.locate("svhn", str(tmp_path))
    with pytest.raises(Refusal) as refused:
        make(dataset="svhn", data_dir=str(tmp_path))
    assert str(refused.value) == str(said.value)
    with pytest.raises(Refusal, match="dataset='mnist'"):
        make(dataset="mnist")


@pytest.mark.parametrize("side", [28, 32])
def test_networks_take_images_of_every_size(side: int) -> None:
    for name in ("cnn", "resnet"):
        assert made(name).model()(torch.zeros(2, 1, side, side)).shape == (2, 10)


@pytest.mark.parametrize(("name", "epochs"), [("cnn", 3), ("resnet", 1)])
def test_images_are_learned_in_a_few_epochs(name: str, epochs: int) -> None:
    workload = made(name, width=4)
    assert evaluate_split(trained(workload, epochs, lr=0.01), workload, "val")["val/accuracy"] > 0.4  # by chance 0.1


# ---- sequences


def test_a_token_of_text_is_predicted_from_those_up_to_its_own() -> None:
    workload = made("transformer on text")
    model, batch = workload.model().eval(), next(workload.batches("train", batch_size=3))
    assert torch.equal(batch.inputs[:, 1:], batch.targets[:, :-1])
    changed = batch.inputs.clone()
    changed[:, 4] = (changed[:, 4] + 1) % 5
    before, after = model(batch.inputs), model(changed)
    torch.testing.assert_close(before[:, :4], after[:, :4])
    assert not torch.allclose(before[:, 4], after[:, 4])


def test_a_text_of_ones_own_is_learned_and_one_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "mine.txt"
    file.write_text("abcdé" * 400, encoding="utf-8")
    workload = made("transformer on text", text=str(file))
    assert workload.model().tokens.num_embeddings == 5
    assert evaluate_split(trained(workload, 3, lr=0.01), workload, "val")["val/accuracy"] > 0.6  # by chance 0.2
    with pytest.raises(Refusal, match="text="):
        made("transformer on text", text=str(tmp_path / "none.txt"))
    file.write_text("abc", encoding="utf-8")
    with pytest.raises(Refusal, match="text="):
        made("transformer on text", text=str(file))
    with pytest.raises(Refusal, match="task='sums'"):
        made("transformer", task="sums")


def test_a_transformer_learns_to_add() -> None:
    workload = made("transformer", modulus=7, width=32)
    model = trained(workload, 40, lr=0.01, batch_size=8)
    assert evaluate_split(model, workload, "train")["train/accuracy"] > 0.5  # by chance 0.14


# ---- worlds whose right features are known


def test_sparse_parity_is_learned_and_its_features_are_its_bits() -> None:
    workload = sparse_parity(bits=12, relevant=2, width=32, examples=500)
    start, model = workload.model(), trained(workload, 8, lr=0.02)
    assert evaluate_split(model, workload, "val")["val/accuracy"] > 0.9  # by chance 0.5
    before, after = shares(workload, start), shares(workload, model)
    assert after["agop_known_chance"] == after["nfm_known_chance"] == 2 / 12
    assert before["agop_known"] < 0.35
    assert after["agop_known"] > 0.7
    assert after["nfm_known"] > before["nfm_known"]


def test_a_parity_is_that_of_the_known_bits() -> None:
    workload = sparse_parity(bits=9, relevant=3, examples=50)
    batch = next(workload.batches("val", batch_size=50))
    basis = workload.known_features()["0"].basis
    bits = basis.abs().sum(dim=1) > 0.5
    assert int(bits.sum()) == 3
    assert torch.equal(batch.inputs[:, bits].prod(dim=1) > 0, batch.targets == 1)


def test_multi_index_is_learned_and_its_features_are_its_directions() -> None:
    workload = multi_index(size=10, directions=2, width=32, examples=500)
    start, model = workload.model(), trained(workload, 8, lr=0.02)
    assert evaluate_split(model, workload, "val")["val/loss"] < 0.6 * evaluate_split(start, workload, "val")["val/loss"]
    before, after = shares(workload, start), shares(workload, model)
    assert after["agop_known_chance"] == pytest.approx(2 / 10)
    assert after["agop_known"] > max(0.6, before["agop_known"])


def test_targets_of_a_multi_index_depend_on_the_known_directions_alone_and_have_variance_1() -> None:
    workload = multi_index(size=8, directions=2, examples=4000)
    batch = next(workload.batches("train", batch_size=4000))
    first, second = (batch.inputs.double() @ workload.known_features()["0"].basis).T  # the basis is U but for signs
    ways = [a * first * (1 + b * second) / 2**0.5 for a in (1, -1) for b in (1, -1)]
    assert any(torch.allclose(way[:, None], batch.targets.double(), atol=1e-4) for way in ways)
    assert float(batch.targets.var()) == pytest.approx(1, abs=0.15)


def test_modular_addition_is_learned_by_heart_first() -> None:
    workload = modular_addition(modulus=7, width=32)
    model = trained(workload, 60, lr=0.01, batch_size=8)
    assert evaluate_split(model, workload, "train")["train/accuracy"] > 0.9  # by chance 0.14
    found = shares(workload, model)
    assert found.keys() == {"agop_known", "agop_known_chance", "nfm_known", "nfm_known_chance"}
    assert 0 < found["agop_known_chance"] < 0.15


def test_all_pairs_are_there_once() -> None:
    workload = modular_addition(modulus=5, train_share=0.6)
    seen = []
    for split in ("train", "val", "test"):
        batch = next(workload.batches(split, batch_size=25))
        a, b = batch.inputs[:, :5].argmax(dim=1), batch.inputs[:, 5:].argmax(dim=1)
        assert torch.equal(batch.inputs.sum(dim=1), torch.full((len(batch),), 2.0))
        assert torch.equal((a + b) % 5, batch.targets)
        seen += list(zip(a.tolist(), b.tolist(), strict=True))
    assert len(set(seen)) == len(seen) == 25
    assert [len(workload.ids(split)) for split in ("train", "val", "test")] == [15, 5, 5]


@pytest.mark.slow
def test_unseen_sums_are_grasped_long_after_the_seen_ones_and_the_features_come_with_it() -> None:
    workload = modular_addition()
    early, late = (trained(workload, epochs, lr=0.001, weight_decay=0.5) for epochs in (30, 240))
    by_heart, grasped = ({"train": evaluate_split(model, workload, "train")["train/accuracy"],
                          "val": evaluate_split(model, workload, "val")["val/accuracy"],
                          **shares(workload, model)} for model in (early, late))  # fmt: skip
    assert by_heart["train"] == 1
    assert by_heart["val"] < 0.2 < 0.98 < grasped["val"]
    assert by_heart["agop_known"] < 0.15 < 0.4 < grasped["agop_known"]


@pytest.mark.parametrize(
    ("make", "wrong"),
    [
        (modular_addition, {"modulus": 3}),
        (modular_addition, {"train_share": 1.0}),
        (modular_addition, {"activation": "tanh"}),
        (sparse_parity, {"bits": 4, "relevant": 5}),
        (sparse_parity, {"relevant": 0}),
        (multi_index, {"size": 2}),
        (multi_index, {"directions": 0}),
    ],
)
def test_arguments_that_make_no_sense_are_refused(make: Callable[..., Any], wrong: dict[str, Any]) -> None:
    with pytest.raises(Refusal, match=next(iter(wrong))):
        make(**wrong)
