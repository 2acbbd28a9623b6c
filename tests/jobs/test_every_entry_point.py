"""Every entry point, with the runs of every family and of a workload that a file names: what it does, what it refuses.

The families of the project have no privilege: where a cell of a named workload is refused, it says why.
"""

import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

import nfa
from nfa.bookkeeping import is_bookkeeping
from nfa.errors import Refusal
from nfa.levels import is_beside
from nfa.registry.entry_points import entry_points
from tests.support.processes import run, words
from tests.support.runs_by_family import NAMED, TRAINS, Runs, failed, train_all, used_runs
from tests.support.stores import Store, same_weights

Once = Callable[[str, Callable[[Path], Any]], Any]
Job = Callable[[Runs, str], None]
DOES, SLOW, LATER = "does", "does, slowly", "known when it runs"
FEW: dict[str, dict[str, Any]] = {
    "analyze": {"max_samples": 6},
    "gradient_directions": {"n": 6, "epochs": "all"},
    "gradient_flow": {"n": 6},
}
SEARCHED = {"mlp": "width=4|6", "eeg": "lr=log:1e-3:1e-2", "lora": "rank=2|4", NAMED: "width=4|6"}


@pytest.fixture(scope="module")
def every_run(empty_store: Store, once: Once) -> Runs:
    return once("every run", lambda folder: train_all(empty_store.copy(folder / "store")))


@pytest.fixture
def runs(every_run: Runs) -> Iterator[Runs]:
    with used_runs(every_run):
        yield every_run


def checked(runs: Runs, made: str, entrypoint: str, family: str) -> None:
    """A finished run that was made by this entry point, of this family."""
    tags = runs.store.tags(made)
    assert (tags["nfa.entrypoint"], tags["nfa.state"], tags["nfa.workload"]) == (entrypoint, "finished", family)
    assert runs.store.status(made) == "FINISHED"
    assert nfa.config(made)["entrypoint"] == entrypoint


# ---- jobs


def train(runs: Runs, family: str) -> None:
    """As a run of its own, with everything that others read."""
    made = runs.ids[family]
    checked(runs, made, TRAINS[family], family)
    assert {step for _, step, _ in runs.store.metrics(made)} >= {0, 2}
    assert runs.store.tags(made)["nfa.best_epoch"] in ("0", "2")
    assert [int(name.partition("_")[2][:-12]) for name in runs.store.checkpoints(made)] == [0, 2]


def load_checkpoint(runs: Runs, family: str) -> None:
    """The model answers as it did when it was trained."""
    model, workload = nfa.load_checkpoint(runs.ids[family], "last", device="cpu")
    batch = next(workload.batches("val", batch_size=64))
    loss = float(workload.losses(workload.outputs(model, batch), batch).detach().mean())
    assert 0 < loss < 10


def results(runs: Runs, family: str) -> None:
    """Its values are read back, and its best checkpoint is the one that the word means too."""
    made, loss = runs.ids[family], "eval/loss" if family == "lora" else "val/loss"
    table = nfa.results(made)
    assert {row.key for row in table} == {key for key, _, _ in runs.store.metrics(made) if is_shown(key)}
    (best,) = table.at(best=loss)[loss]
    assert str(best.step) == runs.store.tags(made)["nfa.best_epoch"]
    asked, word = (nfa.load_checkpoint(made, epoch, device="cpu").model for epoch in (best.step, "best"))
    assert all(torch.equal(one, two) for one, two in zip(asked.parameters(), word.parameters(), strict=True))


def is_shown(key: str) -> bool:
    return not is_beside(key) and not is_bookkeeping(key)


def analysis(entrypoint: str, **more: Any) -> Job:
    """By run id."""

    def job(runs: Runs, family: str) -> None:
        made = runs.made(entrypoint, run_id=runs.ids[family], **FEW[entrypoint], **more)
        checked(runs, made, entrypoint, family)
        assert runs.store.tags(made)["nfa.source_run_ids"] == runs.ids[family]
        assert {step for _, step, _ in runs.store.metrics(made)} == {0, 2}

    return job


def comparison(entrypoint: str) -> Job:
    """With a run of another family."""

    def job(runs: Runs, family: str) -> None:
        other = "mlp" if family == NAMED else NAMED
        made = runs.made(entrypoint, run_id=f"{runs.ids[family]},{runs.ids[other]}", **FEW[entrypoint])
        assert runs.store.tags(made)["nfa.state"] == "finished"
        assert runs.store.tags(made)["nfa.workload"] == f"{family},{other}"
        assert runs.store.artifact(made, "comparison.csv").exists()

    return job


