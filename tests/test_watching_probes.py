"""Whatever examples and outputs come in: what is clear is taken, everything else is refused with a remedy."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn as nn
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, Dataset, IterableDataset, SubsetRandomSampler, TensorDataset

import nfa
from nfa.errors import Refusal
from nfa.watching.probes import probe_of
from nfa.workloads.examples import call, look_padded
from tests.support.stores import Store
from tests.support.toy_models import seeded
from tests.test_watching import CLASSES, cross_entropy, in_a_run, once, only, plain


def taken(given: Any, examples: int = 512) -> Any:
    """The examples that are analysed of a probe."""
    return probe_of(nn.Identity(), cross_entropy, given, call, present=None, examples=examples).all


# ---- forms of a probe


class Sorted(Dataset):
    """Thirty examples, sorted by class; an item notes that it was read."""

    def __init__(self, form: str) -> None:
        self.form, self.read = form, []

    def __len__(self) -> int:
        return 30

    def __getitem__(self, place: int) -> Any:
        self.read.append(place)
        label, x = place // 10, torch.full((4,), float(place))
        items = {
            "pair": (x, label),
            "tensors": (x, torch.tensor(label)),
            "dict": {"x": x, "labels": label},
            "numbers": (x, float(label)),
        }
        return items[self.form]


@pytest.mark.parametrize("form", ["pair", "tensors", "dict"])
@pytest.mark.parametrize("loaded", [False, True])
def test_a_dataset_gives_examples_with_the_classes_in_their_shares(form: str, loaded: bool) -> None:
    data = Sorted(form)
    found = taken(DataLoader(data, batch_size=4, shuffle=True, num_workers=2) if loaded else data, examples=9)
    assert found.targets.bincount().tolist() == [3, 3, 3]
    inputs = found.inputs["x"] if form == "dict" else found.inputs
    assert (inputs[:, 0] // 10).tolist() == found.targets.tolist()


def test_of_targets_that_are_no_classes_the_first_examples_are_taken_and_no_more_are_read() -> None:
    data = Sorted("numbers")
    assert taken(data, examples=5).inputs[:, 0].tolist() == [0, 1, 2, 3, 4]
    assert set(data.read) == {0, 1, 2, 3, 4}


def test_a_dataset_that_can_only_be_iterated_gives_its_first_examples() -> None:
    class Stream(IterableDataset):
        def __iter__(self) -> Iterator[Any]:
            return iter([(torch.full((4,), float(place)), 0) for place in range(30)])

    assert taken(DataLoader(Stream(), batch_size=7), examples=5).inputs[:, 0].tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("batched", [False, True])
def test_of_a_loader_that_draws_from_a_part_of_its_dataset_only_this_part_is_taken(batched: bool) -> None:
    """As where one dataset is split into examples that train and examples that validate."""
    sampler = SubsetRandomSampler(range(5, 25))
    how: Any = {"batch_sampler": BatchSampler(sampler, 4, False)} if batched else {"sampler": sampler, "batch_size": 4}
    found = taken(DataLoader(Sorted("pair"), **how))
    assert sorted(found.inputs[:, 0].tolist()) == list(range(5, 25))
    assert found.targets.bincount().tolist() == [5, 10, 5]


def test_reading_moves_no_generator_and_collates_as_the_loader_does() -> None:
    class Drawn(Sorted):
        def __getitem__(self, place: int) -> Any:
            x, label = super().__getitem__(place)
            return x + torch.rand(4), label

    def doubled(items: list[Any]) -> tuple[Tensor, Tensor]:
        return torch.stack([2 * x for x, _ in items]), torch.tensor([label for _, label in items])

    before = torch.get_rng_state()
    found = taken(DataLoader(Drawn("pair"), batch_size=4, shuffle=True, collate_fn=doubled), examples=6)
    assert torch.equal(torch.get_rng_state(), before)
    assert (found.inputs[:, 0] >= 2 * 10 * found.targets).all()


def test_a_list_of_dicts_is_a_dataset_and_lists_of_numbers_in_it_are_tensors() -> None:
    rows = [{"x": [1.0, 2.0, 3.0, float(place)], "labels": place % 2} for place in range(6)]
    found = taken(rows, examples=4)
    assert found.inputs["x"].shape == (4, 4)
    assert sorted(found.targets.tolist()) == [0, 0, 1, 1]


@in_a_run
def test_a_probe_has_the_same_values_in_every_form() -> None:
    net, x, y = plain()
    direct = once(net, x, y)
    named = seeded(Named)
    data = TensorDataset(x, y)
    forms = [(net, [x, y]), (net, data), (net, DataLoader(data)), (named, {"x": x, "labels": y})]
    for number, (model, given) in enumerate(forms):
        with nfa.watch(model, cross_entropy, given, prefix=f"{number}/") as watch:
            found = watch.record(0)
        values = {key.removeprefix(f"{number}/").removeprefix("net."): value for key, value in found.items()}
        errors = {key for key in direct if key.endswith(("_se", "_unbiased"))}  # none for a whole dataset
        assert {key: values[key] for key in direct.keys() - errors} == pytest.approx(
            {key: direct[key] for key in direct.keys() - errors}, abs=1e-6
        )
        assert values.keys() - errors == direct.keys() - errors


class Named(nn.Module):
    """The plain network with a named input."""

    def __init__(self) -> None:
        super().__init__()
        self.net = plain()[0]

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.net(x)
        return outputs


class Uneven(Sorted):
    def __getitem__(self, place: int) -> Any:
        return torch.zeros(place + 1), 0


X, Y = torch.randn(9, 4), torch.randint(CLASSES, (9,))


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"x": X}, "examples with x, but without labels\n.*\n  do: pass pairs"),
        ((X, X, Y), "a probe that is a tuple\n  allowed: .*a DataLoader, a Dataset"),
        (X, "a probe that is a Tensor"),
        (None, "a probe that is a NoneType"),
        (iter([(X, Y)]), "a probe that is a"),
        (Sorted("pair"), "examples=0\n"),
        (Uneven("pair"), "cannot be combined into one batch .*\n.*\n  do: pass a DataLoader with its collate_fn"),
        (TensorDataset(X[:0], Y[:0]), "a dataset without examples"),
        (TensorDataset(X, X, Y), "examples that are a tuple of 3\n.*\n  do: put all inputs into one"),
        (DataLoader([(X, Y)], batch_size=None), r"batch_size=None.*\n.*\n  do: .*next\(iter\(loader\)\)"),
        ({"x": X, "name": list("abcdefghi"), "labels": Y}, "examples with a str among them"),
    ],
)
@in_a_run
def test_what_is_no_probe_is_refused_with_a_remedy(given: Any, match: str) -> None:
    with pytest.raises(Refusal, match=match):
        nfa.watch(plain()[0], cross_entropy, given, examples=0 if "examples=0" in match else 8)


@in_a_run
def test_how_many_examples_is_a_whole_number() -> None:
    with pytest.raises(Refusal, match="examples='all'\n  allowed: a whole number"):
        nfa.watch(plain()[0], cross_entropy, TensorDataset(X, Y), examples="all")


# ---- outputs


class Answering(nn.Module):
    """Answers in one form or another."""

    def __init__(self, form: Any) -> None:
        super().__init__()
        self.net, self.form = plain()[0], form

    def forward(self, x: Tensor) -> Any:
        return self.form(self.net(x))


ANSWERS = {
    "tensor": lambda logits: logits,
    "logits": lambda logits: SimpleNamespace(logits=logits),
    "dict": lambda logits: {"loss": None, "logits": logits},
    "tuple": lambda logits: (logits, None),
    "list": lambda logits: [logits, logits],
}


@pytest.mark.parametrize("form", ANSWERS)
def test_what_a_model_answers_with_is_understood(form: str) -> None:
    net = Answering(ANSWERS[form])
    assert torch.equal(call(net, X), net.net(X))


@pytest.mark.parametrize("form", [lambda f: {"hidden": f}, lambda f: (None, f), lambda _: 3.0, lambda _: ()])
@in_a_run
def test_any_other_answer_is_refused_and_the_remedy_works(form: Any) -> None:
    net = Answering(form)
    with pytest.raises(Refusal, match=r"a model that returns a .*\n.*\n  do: select the tensor"):
        nfa.watch(net, cross_entropy, (X, Y))
    with nfa.watch(net, cross_entropy, (X, Y), outputs=lambda model, inputs: model.net(inputs)) as watch:
        assert "net.0/h_vs_m" in watch.record(0)


# ---- padding


TOKENS = torch.tensor([[5, 3, 7, 9, 4], [4, 8, 3, 0, 0], [6, 2, 0, 0, 0], [3, 9, 5, 2, 0]])
MASK = (TOKENS != 0).long()


@pytest.mark.parametrize(
    ("inputs", "padded"),
    [
        (TOKENS, True),
        (TOKENS.int(), True),
        (TOKENS.flip(1), True),
        ({"input_ids": TOKENS}, True),
        ([torch.zeros(4, 2), TOKENS], True),
        (torch.cat([TOKENS, torch.zeros(4, 8, dtype=torch.int64)], dim=1), True),
        (torch.where(TOKENS == 0, 7, TOKENS), False),  # 7 is a word too
        (TOKENS[:, :3].clamp(1), False),
        (torch.tensor([[5, 3, 2], [4, 7, 2], [7, 9, 4]]), False),  # two that are ended and one that is cut
        (torch.tensor([[5, 2, 2], [4, 2, 2]]), False),  # of one length
        (torch.arange(5).expand(4, 5), False),
        (torch.zeros(4, 5, dtype=torch.int64), False),
        (TOKENS.float(), False),
        (TOKENS == 0, False),
        (TOKENS[0], False),
    ],
    ids=str,
)
def test_sequences_look_padded_where_runs_of_one_number_end_or_begin_them(inputs: Any, padded: bool) -> None:
    assert look_padded(inputs) is padded


class Reader(nn.Module):
    """Reads each word alone; the readout sees the mean over the words of the mask."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.layer, self.readout = nn.Embedding(10, 6), nn.Linear(6, 6), nn.Linear(6, CLASSES)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        read = torch.tanh(self.layer(self.words(input_ids))) * mask[:, :, None]
        outputs: Tensor = self.readout(read.sum(dim=1) / mask.sum(dim=1, keepdim=True))
        return outputs


