"""`nfa.watch(…, checkpoints=True)`: what the model has learned lies in the run, whole or not at all, and is found."""

import json
import shutil
from collections import namedtuple
from collections.abc import Callable
from functools import partial
from typing import Any

import mlflow
import pytest
import torch
import torch.nn as nn
from torch import Tensor

import nfa
from nfa import __version__, content
from nfa.content import digest_of
from nfa.errors import Refusal
from nfa.learned import learned_state, load_learned
from nfa.observe.answers import answers, check_answers
from nfa.registry import tracking
from nfa.registry.tracking.sources import find_sources
from nfa.sinks import JsonLines, Memory, TensorBoard
from nfa.workload import Batch
from nfa.workloads.packed_examples import PROBE_EXAMPLES, unpacked
from nfa.workloads.probe import Probe
from tests.support.analyses import undrawn
from tests.support.fault_injection import KILL, During
from tests.support.forks import files, fill_and_die, killed
from tests.support.snapshots import assert_same
from tests.support.stores import Store
from tests.support.toy_models import layers, seeded
from tests.test_watching import NETWORKS, cross_entropy, in_a_run, left_by_training, only
from tests.test_watching_runs import started, trained

FILES = ["config.json", "example_ids.json", "probe_examples.safetensors"]


def watched(
    model: nn.Module, x: Tensor, y: Tensor, first: int = 0, last: int = 2, **options: Any
) -> dict[int, dict[str, Tensor]]:
    """What the model has learned at each step, each of one update."""
    found = {}
    options = {"studies": "flow", "step": first, "checkpoints": True, **options}
    with undrawn(), nfa.watch(model, cross_entropy, (x, y), **options) as watch:
        for step in range(first, last + 1):
            if step > first:
                trained(model, x, y, steps=1)
            watch.record(step)
            found[step] = {name: tensor.clone() for name, tensor in learned_state(model).items()}
    return found


def stored(store: Store, step: int) -> tuple[dict[str, Tensor], dict[str, str]]:
    return tracking.get_tensors(only(store), f"checkpoints/step_{step:06d}.safetensors")


def examples(store: Store) -> Batch:
    """Those that the run has, read as an analysis would."""
    return unpacked(*tracking.get_tensors(only(store), PROBE_EXAMPLES))


def again(store: Store, model: nn.Module, step: int) -> None:
    """A model that is built again has the stored weights and gives the stored answers."""
    tensors, metadata = stored(store, step)
    load_learned(model, tensors)
    asked = examples(store)
    probe = Probe(model, cross_entropy, asked.inputs, torch.zeros(len(asked)))
    check_answers(json.loads(metadata["answers"]), answers(probe, model, asked), f"step {step}")


# ---- what is stored


def test_every_recorded_step_has_the_weights_and_the_answers_of_the_model_at_that_step(run: Store) -> None:
    model, x, y = started()
    learned = watched(model, x, y)
    assert tracking.epochs(only(run)) == [0, 1, 2]
    assert tracking.unit(only(run)) == "step"
    for step, expected in learned.items():
        tensors, metadata = stored(run, step)
        assert_same(tensors, expected)
        assert (metadata["step"], metadata["nfa_version"]) == (str(step), __version__)
        assert len(json.loads(metadata["answers"])) == 8 * 3
        again(run, seeded(layers, 4, 6, 5, 3, seed=9), step)
    with pytest.raises(Refusal, match="whose answers are not those stored with step 2"):
        again(run, seeded(layers, 4, 6, 5, 3, seed=9, activation=nn.ReLU), 2)


def test_the_steps_are_those_that_are_recorded(run: Store) -> None:
    watched(*started(), last=5, schedule="1,4")
    assert tracking.epochs(only(run)) == [1, 4]


def test_the_run_says_what_a_training_of_ours_says(run: Store) -> None:
    model, x, y = started()
    watched(model, x, y)
    tags = run.tags(only(run))
    assert {name: tags[f"nfa.{name}"] for name in ("workload", "trained", "version", "entrypoint")} == {
        "workload": "watched", "trained": "true", "version": __version__, "entrypoint": "watch",
    }  # fmt: skip
    assert run.json(only(run), "config.json") == {
        "entrypoint": "watch",
        "nfa_version": __version__,
        "workload": "watched",
        "train": {"workload": "watched", "workload_args": "", "seed": 0},
        "data": {"name": "probe of a watch", "digest": digest_of([x, y])},
        "environment": {},
    }
    assert run.json(only(run), "example_ids.json") == {"train": [], "val": [], "test": [], "probe": []}


def test_it_is_found_as_latest_by_id_and_as_a_source_and_loading_says_what_it_cannot_build(run: Store) -> None:
    watched(*started())
    mlflow.end_run()
    for text in ("latest", only(run), only(run)[:8]):
        (source,) = find_sources(text)
        assert source.info.run_id == only(run)
    assert tracking.chosen_epoch(source, "last") == 2
    with pytest.raises(Refusal, match=r"does not store how its model is made\n.*\n  do: .*workload="):
        nfa.load_checkpoint("latest", 2)