def of_run(entrypoint: str, parameter: str = "run_id", **more: Any) -> Job:
    """A step of an experiment that takes the run."""

    def job(runs: Runs, family: str) -> None:
        checked(runs, runs.made(entrypoint, **{parameter: runs.ids[family]}, **more), entrypoint, family)

    return job


def report(runs: Runs, family: str) -> None:
    """A page of the run, in a run of its own."""
    made = runs.made("report", run_id=runs.ids[family])
    checked(runs, made, "report", family)
    assert runs.store.tags(made)["nfa.source_run_ids"] == runs.ids[family]
    assert runs.store.artifact(made, "report.html").exists()


def resume(runs: Runs, family: str) -> None:
    """A run that has failed ends with bitwise the weights of one that has not."""
    broken = failed(runs, family)
    assert runs.store.tags(broken)["nfa.state"] == "failed"
    runs.do(TRAINS[family], resume=broken)
    checked(runs, broken, TRAINS[family], family)
    whole, found = (runs.store.checkpoints(run_id) for run_id in (runs.ids[family], broken))
    assert same_weights(found, whole)


def all_optimizers(runs: Runs, family: str) -> None:
    """Children of a parent, which is analysed as one."""
    parent = runs.made(TRAINS[family], **{**runs.options(family), "optimizer": "all"})
    checked(runs, parent, TRAINS[family], family)
    made = runs.made("analyze", run_id=parent, **FEW["analyze"])
    assert len(runs.store.tags(made)["nfa.source_run_ids"].split(",")) == 3


def training(**more: Any) -> Job:
    """With one more parameter."""

    def job(runs: Runs, family: str) -> None:
        checked(runs, runs.made(TRAINS[family], **{**runs.options(family), **more}), TRAINS[family], family)

    return job


def by_name(runs: Runs, family: str) -> None:
    """By the one entry point that takes any name."""
    options = runs.options(family) if TRAINS[family] == "train" else {}
    checked(runs, runs.made("train", **{**options, "workload": family}), "train", family)


def tuning(runs: Runs, family: str, **more: Any) -> dict[str, Any]:
    """Parameters of the smallest study."""
    searched = SEARCHED[family].partition("=")[0]
    fixed = {name: value for name, value in runs.options(family).items() if name not in ("workload", searched)}
    written = ",".join(f"{name}={value}" for name, value in fixed.items())
    return {"workload": family, "fixed": written, "space": SEARCHED[family], "n_trials": 2, "confirm": 0, **more}


def tune(**more: Any) -> Job:
    """Its trials are runs of the family's own entry point."""

    def job(runs: Runs, family: str) -> None:
        made = runs.made("tune", **tuning(runs, family, **more))
        checked(runs, made, "tune", family)
        trials = [one for one in runs.store.runs() if runs.store.tags(one).get("mlflow.parentRunId") == made]
        assert {runs.store.tags(one)["nfa.entrypoint"] for one in trials} == {TRAINS[family]}

    return job


def in_two_processes(entrypoint: str) -> Job:
    """The same job, shared."""

    def job(runs: Runs, family: str) -> None:
        asked = {
            "analyze": {"run_id": runs.ids[family], "max_samples": 6, "nproc": 2, "relations": "g_vs_h"},
            "tune": tuning(runs, family, n_workers=2),
            "train_eeg": {**runs.options("eeg"), "nproc": 2},
        }
        known = runs.store.runs()
        ended = run(runs.store, words(**asked[entrypoint]), entrypoint=entrypoint, NFA_CACHE=runs.cache)
        assert ended.code == 0, ended.output
        checked(runs, next(one for one in runs.store.runs() if one not in known), entrypoint, family)

    return job


def train_in_two_processes(runs: Runs, family: str) -> None:
    """Those that can are started as somebody would: each process is told the words of the first."""
    job = in_two_processes("train_eeg") if family == "eeg" else training(nproc=2)
    job(runs, family)


# ---- what each does with the runs of each family, or why it does not