@in_a_run
def test_padded_sequences_are_refused_unless_something_says_which_positions_count() -> None:
    net, y = seeded(Reader), torch.tensor([0, 1, 2, 0])
    match = "look padded.*\n  allowed: an attention_mask among the inputs, or present=\n"
    rows = [{"input_ids": row, "labels": label} for row, label in zip(TOKENS, y, strict=True)]
    for given in [(TOKENS, y), ({"input_ids": TOKENS}, y), {"input_ids": TOKENS, "labels": y}, rows]:
        with pytest.raises(Refusal, match=match):
            nfa.watch(net, cross_entropy, given)
    everything = torch.ones_like(TOKENS)
    with nfa.watch(net, cross_entropy, ({"input_ids": TOKENS}, y), present=everything) as watch:
        assert "layer/h_vs_m" in watch.record(0)


@in_a_run
def test_padding_changes_nothing_where_the_mask_says_what_it_is() -> None:
    net, y = seeded(Reader), torch.tensor([0, 1, 2, 0])
    wide = {name: torch.cat([part, torch.zeros(4, 8, dtype=torch.int64)], dim=1) for name, part in _masked().items()}
    found = []
    for width, inputs in enumerate((_masked(), wide)):
        values = once(net, inputs, y, sites="layer", prefix=f"{width}/")
        found.append({key.rpartition("/")[2]: value for key, value in values.items()})
    assert found[0] == pytest.approx(found[1], abs=1e-6)
    h = net.words(TOKENS[MASK.bool()]).detach().double()
    second, square = h.T @ h, net.layer.weight.detach().double().T @ net.layer.weight.detach().double()
    assert found[0]["h_vs_m"] == pytest.approx(float((second * square).sum() / second.norm() / square.norm()), abs=1e-6)