def test_before_the_first_checkpoint_the_run_is_not_one_that_has_trained(run: Store) -> None:
    model, x, y = started()
    with nfa.watch(model, cross_entropy, (x, y), studies="flow", checkpoints=True):
        assert "nfa.trained" not in run.tags(only(run))
        with pytest.raises(Refusal, match="run id 'latest'"):
            tracking.find_run("latest")


def test_a_watch_without_checkpoints_leaves_nothing_of_them(run: Store) -> None:
    watched(*started(), checkpoints=False)
    assert not [name for name in run.tags(only(run)) if name in ("nfa.workload", "nfa.trained", "nfa.entrypoint")]
    assert not [file for file in files(run.artifact(only(run))) if file in FILES or file.startswith("checkpoints/")]


class Tied(nn.Module):
    """Weights that have two names, a frozen layer, a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.frozen, self.norm = nn.Linear(4, 4), nn.Linear(4, 4).requires_grad_(False), nn.BatchNorm1d(4)
        self.other, self.readout = nn.Linear(4, 4), nn.Linear(4, 3)
        self.other.weight = self.one.weight

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.readout(self.norm(self.other(torch.tanh(self.frozen(self.one(inputs))))))
        return outputs


def test_tied_weights_are_stored_under_both_names_frozen_ones_not_and_buffers_are(run: Store) -> None:
    model, (_, x, y) = seeded(Tied), started()
    model.eval()
    expected = watched(model, x, y)[2]
    tensors, _ = stored(run, 2)
    assert_same(tensors, expected)
    assert {"one.weight", "other.weight", "norm.running_mean"} <= tensors.keys()
    assert "frozen.weight" not in tensors
    again(run, seeded(Tied), 2)  # the frozen ones are drawn from the same seed


@pytest.mark.parametrize("name", NETWORKS)
@in_a_run
def test_training_is_bitwise_the_same_with_checkpoints_and_without_a_watch(name: str) -> None:
    assert_same(*left_by_training(name, studies="flow", checkpoints=True))


def test_answers_are_those_of_the_weights_own_type_whatever_autocast_is_around(run: Store) -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        watched(*started(), last=0)
    again(run, layers(4, 6, 5, 3), 0)
    assert any(abs(number - float(torch.tensor(number).bfloat16())) > 1e-4 for number in _answers(run, 0))


def _answers(store: Store, step: int) -> list[float]:
    found: list[float] = json.loads(stored(store, step)[1].get("answers", "[]"))
    return found


def test_weights_that_are_not_finite_are_stored_and_have_no_answers(run: Store) -> None:
    model, x, y = started()
    with nfa.watch(model, cross_entropy, (x, y), studies="flow", checkpoints=True) as watch:
        model[0].weight.data.fill_(torch.nan)
        watch.record(1)
    assert stored(run, 1)[0]["0.weight"].isnan().all()
    assert _answers(run, 1) == []


def test_inputs_of_more_than_16_mib_are_not_stored_and_nothing_is_compared(
    run: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nfa.workloads.packed_examples.LARGEST", 100)
    watched(*started())
    assert not run.artifact(only(run), PROBE_EXAMPLES).exists()
    assert _answers(run, 1) == []


# ---- a training that goes on


def test_a_resumed_watch_stores_what_is_not_there_and_leaves_what_is(store: Store) -> None:
    with mlflow.start_run():
        learned = watched(*started(), last=6)
    made = {file: store.artifact(only(store), file).read_bytes() for file in _checkpoint_files(store)}
    kept = [*made, *FILES]
    times = {file: store.artifact(only(store), file).stat().st_mtime_ns for file in kept}
    model, x, y = started()
    trained(model, x, y)  # as a checkpoint of step 4 has it
    with mlflow.start_run(run_id=only(store)):
        learned |= watched(model, x, y, first=4, last=8)
    assert tracking.epochs(only(store)) == list(range(9))
    assert {file: store.artifact(only(store), file).stat().st_mtime_ns for file in kept} == times
    for step in range(9):
        assert_same(stored(store, step)[0], learned[step])


def _checkpoint_files(store: Store) -> list[str]:
    return [file for file in files(store.artifact(only(store))) if file.startswith("checkpoints/")]


def test_a_run_that_was_watched_without_checkpoints_gets_them_from_where_it_goes_on(run: Store) -> None:
    model, x, y = started()
    watched(model, x, y, last=4, checkpoints=False)
    watched(model, x, y, first=4, last=5)
    assert tracking.epochs(only(run)) == [4, 5]
    assert run.tags(only(run))["nfa.trained"] == "true"


@in_a_run
def test_another_probe_in_the_same_run_is_refused_before_anything_is_written() -> None:
    model, x, y = started()
    watched(model, x, y, last=1)
    with pytest.raises(Refusal, match=r"a probe with digest .*\n  allowed: the probe that it began with"):
        watched(model, x + 1, y, first=1)


# ---- whole or not at all


def dies(store: Store, at: int, **options: Any) -> None:
    """A watched training whose process is killed in the midst of writing its `at`-th file of tensors."""
    write, left = content.write_tensors, [at]

    def writing(file: Any, *rest: Any) -> None:
        left[0] -= 1
        fill_and_die(file) if not left[0] else write(file, *rest)

    content.write_tensors = writing  # type: ignore[assignment]
    with mlflow.start_run(run_id=only(store)):
        watched(*started(), last=4, **options)


WHOLE = [f"checkpoints/step_{step:06d}.safetensors" for step in range(5)]


@pytest.mark.parametrize("at", [1, 2, 3, 5])
def test_a_kill_in_the_midst_of_a_file_leaves_the_whole_ones_and_the_run_goes_on(at: int, store: Store) -> None:
    """The first two files are the initial weights and the examples."""
    with mlflow.start_run():
        pass
    killed(dies, store, at)
    assert _checkpoint_files_that_count(store) == WHOLE[: max(at - 3, 0)]
    for step in range(max(at - 3, 0)):
        again(store, layers(4, 6, 5, 3), step)
    with mlflow.start_run(run_id=only(store)):
        learned = watched(*started(), last=4)
    assert _checkpoint_files(store) == WHOLE
    assert not [file for file in files(store.artifact(only(store))) if "unfinished" in file]
    for step, expected in learned.items():
        assert_same(stored(store, step)[0], expected)
    again(store, layers(4, 6, 5, 3), 4)


def _checkpoint_files_that_count(store: Store) -> list[str]:
    return [file for file in _checkpoint_files(store) if "unfinished" not in file]


def between(store: Store, moment: During) -> None:
    moment()
    with mlflow.start_run(run_id=only(store)):
        watched(*started(), last=1)


@pytest.mark.parametrize("number", range(1, 6))
def test_a_kill_between_any_two_tags_leaves_a_run_that_can_go_on(number: int, store: Store) -> None:
    with mlflow.start_run():
        pass
    killed(between, store, During("nfa.sinks", "MlflowRun.tag", KILL, number))
    with mlflow.start_run(run_id=only(store)):
        watched(*started(), last=1)
    (source,) = find_sources("latest")
    assert tracking.epochs(source.info.run_id) == [0, 1]
    assert store.tags(only(store))["nfa.version"] == __version__
    assert store.json(only(store), "config.json")["workload"] == "watched"


# ---- what is refused


@pytest.mark.parametrize("sink", [Memory, partial(JsonLines, "lines"), partial(TensorBoard, "events")])
def test_sinks_that_are_no_run_refuse_checkpoints_and_say_what_to_do(sink: Callable[[], Any], store: Store) -> None:
    match = r"checkpoints=True with sink=(Memory|JsonLines|TensorBoard)\n.*\n  do: leave sink out"
    with mlflow.start_run(), pytest.raises(Refusal, match=match):
        watched(*started(), sink=sink())
    assert files(store.artifact(only(store))) == []


@in_a_run
def test_a_prefix_refuses_checkpoints() -> None:
    with pytest.raises(Refusal, match="checkpoints=True with prefix='one/'"):
        watched(*started(), prefix="one/")


def tagged_by_another() -> None:
    mlflow.set_tag("nfa.entrypoint", "train")


def config_of_another() -> None:
    mlflow.log_dict({"mine": 1}, "config.json")


@pytest.mark.parametrize(
    ("act", "match"), [(tagged_by_another, "was made by train"), (config_of_another, "has another config.json")]
)
def test_a_run_of_something_else_refuses_checkpoints_and_is_left_as_it_was(
    act: Callable[[], None], match: str, run: Store
) -> None:
    act()
    before = {file: run.artifact(only(run), file).read_bytes() for file in files(run.artifact(only(run)))}
    with pytest.raises(Refusal, match=match):
        watched(*started())
    assert {file: run.artifact(only(run), file).read_bytes() for file in files(run.artifact(only(run)))} == before


class Stateful(nn.Linear):
    """A state that is no tensor."""

    def get_extra_state(self) -> dict[str, int]:
        return {"calls": 1}

    def set_extra_state(self, state: Any) -> None:
        """Not asked."""


@in_a_run
def test_a_state_that_is_no_tensor_is_refused_before_training_starts() -> None:
    _, x, y = started()
    with pytest.raises(Refusal, match=r"whose state has 0\._extra_state, which is not a tensor"):
        watched(nn.Sequential(Stateful(4, 6), nn.Tanh(), nn.Linear(6, 3)), x, y)


@in_a_run
@pytest.mark.parametrize("step", [1.5, "3", -1, None, 2**70])
def test_a_step_is_a_whole_number(step: Any) -> None:
    model, x, y = started()
    said = pytest.raises(Refusal, match=r"step=.*\n  allowed: a whole number from 0 on")
    with nfa.watch(model, cross_entropy, (x, y), studies="flow") as watch, said:
        watch.record(step)


def test_a_disk_that_cannot_hold_the_named_steps_is_refused_before_anything_is_written(
    run: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = sum(tensor.nbytes for tensor in learned_state(started()[0]).values())
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(size, 1, 3 * size - 1))
    with pytest.raises(Refusal, match="MB free at"):
        watched(*started(), schedule="0-2")
    assert files(run.artifact(only(run))) == []
    watched(*started(), schedule="0-1")