ONLY_OWN, OF_LORA, FAILED = "its own workload", "a run of train_lora", "a killed or failed run"
FINE_TUNED, NO_NPROC, ARGUMENTS = "finished runs of train_lora", "parameter 'nproc'", "a workload of your own"
Row = tuple[Job, str, str, str, str]
TABLE: Mapping[str, Row] = {  # job: mlp, eeg, lora, my_lab:make
    "train": (train, DOES, DOES, DOES, DOES),
    "train workload=": (by_name, DOES, "-e train_eeg", "-e train_lora", DOES),
    "train width=": (training(width=5), DOES, "parameter 'width'", "parameter 'width'", DOES),
    "train depth=": (training(depth=1), DOES, "parameter 'depth'", "parameter 'depth'", "a parameter of workload=mlp"),
    "train workload_args=": (
        training(workload_args="width=5"), ARGUMENTS, "parameter 'workload_args'", "parameter 'workload_args'", DOES,
    ),
    "train optimizer=all": (all_optimizers, DOES, "optimizer='all'", "optimizer='all'", DOES),
    "train nproc=2": (train_in_two_processes, NO_NPROC, SLOW, NO_NPROC, NO_NPROC),
    "train resume=": (resume, DOES, SLOW, SLOW, DOES),
    "train resume= of a finished run": (of_run("train", "resume"), FAILED, FAILED, FAILED, FAILED),
    "load_checkpoint": (load_checkpoint, DOES, DOES, DOES, DOES),
    "results": (results, DOES, DOES, DOES, DOES),
    "report": (report, DOES, DOES, DOES, DOES),
    "analyze": (analysis("analyze"), DOES, DOES, DOES, DOES),
    "gradient_directions": (analysis("gradient_directions"), DOES, DOES, DOES, DOES),
    "gradient_flow": (analysis("gradient_flow"), DOES, DOES, DOES, DOES),
    "analyze two": (comparison("analyze"), DOES, SLOW, SLOW, DOES),
    "gradient_directions two": (comparison("gradient_directions"), DOES, SLOW, SLOW, DOES),
    "gradient_flow two": (comparison("gradient_flow"), DOES, SLOW, SLOW, DOES),
    "analyze nproc=2": (in_two_processes("analyze"), SLOW, SLOW, SLOW, SLOW),
    "analyze workload=": (analysis("analyze", workload=NAMED), ONLY_OWN, ONLY_OWN, ONLY_OWN, DOES),
    "gradient_flow workload_args=": (
        analysis("gradient_flow", workload_args="items=24"), ONLY_OWN, ONLY_OWN, ONLY_OWN, DOES,
    ),
    "tune": (tune(), DOES, SLOW, SLOW, DOES),
    "tune n_workers=2": (in_two_processes("tune"), SLOW, SLOW, SLOW, SLOW),
    "tune workload_args=": (tune(workload_args="items=16"), ARGUMENTS, ARGUMENTS, ARGUMENTS, DOES),
    "tune objective=": (
        tune(objective="val/pearson"), "no run logs it", SLOW, "no run logs it", LATER,  # once it is made
    ),
    "ablate_eeg resume=": (of_run("ablate_eeg", "resume"), FAILED, FAILED, FAILED, FAILED),
    "synthesize_teacher": (of_run("synthesize_teacher"), OF_LORA, OF_LORA, DOES, OF_LORA),
    "lora_svd": (of_run("lora_svd", rank=4), OF_LORA, OF_LORA, DOES, OF_LORA),
    "compare_lora": (of_run("compare_lora"), FINE_TUNED, FINE_TUNED, DOES, FINE_TUNED),
}  # fmt: skip
CELLS = [
    pytest.param(row[0], family, cell, id=f"{name}-{family}", marks=[pytest.mark.slow] if cell == SLOW else [])
    for name, row in TABLE.items()
    for family, cell in zip(TRAINS, row[1:], strict=True)
    if cell != LATER
]


@pytest.mark.parametrize(("job", "family", "cell"), CELLS)
def test_a_job_is_done_or_refused_with_its_reason(job: Job, family: str, cell: str, runs: Runs) -> None:
    if cell in (DOES, SLOW):
        job(runs, family)
        return
    known = runs.store.runs()
    with pytest.raises(Refusal, match=re.escape(cell)):
        job(runs, family)
    assert runs.store.runs() == known, "a refusal makes no run"


def test_every_entry_point_that_takes_a_run_or_a_workload_is_in_the_table() -> None:
    takes = {
        name
        for name, point in entry_points().items()
        if {"run_id", "resume", "workload"} & {item.name for item in dataclasses.fields(point.parameters)}
    }
    calls = {"load_checkpoint", "results"}
    assert takes == {name.partition(" ")[0] for name in TABLE} - calls | {"train_eeg", "train_lora"}
