"""`nfa.track`: a loop of one's own leaves a run as `train` does, however it ends, and goes on where it stopped."""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
import torch

import nfa
from nfa.errors import Refusal
from nfa.registry.families.custom.track import Track
from nfa.seeding import seed_generators
from tests.support.analyses import analysed, series
from tests.support.fault_injection import INT, KILL, TERM, During
from tests.support.processes import call
from tests.support.stores import Store, same_weights
from tests.support.workload_files import write_lab

EPOCHS = 3


@contextmanager
def begun(workload: Any = "my_lab:blurred", run_id: str | None = None, **arguments: Any) -> Iterator[Track]:
    """A training in its run, with what it keeps."""
    with mlflow.start_run(run_id=run_id), nfa.track(workload, **arguments) as run:
        yield run


class Loop:
    """A loop with Adam, a schedule, dropout and data that draw."""

    def __init__(self, run: Track) -> None:
        self.run, self.model = run, run.model
        self.optimizer = torch.optim.Adam(run.model.parameters(), lr=0.05)
        self.schedule = torch.optim.lr_scheduler.StepLR(self.optimizer, 1, gamma=0.5)
        run.keep(optimizer=self.optimizer, schedule=self.schedule)

    def epoch(self, number: int) -> None:
        total = 0.0
        self.model.train()
        for ids in torch.randperm(48).split(16):  # of the global generator, as a DataLoader draws
            (batch,) = self.run.workload.batches("train", batch_size=16, ids=ids)
            self.optimizer.zero_grad()
            loss = self.run.workload.losses(self.run.workload.outputs(self.model, batch), batch).mean()
            loss.backward()
            self.optimizer.step()
            total += loss.item()
        self.schedule.step()
        self.run.log({"val/loss": total}, number)


@dataclass(frozen=True)
class Program:
    """A program that trains with `nfa.track`, to be started in a process of its own."""

    run_id: str | None = None
    last: int = EPOCHS
    after: Callable[[int], object] | None = None  # of each epoch, once it is stored

    def __call__(self) -> None:
        seed_generators(5)
        with begun(run_id=self.run_id, width=4) as run:
            loop = Loop(run)
            for epoch in run.epochs(self.last):
                loop.epoch(epoch)
                run.checkpoint(epoch)
                if self.after:
                    self.after(epoch)


def train(store: Store, **options: Any) -> str:
    """Id of the run of a program in this process."""
    known = store.runs()
    Program(**options)()
    return next((run_id for run_id in store.runs() if run_id not in known), "")


def stored(store: Store, run_id: str) -> tuple[str, list[str]]:
    """How a run has ended, and its checkpoints."""
    return store.tags(run_id)["nfa.state"], [*store.checkpoints(run_id)]


def files(*epochs: int) -> list[str]:
    return [f"epoch_{epoch:04d}.safetensors" for epoch in epochs]


@pytest.fixture
def expected(lab: Store) -> str:
    """The same loop, never interrupted."""
    return train(lab)


# ---- what a run has


def test_it_is_described_as_a_run_of_train(lab: Store, expected: str) -> None:
    assert stored(lab, expected) == ("finished", files(0, 1, 2, 3))
    assert lab.status(expected) == "FINISHED"
    config, tags = lab.json(expected, "config.json"), lab.tags(expected)
    assert config["code"]["file"] == "my_lab.py"
    assert config["train"] == {"workload": "my_lab:blurred", "workload_args": "width=4", "seed": 1717}
    assert {name: tags[name] for name in ("nfa.workload", "nfa.entrypoint", "nfa.trained", "nfa.best_epoch")} == {
        "nfa.workload": "my_lab:blurred",
        "nfa.entrypoint": "track",
        "nfa.trained": "true",
        "nfa.best_epoch": str(min(series(lab, expected)["val/loss"].items(), key=lambda item: item[1])[0]),
    }
    assert lab.params(expected)["width"] == "4"
    assert len(lab.json(expected, "example_ids.json")["train"]) == 48


def test_analyses_take_it_as_any_other(lab: Store, expected: str) -> None:
    assert set(series(lab, analysed(lab, run_id="latest"))["0/agop_nfm"]) == {0, 1, 2, 3}
    model = nfa.load_checkpoint(expected, "last").model
    last = lab.checkpoints(expected)["epoch_0003.safetensors"]
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in last.items())


