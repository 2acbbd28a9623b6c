"""The workload of `train_lora`: batches and their losses, the order of questions, what is trained, and its parts."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from nfa import reference
from nfa.errors import Refusal
from nfa.registry.families.language import questions
from nfa.registry.families.language.answer_tokens import IGNORED, collate
from nfa.registry.families.language.base.models import load_model
from nfa.registry.families.language.config import INITS, TrainLoraConfig
from nfa.registry.families.language.workload import LanguageModel
from nfa.registry.families.protocol import StoredTraining
from nfa.registry.families.registry import family
from nfa.workload import Workload
from tests.support.fine_tunings import (
    MODULES,
    OPTIONS,
    STEPS,
    TOO_LONG,
    TRAINED,
    Place,
    factors_for,
    logits_of,
    used_place,
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with used_place(Place.made(tmp_path_factory.mktemp("workload"))) as made:
        yield made


@pytest.fixture(scope="module")
def made(place: Place) -> LanguageModel:
    return place.workload(base_precision="float64")


def of(known: LanguageModel, **changed: Any) -> LanguageModel:
    """The same with other parameters."""
    options = {**OPTIONS, "base_precision": "float64", **changed}
    return LanguageModel(TrainLoraConfig(**options), known.base, known.questions, known.example_ids)


def test_it_is_a_workload(made: LanguageModel) -> None:
    assert isinstance(made, Workload)


# ---- batches and losses


@pytest.mark.parametrize("size", [1, 3, 7])
def test_losses_are_those_of_transformers_on_all_logits(size: int, made: LanguageModel) -> None:
    """Of each batch: the model's own loss with labels on answers is the mean over the batch's answer tokens."""
    model, objective = made.model(), made.objective()
    for batch in made.batches("train", batch_size=size):
        items = batch.ids.tolist()
        starts = [made.questions.starts[item] for item in items]
        tokens, mask, labels = collate([made.questions.ids[item] for item in items], starts)
        with torch.no_grad():
            expected = model(input_ids=tokens, attention_mask=mask, labels=labels).loss
            found = objective(made.outputs(model, batch), batch)
        assert float(found) == pytest.approx(float(expected), rel=1e-6)  # transformers' is in float32


def test_each_loss_is_that_of_the_question_alone(made: LanguageModel) -> None:
    model = made.model()
    (batch,) = made.batches("train", batch_size=TRAINED)
    with torch.no_grad():
        outputs = made.outputs(model, batch)
        losses, metrics = made.losses(outputs, batch), made.metrics(outputs, batch)
    for row, item in enumerate(batch.ids.tolist()):
        ids, start = made.questions.ids[item], made.questions.starts[item]
        loss, count = reference.answer_loss(logits_of(model, ids.tolist()), ids, start)
        assert float(losses[row]) == pytest.approx(float(loss) / count, rel=1e-9)
        assert float(metrics["nll"][row]) == pytest.approx(float(loss), rel=1e-9)
        assert int(metrics["tokens"][row]) == count


def test_targets_are_the_answers_and_their_ends_and_nothing_else(made: LanguageModel) -> None:
    for batch in made.batches("train", batch_size=5):
        assert len(batch.targets) == len(batch)
        for row, item in enumerate(batch.ids.tolist()):
            ids, start = made.questions.ids[item], made.questions.starts[item]
            assert torch.equal(batch.targets[row][batch.targets[row] != IGNORED], ids[start:])


def test_no_logits_are_made_before_the_first_answer_of_a_batch(made: LanguageModel) -> None:
    (batch,) = made.batches("train", batch_size=3, ids=[0, 1, 2])
    asked: list[int] = []
    model = made.model()
    head = model.get_output_embeddings()
    with head.register_forward_hook(lambda _module, inputs, _outputs: asked.append(inputs[0].shape[1])):
        made.outputs(model, batch)
    longest = max(len(made.questions.ids[item]) for item in (0, 1, 2))
    first = min(made.questions.starts[item] for item in (0, 1, 2))
    assert asked == [longest - first + 1]


def test_batches_keep_the_order_of_the_ids(made: LanguageModel) -> None:
    for ids in ([7, 3, 0], torch.tensor([7, 3, 0])):
        found = [batch.ids.tolist() for batch in made.batches("train", batch_size=2, ids=ids)]
        assert found == [[7, 3], [0]]
    assert list(made.batches("train", batch_size=2, ids=[])) == []
    whole = torch.cat([batch.ids for batch in made.batches("val", batch_size=1)])
    assert whole.tolist() == made.ids("val")


# ---- order


@pytest.mark.parametrize("changed", [{"init": init} for init in ("pissa", "full")] + [{"rank": 2}, {"alpha": 1.0}])
def test_the_order_of_questions_depends_on_the_seed_alone(changed: dict[str, Any], made: LanguageModel) -> None:
    other, another_seed = of(made, **changed), of(made, seed=5)
    assert all(torch.equal(other.order(step), made.order(step)) for step in range(12))
    assert any(not torch.equal(another_seed.order(step), made.order(step)) for step in range(5))


def test_every_question_is_seen_once_a_pass_in_another_order_each_time(made: LanguageModel) -> None:
    assert made.steps_per_epoch == 5
    passes = [torch.cat([made.order(5 * epoch + step) for step in range(5)]).tolist() for epoch in range(3)]
    assert all(sorted(seen) == made.ids("train") for seen in passes)
    assert len({tuple(seen) for seen in passes}) == 3
    assert [len(made.order(step)) for step in range(5)] == [4, 4, 4, 4, 2]
    assert not set(made.ids("train")) & set(TOO_LONG)


def test_steps_are_those_asked_for_or_as_many_as_the_epochs_have(made: LanguageModel) -> None:
    assert made.steps == STEPS
    assert of(made, steps=0, epochs=3).steps == 15
    assert of(made, steps=0, batch_size=100, accumulation=1).steps == 1


def test_positions_are_tokens_of_all_parts_padding_included(made: LanguageModel) -> None:
    for step in range(6):
        seen = sum(
            batch.inputs["model"]["input_ids"].numel()
            for batch in made.batches("train", batch_size=2, ids=made.order(step))
        )
        assert made.positions(step) == seen


# ---- what is trained


@pytest.mark.parametrize("init", [init for init in INITS if init != "svd"])
def test_sites_and_groups_are_of_what_is_trained(init: str, made: LanguageModel) -> None:
    workload = of(made, init=init)
    model = workload.model()
    assert list(workload.sites(model)) == MODULES
    groups = workload.groups(model)
    trained = {name for name, weight in model.named_parameters() if weight.requires_grad}
    assert [name for names in groups.names.values() for name in names] == [
        name for name, _ in model.named_parameters() if name in trained
    ]
    assert list(groups.names) == ["block_0", "block_1"]
    assert (groups.front, groups.back, groups.output) == ("block_0", "block_1", None)
    assert len(trained) == len(MODULES) * (1 if init == "full" else 2)
    assert not model.training


def test_it_trains_with_adamw_and_a_falling_rate(made: LanguageModel) -> None:
    workload = of(made, weight_decay=0.03)
    optimizers = workload.optimizers(workload.model())
    (group,) = optimizers.parts["adamw"].param_groups
    assert isinstance(optimizers.parts["adamw"], torch.optim.AdamW)
    assert (group["betas"], group["eps"], group["weight_decay"], group["lr"]) == ((0.9, 0.999), 1e-8, 0.03, 0.02)
    assert len(group["params"]) == 2 * len(MODULES)
    optimizers.step()
    assert group["lr"] == pytest.approx(0.02 * (1 - 1 / STEPS))


@pytest.mark.parametrize(("base", "init", "rate"), [
    ("smollm2", "random", 2e-4), ("smollm2", "full", 2e-5), ("tiny", "random", 5e-3), ("tiny", "full", 1e-3),
])  # fmt: skip
def test_rates_by_default_are_those_of_the_specification(base: str, init: str, rate: float) -> None:
    assert TrainLoraConfig(base_model=base, init=init).resolved().lr == rate


# ---- from what a run stores


@pytest.mark.parametrize("init", ["random", "pissa", "olora", "svd", "full"])
def test_it_is_rebuilt_from_a_stored_configuration(init: str, place: Place) -> None:
    """Bitwise the same model, whatever PEFT would make of the seed by then."""
    known = place.workload()
    start = factors_for(place) if init == "svd" else None
    factors = {"factors": "abc"} if init == "svd" else {}
    config = TrainLoraConfig(**place.options(init=init, **factors))
    workload = LanguageModel(config, known.base, known.questions, known.example_ids, initial=start)
    model = workload.model()
    initial = {"initial_adapter.safetensors": workload.initial or {}}
    stored = {
        "workload": "lora",
        "train": vars(config),
        "data": {"digest": questions.load(config.data).digest()},
        "base": {"digest": known.base.digest},
    }
    how: Any = {"device": torch.device("cpu"), "data_dir": None, "tensors": initial.__getitem__}
    again = family("lora").training.rebuild(StoredTraining(stored, known.example_ids, **how))
    assert isinstance(again, LanguageModel)
    found = again.model().state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in model.state_dict().items())
    for changed in ({"data": {"digest": "0"}}, {"base": {"digest": "0"}}):
        with pytest.raises(Refusal, match="digest"):
            family("lora").training.rebuild(StoredTraining({**stored, **changed}, known.example_ids, **how))


def test_the_base_s_own_weights_stay_frozen_and_as_published(place: Place) -> None:
    workload = place.workload(init="random")
    model, base = workload.model(), load_model(place.base()).state_dict()
    frozen = {name: weight for name, weight in model.named_parameters() if not weight.requires_grad}
    published = {name.removeprefix("base_model.model.").replace(".base_layer", ""): w for name, w in frozen.items()}
    assert published.keys() == {name for name in base if name != "lm_head.weight"}
    assert all(torch.equal(weight, base[name]) for name, weight in published.items())
