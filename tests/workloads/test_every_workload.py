"""What every workload promises, whichever it is: what it says of an example depends on that example alone."""

from collections.abc import Callable

import pytest
import torch
from decoders import tiny_decoder
from toys import Sequences, half_square, layers, seeded, tiny_classifier, toy

from nfa.protocols import Workload
from nfa.workloads.probe import Probe


def labelled() -> Workload:
    """The workload of `train`, with some labels changed."""
    clean = tiny_classifier()
    ids = {**clean.example_ids, "noisy": [4, 7], "noisy_labels": [0, 2]}
    return type(clean)(clean.config, clean.data, ids)


def own() -> Workload:
    """A model and examples of one's own."""
    random = torch.Generator().manual_seed(0)
    inputs, targets = torch.randn(20, 4, generator=random), torch.randn(20, 3, generator=random)
    return Probe(seeded(layers, 4, 5, 3), half_square, inputs, targets)


WORKLOADS: dict[str, Callable[[], Workload]] = {
    "classifier": tiny_classifier,
    "classifier with wrong labels": labelled,
    "decoder": tiny_decoder,
    "probe": own,
    "toy": lambda: toy(seeded(Sequences, 4, 6, 3), 20, 3, 4, sites=["first", "second"]),
}
WITH_CLASSES = {"classifier", "classifier with wrong labels"}


@pytest.fixture(params=WORKLOADS)
def named(request: pytest.FixtureRequest) -> tuple[str, Workload]:
    return request.param, WORKLOADS[request.param]()


def test_it_is_one(named: tuple[str, Workload]) -> None:
    assert isinstance(named[1], Workload)


def test_every_example_has_one_loss_and_one_value_of_each_metric(named: tuple[str, Workload]) -> None:
    _, workload = named
    batch, model = next(workload.batches("train", batch_size=7)), workload.model()
    outputs = workload.outputs(model, batch)
    assert len(outputs) == len(workload.losses(outputs, batch)) == 7
    assert all(values.shape == (7,) for values in workload.metrics(outputs, batch).values())


def test_a_parameter_is_in_one_group_at_most_and_front_back_and_output_are_groups(named: tuple[str, Workload]) -> None:
    name, workload = named
    model = workload.model()
    groups = workload.groups(model)
    grouped = [parameter for names in groups.names.values() for parameter in names]
    trained = {parameter for parameter, weight in model.named_parameters() if weight.requires_grad}
    assert len(grouped) == len(set(grouped))
    assert set(grouped) <= trained
    assert {groups.front, groups.back, groups.output} <= {*groups.names, None}
    assert groups.output is not None
    if name in ("decoder", "classifier"):
        assert set(grouped) == trained


def test_models_are_the_same_at_every_call(named: tuple[str, Workload]) -> None:
    first, second = (named[1].model().state_dict() for _ in range(2))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_classes_are_one_whole_number_an_example_or_none_at_all(named: tuple[str, Workload]) -> None:
    name, workload = named
    whole = next(workload.batches("train", batch_size=20))
    found = workload.classes(whole)
    assert (found is not None) is (name in WITH_CLASSES)
    if found is not None:
        assert found.shape == (20,)
        assert found.dtype == torch.int64


@pytest.mark.parametrize("name", sorted(WITH_CLASSES))
def test_classes_do_not_depend_on_the_batch_and_are_what_the_labels_say(name: str) -> None:
    workload = WORKLOADS[name]()
    ids = [7, 4, 11, 0]
    (together,) = (workload.classes(batch) for batch in workload.batches("train", batch_size=4, ids=ids))
    alone = [workload.classes(batch) for batch in workload.batches("train", batch_size=1, ids=ids)]
    changed = {4: 0, 7: 2} if name == "classifier with wrong labels" else {}
    assert together is not None
    assert together.tolist() == [int(part) for part in alone if part is not None]
    assert together.tolist() == [changed.get(example, example % 3) for example in ids]