def _masked() -> dict[str, Tensor]:
    return {"input_ids": TOKENS, "attention_mask": MASK}


@in_a_run
def test_present_by_hand_is_as_good_as_a_mask_among_the_inputs() -> None:
    net, y = seeded(Reader), torch.tensor([0, 1, 2, 0])
    hidden = lambda model, inputs: model(inputs["ids"], inputs["mask"])  # noqa: E731
    by_hand = {"ids": TOKENS, "mask": MASK}
    with nfa.watch(net, cross_entropy, (by_hand, y), present=MASK.bool(), outputs=hidden, prefix="hand/") as watch:
        found = {key.removeprefix("hand/"): value for key, value in watch.record(0).items()}
    assert found == pytest.approx(once(net, _masked(), y), abs=1e-6)


@pytest.mark.parametrize("present", [MASK[:3], MASK[:, 0], torch.zeros(4, 5)])
@in_a_run
def test_present_of_other_examples_or_of_none_is_refused(present: Tensor) -> None:
    with pytest.raises(Refusal, match=r"present of shape .* for 4 examples"):
        nfa.watch(seeded(Reader), cross_entropy, ({"input_ids": TOKENS}, torch.zeros(4).long()), present=present)


def test_what_the_probe_says_of_padding_is_left_to_the_items_of_a_dataset(run: Store) -> None:
    rows = [{"input_ids": row, "attention_mask": mask, "labels": 0} for row, mask in zip(TOKENS, MASK, strict=True)]
    with pytest.raises(Refusal, match="present= with a DataLoader or a Dataset"):
        nfa.watch(seeded(Reader), cross_entropy, rows, present=MASK)
    with nfa.watch(seeded(Reader), cross_entropy, rows) as watch:
        assert "layer/h_vs_m" in watch.record(0)
    assert run.json(only(run), "alignment.json")["conventions"]["examples"] == 4
