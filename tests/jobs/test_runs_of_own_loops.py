"""Runs of loops of one's own, tracked or only watched: every analysis takes them by run id, as those of `train`."""

import dataclasses
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import mlflow
import pytest
import torch
import torch.nn as nn

import nfa
from nfa.errors import Refusal
from nfa.learned import learned_state
from nfa.workload import Workload
from tests.support.fine_tunings import Place
from tests.support.runs_by_family import MY_LAB, NAMED, Runs, undrawn, used_runs
from tests.support.stores import Store
from tests.support.workload_files import imports

Once = Callable[[str, Callable[[Path], Any]], Any]
JOBS: Mapping[str, dict[str, Any]] = {
    "analyze": {"max_samples": 6},
    "gradient_directions": {"n": 6, "epochs": "all"},
    "gradient_flow": {"n": 6},
}
LOSS = nn.CrossEntropyLoss(reduction="none")


def update(workload: Workload, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """One step on all training examples."""
    batch = next(workload.batches("train", batch_size=64))
    optimizer.zero_grad()
    workload.losses(workload.outputs(model, batch), batch).mean().backward()
    optimizer.step()


def track() -> dict[str, torch.Tensor]:
    """Two epochs of one step, tracked; what the model has learned in the end."""
    with mlflow.start_run(), nfa.track(NAMED) as run:
        optimizer = torch.optim.SGD(run.model.parameters(), lr=0.5)
        run.keep(optimizer=optimizer)
        for epoch in run.epochs(2):
            update(run.workload, run.model, optimizer)
            run.checkpoint(epoch)
        return learned_state(run.model)


def watch() -> dict[str, torch.Tensor]:
    """The same two steps, watched on examples that the workload does not have."""
    with imports():
        import my_lab

        workload = my_lab.make()
        model = workload.model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    probe = torch.randn(7, 4, generator=torch.Generator().manual_seed(1)), torch.arange(7) % 2
    with mlflow.start_run(), undrawn(), nfa.watch(model, LOSS, probe, studies="flow", checkpoints=True) as watched:
        for step in range(3):
            if step:
                update(workload, model, optimizer)
            watched.record(step)
    return learned_state(model)


DOORS = {"track": track, "watched": watch}


@dataclasses.dataclass(frozen=True)
class OwnRuns:
    """A store with a run of each door, and what each model had learned in the end."""

    runs: Runs
    learned: Mapping[str, Mapping[str, torch.Tensor]]


@pytest.fixture(scope="module")
def own_runs(empty_store: Store, once: Once) -> OwnRuns:
    def made(folder: Path) -> OwnRuns:
        store = empty_store.copy(folder / "store")
        (store.folder / "my_lab.py").write_text(MY_LAB, encoding="utf-8")
        runs, ids, learned = Runs(store, Place.made(store.folder / "place"), {}), {}, {}
        with used_runs(runs), pytest.MonkeyPatch.context() as patch:
            patch.syspath_prepend(str(store.folder))
            for door, program in DOORS.items():
                learned[door] = {name: tensor.clone() for name, tensor in program().items()}
                ids[door] = next(run_id for run_id in store.runs() if run_id not in ids.values())
        return OwnRuns(Runs(store, runs.place, ids), learned)

    return once("own loops", made)


@pytest.fixture
def own(own_runs: OwnRuns, tmp_path: Path) -> Iterator[OwnRuns]:
    """A copy of them that may be changed."""
    store = own_runs.runs.store.copy(tmp_path / "store")
    shutil.copy(own_runs.runs.store.folder / "my_lab.py", store.folder)
    runs = Runs(store, own_runs.runs.place, own_runs.runs.ids)
    with used_runs(runs):
        yield OwnRuns(runs, own_runs.learned)


@pytest.mark.parametrize("entrypoint", JOBS)
@pytest.mark.parametrize("door", DOORS)
def test_every_analysis_takes_it_by_its_id(own: OwnRuns, door: str, entrypoint: str) -> None:
    named = {"workload": NAMED} if door == "watched" else {}
    made = own.runs.made(entrypoint, run_id=own.runs.ids[door], **named, **JOBS[entrypoint])
    steps = {step for _, step, _ in own.runs.store.metrics(made)}
    assert (own.runs.store.tags(made)["nfa.state"], steps) == ("finished", {0, 1, 2})


@pytest.mark.parametrize("door", DOORS)
def test_its_model_is_loaded_as_it_was_in_the_end(own: OwnRuns, door: str) -> None:
    model, _ = nfa.load_checkpoint(own.runs.ids[door], "last", device="cpu", workload=NAMED)
    found = learned_state(model)
    assert found.keys() == own.learned[door].keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in own.learned[door].items())


def test_the_latest_is_found_though_a_program_of_one_s_own_made_it(own: OwnRuns) -> None:
    made = own.runs.made("gradient_flow", run_id="latest", workload=NAMED, n=6)
    assert own.runs.store.tags(made)["nfa.source_run_ids"] == own.runs.ids["watched"]


@pytest.mark.parametrize("entrypoint", JOBS)
def test_a_watched_run_imports_nothing_by_itself(own: OwnRuns, entrypoint: str) -> None:
    with pytest.raises(Refusal, match=r"(?s)does not store how its model is made.*workload="):
        own.runs.made(entrypoint, run_id=own.runs.ids["watched"], **JOBS[entrypoint])


CHANGED = {
    "another width": ({"workload_args": "width=7"}, MY_LAB, "whose weights are not those of"),
    "another activation": ({}, MY_LAB.replace("nn.ReLU()", "nn.Tanh()"), "whose answers are not those stored"),
    "another order": ({}, MY_LAB.replace("nn.ReLU(), nn.Linear(width, 2)", "nn.Linear(width, 2)"), "weights are not"),
}


@pytest.mark.parametrize(("named", "lab", "why"), CHANGED.values(), ids=CHANGED)
def test_code_that_makes_another_model_is_refused(own: OwnRuns, named: dict[str, str], lab: str, why: str) -> None:
    (own.runs.store.folder / "my_lab.py").write_text(lab, encoding="utf-8")
    known = own.runs.store.runs()
    with pytest.raises(Refusal, match=why):
        own.runs.made("gradient_flow", run_id=own.runs.ids["watched"], workload=NAMED, n=6, **named)
    assert own.runs.store.runs() == known


@pytest.mark.parametrize("door", DOORS)
def test_only_its_own_loop_goes_on_with_it(own: OwnRuns, door: str) -> None:
    with pytest.raises(Refusal, match=r"resume="):
        own.runs.do("train", resume=own.runs.ids[door])