def test_a_function_that_is_given_is_named_by_its_file(lab: Store) -> None:
    import importlib

    sys.path.insert(0, str(lab.folder))
    module = importlib.import_module("my_lab")
    with begun(module.make, width=5) as run:
        run.checkpoint(1)
    (run_id,) = lab.runs()
    assert lab.json(run_id, "config.json")["train"]["workload"] == "my_lab:make"
    assert nfa.load_checkpoint(run_id, 1).model[0].out_features == 5


# ---- how it ends


def interrupt(_: int) -> None:
    os.kill(os.getpid(), signal.SIGINT)


def terminate(_: int) -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def fail(_: int) -> None:
    raise RuntimeError("no disk")


def leave(_: int) -> None:
    sys.exit(0)


def leave_with_3(_: int) -> None:
    sys.exit(3)


@pytest.mark.parametrize(
    ("act", "code", "state"),
    [
        (interrupt, 1, "killed"),
        (terminate, 143, "killed"),
        (fail, 1, "failed"),
        (leave, 0, "finished"),
        (leave_with_3, 3, "failed"),
    ],
)
def test_how_a_program_ends_is_how_its_run_ends(
    act: Callable[[int], object], code: int, state: str, fresh: Store
) -> None:
    write_lab(fresh.folder)
    ended = call(fresh, Program(after=act))
    assert ended.code == code, ended.output
    (run_id,) = fresh.runs()
    assert stored(fresh, run_id) == (state, files(0, 1))


def test_sigterm_is_afterwards_what_it_was(lab: Store, expected: str) -> None:  # noqa: ARG001
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


# ---- going on


@pytest.mark.parametrize("number", [1, pytest.param(2, marks=pytest.mark.slow), 4])
@pytest.mark.parametrize("name", ["save_checkpoint", "put_json", "save_state"])
def test_one_that_was_killed_while_it_stored_goes_on_to_bitwise_the_same(
    name: str, number: int, lab: Store, expected: str, tmp_path: Path, empty_store: Store
) -> None:
    if name == "put_json" and number > 2:
        pytest.skip("two files only")
    store = empty_store.copy(tmp_path / "killed")
    write_lab(store.folder)
    ended = call(store, Program(), before=During("nfa.registry.tracking", name, KILL, number))
    assert ended.code == -signal.SIGKILL, ended.output
    (run_id,) = store.runs()
    ended = call(store, Program(run_id=run_id))
    assert ended.code == 0, ended.output
    assert stored(store, run_id) == ("finished", files(0, 1, 2, 3))
    assert same_weights(store.checkpoints(run_id), lab.checkpoints(expected))
    assert store.metrics(run_id) == lab.metrics(expected)


@pytest.mark.parametrize("act", [TERM, INT])
def test_a_signal_while_it_stores_waits_until_the_checkpoint_is_whole(act: Any, fresh: Store) -> None:
    write_lab(fresh.folder)
    call(fresh, Program(), before=During("nfa.registry.tracking", "save_state", act, 2))
    (run_id,) = fresh.runs()
    assert stored(fresh, run_id) == ("killed", files(0, 1))
    assert fresh.artifact(run_id, "state/latest.pt").is_file()


def test_more_epochs_of_a_finished_run_are_those_of_a_longer_one(lab: Store, expected: str) -> None:
    short = train(lab, last=1)
    train(lab, last=EPOCHS, run_id=short)
    assert stored(lab, short) == ("finished", files(0, 1, 2, 3))
    assert same_weights(lab.checkpoints(short), lab.checkpoints(expected))
    assert lab.metrics(short) == lab.metrics(expected)


def test_more_epochs_in_the_same_block_go_on(lab: Store, expected: str) -> None:
    seed_generators(5)
    with begun(width=4) as run:
        loop, seen = Loop(run), []
        for last in (1, 1, EPOCHS):
            for epoch in run.epochs(last):
                seen.append(epoch)
                loop.epoch(epoch)
                run.checkpoint(epoch)
    (run_id,) = {*lab.runs()} - {expected}
    assert seen == [1, 2, 3]
    assert same_weights(lab.checkpoints(run_id), lab.checkpoints(expected))


def test_fewer_epochs_than_are_done_are_none(lab: Store, expected: str) -> None:
    before = lab.metrics(expected), lab.checkpoints(expected)
    train(lab, last=2, run_id=expected)
    assert lab.metrics(expected) == before[0]
    assert same_weights(lab.checkpoints(expected), before[1])
    assert lab.tags(expected)["nfa.state"] == "finished"


@pytest.mark.parametrize(
    ("workload", "arguments", "why"),
    [
        ("my_lab:blurred", {"width": 5}, "what it was started with: workload_args=width=4"),
        ("my_lab:blurred", {"width": 4, "seed": 3}, "seed=1717"),
        ("my_lab:make", {"width": 4}, "a new run, or one of track with my_lab:make"),
    ],
)
def test_a_run_that_was_begun_otherwise_is_left_as_it_was(
    workload: str, arguments: dict[str, Any], why: str, lab: Store, expected: str
) -> None:
    with pytest.raises(Refusal, match=why), begun(workload, expected, **arguments):
        pass
    assert lab.tags(expected)["nfa.state"] == "finished"


def test_code_that_answers_otherwise_does_not_go_on(lab: Store, expected: str) -> None:
    before = lab.json(expected, "config.json")
    write_lab(lab.folder, old="nn.ReLU(), nn.Dropout(0.5)", new="nn.GELU(), nn.Dropout(0.5)")
    with pytest.raises(Refusal, match="whose answers are not those stored"), begun(run_id=expected, width=4):
        pass
    assert (lab.tags(expected)["nfa.state"], lab.json(expected, "config.json")) == ("finished", before)


@pytest.mark.usefixtures("lab")
def test_what_was_kept_has_to_be_kept_again(expected: str) -> None:
    what = r"what the run has kept: model, optimizer, schedule"
    with pytest.raises(Refusal, match=what), begun(run_id=expected, width=4) as run:
        next(run.epochs(9))


# ---- mistakes


def test_without_a_run_it_is_refused(lab: Store) -> None:
    with pytest.raises(Refusal, match="without an active MLflow run"), nfa.track("my_lab:make"):
        pass
    assert lab.runs() == []


def test_a_run_of_train_is_refused_and_left_as_it_was(trained: Any) -> None:
    with pytest.raises(Refusal, match="of train, workload my_lab:make"), begun("my_lab:make", trained.run_id):
        pass
    assert trained.store.tags(trained.run_id)["nfa.state"] == "finished"


def test_a_second_program_in_a_run_is_refused(lab: Store) -> None:
    with begun(width=4) as run:
        (run_id,) = lab.runs()
        ended = call(lab, Program(run_id=run_id))
        assert "is working" in ended.output or "running" in ended.output, ended.output
        assert ended.code != 0
        for epoch in run.epochs(1):
            run.checkpoint(epoch)
    assert stored(lab, run_id) == ("finished", files(0, 1))


@pytest.mark.parametrize(
    ("kept", "why"),
    [({"a": 5}, r"keep\(a=5\)"), ({"model": torch.nn.Linear(1, 1)}, "other than"), ({"b": torch.optim.Adam}, "keep")],
)
def test_what_has_no_state_cannot_be_kept(kept: dict[str, Any], why: str, lab: Store) -> None:  # noqa: ARG001
    with begun(width=4) as run, pytest.raises(Refusal, match=why):
        run.keep(**kept)


def test_nothing_is_kept_under_a_name_twice_or_in_the_loop(lab: Store) -> None:  # noqa: ARG001
    with begun(width=4) as run:
        run.keep(optimizer=torch.optim.SGD(run.model.parameters()))
        with pytest.raises(Refusal, match="a separate name for each object"):
            run.keep(optimizer=torch.optim.SGD(run.model.parameters()))
        for _ in run.epochs(1):
            with pytest.raises(Refusal, match="before it"):
                run.keep(other=torch.optim.SGD(run.model.parameters()))


class Odd:
    """Something with a state that a weights-only reader does not take."""

    def __init__(self, state: Any) -> None:
        self.state = state

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.state}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.state = state["best"]


@pytest.mark.parametrize("value", [object(), Path("x"), {1, 2}, np.arange(3.0)])
def test_a_state_that_could_not_be_read_back_is_refused_when_it_is_stored(value: Any, lab: Store) -> None:
    odd = Odd(0)
    with begun(width=4) as run:
        with pytest.raises(Refusal, match=r"odd\['best'\]"):
            run.keep(odd=Odd(value))
        run.keep(odd=odd)
        run.checkpoint(1)
        odd.state = value
        with pytest.raises(Refusal, match=r"odd\['best'\]"):
            run.checkpoint(2)
    (run_id,) = lab.runs()
    with begun(run_id=run_id, width=4) as run:
        run.keep(odd=(again := Odd(3)))
        assert next(run.epochs(9)) == 2
    assert again.state == 0
    assert stored(lab, run_id)[1] == files(1)


@pytest.mark.parametrize("value", [np.float64(0.5), np.int64(3), (1, [2.0, None]), {"a": {1: "b"}}])
def test_numbers_of_numpy_and_containers_come_back(value: Any, lab: Store) -> None:
    with begun(width=4) as run:
        run.keep(odd=Odd(value))
        for epoch in run.epochs(1):
            run.checkpoint(epoch)
    (run_id,), again = lab.runs(), Odd(None)
    with begun(run_id=run_id, width=4) as run:
        run.keep(odd=again)
        assert [*run.epochs(1)] == []
    assert np.all(again.state == value)


def test_a_metric_is_logged_once_and_never_where_it_is_not_finite(lab: Store) -> None:
    with begun(width=4) as run:
        run.log({"val/loss": 1}, 1)
        run.log({"val/loss": torch.tensor(2.0), "val/other": np.float32(3)}, 1)
        for value in (float("nan"), float("inf")):
            with pytest.raises(ValueError, match="val/loss"):
                run.log({"val/loss": value}, 2)
    (run_id,) = lab.runs()
    assert lab.metrics(run_id) == [("val/loss", 1, 1.0), ("val/other", 1, 3.0)]


def test_a_run_without_a_checkpoint_of_its_own_has_that_of_the_beginning(lab: Store) -> None:
    with begun(width=4) as run:
        assert [*run.epochs(2)] == [1, 2]
    (run_id,) = lab.runs()
    assert stored(lab, run_id) == ("finished", files(0))


def test_one_that_never_began_an_epoch_is_finished_and_has_nothing_to_analyse(lab: Store) -> None:
    with begun(width=4):
        pass
    (run_id,) = lab.runs()
    assert stored(lab, run_id) == ("finished", [])
    with pytest.raises(Refusal):
        nfa.load_checkpoint(run_id)


@pytest.mark.parametrize("arguments", [{"widht": 3}, {"width": "a"}, {"width": [3]}, {"width": 1.5}])
def test_arguments_that_do_not_fit_are_refused_before_anything(arguments: dict[str, Any], lab: Store) -> None:
    with pytest.raises(Refusal):
        nfa.track("my_lab:blurred", **arguments)
    assert lab.runs() == []


def test_a_watch_in_the_same_run_records_beside_it(lab: Store) -> None:
    with begun("my_lab:make") as run:
        x, y = run.workload.items["train"].dataset.tensors
        with nfa.watch(run.model, run.workload.loss, (x, y), studies="flow") as watch:
            for epoch in run.epochs(1):
                watch.record(epoch)
                run.checkpoint(epoch)
    (run_id,) = lab.runs()
    assert stored(lab, run_id) == ("finished", files(0, 1))
    assert lab.tags(run_id)["nfa.workload"] == "my_lab:make"
    assert nfa.load_checkpoint(run_id, 1)


# ---- calls that keep nothing, or what nobody could load again


def test_a_layer_that_the_loop_freezes_is_stored_and_the_run_goes_on_and_is_loaded(lab: Store) -> None:
    with begun() as run:
        run.model[0].weight.requires_grad_(False)
        for epoch in run.epochs(1):
            run.checkpoint(epoch)
    (run_id,) = lab.runs()
    assert "0.weight" in lab.checkpoints(run_id)["epoch_0001.safetensors"]
    with begun(run_id=run_id) as run:
        assert list(run.epochs(2)) == [2]
    with torch.no_grad():
        assert torch.equal(nfa.load_checkpoint(run_id, 1).model[0].weight, run.model[0].weight)


CHANGES: dict[str, tuple[Callable[[torch.nn.Module], object], str]] = {
    "another type": (lambda model: model.double(), "0.bias"),
    "a normalised weight": (lambda model: torch.nn.utils.parametrizations.weight_norm(model[0]), "0.parametrizations"),
    "a further buffer": (lambda model: model.register_buffer("seen", torch.ones(1)), "seen"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_model_that_is_changed_so_that_it_could_not_be_loaded_again_is_refused_at_once(name: str, lab: Store) -> None:
    change, said = CHANGES[name]
    with begun() as run:
        change(run.model)
        with pytest.raises(Refusal, match=f"run.model, whose {said}.* has changed since its creation"):
            next(iter(run.epochs(1)))
    assert lab.checkpoints(*lab.runs()) == {}


def test_what_is_trained_is_not_exchanged(lab: Store) -> None:  # noqa: ARG001
    with begun() as run, pytest.raises(AttributeError, match="model"):
        run.model = torch.nn.Linear(6, 3)  # type: ignore[misc]


CALLS: dict[str, Callable[[Track], object]] = {
    "epochs": lambda run: list(run.epochs(1)),
    "log": lambda run: run.log({"val/loss": 1.0}, 1),
    "checkpoint": lambda run: run.checkpoint(1),
}


@pytest.mark.parametrize("call", CALLS)
def test_outside_of_its_block_nothing_is_kept_and_that_is_said(call: str, lab: Store) -> None:
    with mlflow.start_run():
        run = nfa.track("my_lab:blurred")
        with pytest.raises(Refusal, match=f"{call}.* outside of the block"):
            CALLS[call](run)
        with run:
            pass
        with pytest.raises(Refusal, match=f"{call}.* outside of the block"):
            CALLS[call](run)
    assert lab.metrics(*lab.runs()) == []


@pytest.mark.parametrize("number", [1.0, "3", -1, None, 2**40])
def test_epochs_are_whole_numbers(number: Any, lab: Store) -> None:
    calls: list[Callable[[Track], object]] = [
        lambda run: list(run.epochs(number)),
        lambda run: run.log({"val/loss": 1.0}, number),
        lambda run: run.checkpoint(number),
    ]
    with begun() as run:
        for call_ in calls:
            with pytest.raises(Refusal, match=r"epochs?=.*\n  allowed: a whole number"):
                call_(run)
        run.log({"val/loss": np.float32(0.5), "loss": torch.tensor(2.0, requires_grad=True)}, np.int64(2))
    assert lab.metrics(*lab.runs()) == [("loss", 2, 2.0), ("val/loss", 2, 0.5)]


@pytest.mark.parametrize("values", [{"a": "high"}, {"a": None}, {"a": torch.ones(2)}, {3: 1.0}, {"": 1.0}, {"..": 1.0}])
def test_what_is_no_metric_is_refused_and_the_others_are_kept(values: Any, lab: Store) -> None:
    with begun() as run:
        run.log({"val/loss": 0.5}, 1)
        with pytest.raises(Refusal):
            run.log(values, 1)
    assert lab.metrics(*lab.runs()) == [("val/loss", 1, 0.5)]


def test_the_momentum_of_sparse_gradients_comes_back(lab: Store) -> None:  # noqa: ARG001
    def made() -> torch.optim.Optimizer:
        table = torch.nn.Embedding(9, 4, sparse=True)
        table(torch.tensor([1, 1, 5])).sum().backward()
        return torch.optim.SGD(table.parameters(), lr=0.1, momentum=0.9)

    optimizer = made()
    with begun() as run:
        run.keep(optimizer=optimizer)
        for epoch in run.epochs(1):
            optimizer.step()
            run.checkpoint(epoch)
    again = made()
    with begun(run_id=run._run.run_id) as run:
        run.keep(optimizer=again)
        assert list(run.epochs(1)) == []
    first, second = (one.state_dict()["state"][0]["momentum_buffer"].to_dense() for one in (optimizer, again))
    assert torch.equal(first, second)
