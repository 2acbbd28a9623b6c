"""Several seeds: a parent with a child for each and their means, groups of them, processes side by side, and resume."""

import csv
import json
import math
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from scipy import stats

from nfa.levels import OVER_SEEDS, is_beside
from nfa.registry import tracking
from nfa.registry.tracking.sources import find_sources
from tests.support.fault_injection import TERM, Send
from tests.support.processes import Ended, launch, run, words
from tests.support.stores import Family, Finished, Store, family_in, same_weights, used
from tests.support.tiny_runs import OPTIMIZERS, tiny

SEEDS = (1, 2, 3)
GROUPED = {"optimizer": "all", "seeds": "1-2", "epochs": 2, "momentum": 0.5}
BESIDE: dict[str, Any] = {"epochs": 60, "schedule": "0,60", "seeds": "1-2", "n_workers": 2}
Rows = dict[tuple[str, int], float]


def trained_with(empty: Store, folder: Path, pictures: bool = False, **parameters: object) -> Family:
    store = empty.copy(folder / "store")
    ended = run(store, tiny(**parameters), pictures=pictures)
    assert ended.code == 0, ended.output
    return family_in(store)


@pytest.fixture(scope="module")
def seeded(empty_store: Store, tmp_path_factory: pytest.TempPathFactory) -> Family:
    return trained_with(empty_store, tmp_path_factory.mktemp("seeds"), pictures=True, seeds="1-3", run_name="ours")


@pytest.fixture(scope="module")
def grouped(empty_store: Store, tmp_path_factory: pytest.TempPathFactory) -> Family:
    return trained_with(empty_store, tmp_path_factory.mktemp("groups"), pictures=True, **GROUPED)


@pytest.fixture(scope="module")
def single(empty_store: Store, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """The training with one of these seeds alone."""
    store = empty_store.copy(tmp_path_factory.mktemp("single") / "store")
    assert run(store, tiny(seed=2)).code == 0
    return Finished(store, store.runs()[0])


@pytest.fixture
def looking(grouped: Family) -> Iterator[Family]:
    with pytest.MonkeyPatch.context() as monkeypatch, used(grouped.store, monkeypatch):
        yield grouped


def measured(store: Store, run_id: str) -> list[tuple[str, int, float]]:
    """The metrics of a run that do not differ each time, and that its parent does not log to compare its children."""
    return [row for row in store.metrics(run_id) if not row[0].startswith(("nfa/", "- comparison/"))]


def rows_of(store: Store, run_id: str) -> Rows:
    return {(key, step): value for key, step, value in measured(store, run_id)}


def assert_means(store: Store, parent: str, children: list[str]) -> None:
    """The rows of the parent are those computed here from its children's, and no others."""
    every = [rows_of(store, child) for child in children]
    shared = set.intersection(*map(set, every))
    expected: Rows = {}
    for key, step in shared:
        values = [rows[key, step] for rows in every]
        if key.startswith("nfa/") or (is_beside(key) and not key.endswith(("_chance", "_shared"))):
            continue
        expected[key, step] = mean = math.fsum(values) / len(values)
        if len(values) > 2 and not is_beside(key):
            low, high = stats.t.interval(0.95, len(values) - 1, loc=mean, scale=stats.sem(values))
            if math.isnan(low):  # all values are the same
                low = high = mean
            ends = zip(OVER_SEEDS, (low, high, len(values)), strict=True)
            expected |= {(f"{key}{end}", step): value for end, value in ends}
    assert rows_of(store, parent) == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert len(measured(store, parent)) == len(expected)


def assert_same(one: tuple[Store, str], other: tuple[Store, str]) -> None:
    """Two trainings have bitwise the same checkpoints and metrics."""
    (ours, run_id), (theirs, expected) = one, other
    assert same_weights(ours.checkpoints(run_id), theirs.checkpoints(expected))
    assert measured(ours, run_id) == measured(theirs, expected)


# ---- seeds alone


def test_the_training_of_a_seed_is_bitwise_that_with_this_seed_alone(seeded: Family, single: Finished) -> None:
    child = seeded.children["seed 2"]
    assert_same((seeded.store, child), (single.store, single.run_id))
    for path in ("example_ids.json", "results.json"):
        assert seeded.store.json(child, path) == single.store.json(single.run_id, path)
    assert seeded.store.checkpoint_metadata(child, 4) == single.store.checkpoint_metadata(single.run_id, 4)


def test_every_seed_draws_a_split_of_its_own(seeded: Family) -> None:
    splits = [seeded.store.json(child, "example_ids.json")["val"] for child in seeded.children.values()]
    assert len({tuple(split) for split in splits}) == len(SEEDS)


def test_a_parent_of_seeds_has_a_finished_child_for_each(seeded: Family) -> None:
    assert list(seeded.children) == [f"seed {seed}" for seed in SEEDS]
    tags = seeded.store.tags(seeded.parent)
    assert (tags["nfa.seeds"], tags["nfa.trained"], tags["nfa.state"]) == ("1,2,3", "true", "finished")
    for seed, child in zip(SEEDS, seeded.children.values(), strict=True):
        params = seeded.store.params(child)
        assert (params["seed"], params["seeds"]) == (str(seed), "")
        assert seeded.store.status(child) == "FINISHED"
    parent = seeded.store.params(seeded.parent)
    assert (parent["seeds"], parent["lr"]) == ("1-3", "0.1")
    assert "seed" not in parent


def test_the_parent_s_series_are_means_with_intervals_and_the_number_of_seeds(seeded: Family) -> None:
    assert_means(seeded.store, seeded.parent, list(seeded.children.values()))
    rows = rows_of(seeded.store, seeded.parent)
    assert rows["val/loss_lo", 4] < rows["val/loss", 4] < rows["val/loss_hi", 4]
    assert rows["layer_0/agop_nfm_n", 4] == 3
    assert not [key for key, _ in rows if key.endswith(("_se", "_sd", "_unbiased"))]


def test_the_parent_has_a_figure_and_results_of_the_means(seeded: Family) -> None:
    assert seeded.store.artifact(seeded.parent, "plots/training_analysis.png").stat().st_size > 5000
    results, rows = seeded.store.json(seeded.parent, "results.json"), rows_of(seeded.store, seeded.parent)
    assert results["seeds"] == [1, 2, 3]
    assert results["epochs"] == [0, 1, 2, 4]
    for name, key in (("val_losses", "val/loss"), ("val_losses_hi", "val/loss_hi")):
        assert results[name] == [rows[key, epoch] for epoch in results["epochs"]]
    for relation in ("agop_nfm_lo", "agop_nfm_chance"):
        assert results["layer_levels"][relation]["0"][-1] == rows[f"layer_0/{relation}", 4]
    assert results["conventions"] == seeded.store.json(seeded.children["seed 1"], "results.json")["conventions"]


# ---- groups


def below(family: Family, name: str) -> dict[str, str]:
    """The children of a group by seed."""
    store, group = family.store, family.children[name]
    found = [run_id for run_id in store.runs() if store.tags(run_id).get("mlflow.parentRunId") == group]
    return {store.tags(run_id)["nfa.variant"]: run_id for run_id in found}


def test_several_optimizers_with_seeds_are_groups_whose_series_are_means(grouped: Family) -> None:
    assert list(grouped.children) == OPTIMIZERS
    for name, group in grouped.children.items():
        children = below(grouped, name)
        assert list(children) == ["seed 1", "seed 2"]
        tags, params = grouped.store.tags(group), grouped.store.params(group)
        assert (tags["nfa.seeds"], tags["nfa.state"], params["optimizer"]) == ("1,2", "finished", name)
        assert_means(grouped.store, group, list(children.values()))
        assert grouped.store.artifact(group, "plots/training_analysis.png").exists()
    assert measured(grouped.store, grouped.parent) == []
    assert grouped.store.artifact(grouped.parent, "plots/optimizer_comparison.png").stat().st_size > 5000
    assert "nfa.seeds" not in grouped.store.tags(grouped.parent)


def test_a_parent_means_all_trainings_below_it_and_a_group_its_own(looking: Family) -> None:
    trainings = {name: list(below(looking, name).values()) for name in OPTIMIZERS}
    everything = [run_id for name in OPTIMIZERS for run_id in trainings[name]]
    for text in (looking.parent, "latest"):
        assert [source.info.run_id for source in find_sources(text)] == everything
    group = looking.children["adam"]
    assert [source.info.run_id for source in find_sources(group)] == trainings["adam"]


def test_an_analysis_of_the_parent_compares_the_groups(grouped: Family, tmp_path: Path) -> None:
    store = grouped.store.copy(tmp_path / "store")
    asked = words(run_id=grouped.parent, relations="agop_nfm", max_samples=64, epochs="0,2")
    ended = run(store, asked, entrypoint="analyze")
    assert ended.code == 0, ended.output
    (comparison,) = [run_id for run_id in store.runs() if store.artifact(run_id, "groups.csv").exists()]
    table = list(csv.DictReader(store.artifact(comparison, "groups.csv").read_text().splitlines()))
    found = {(row["group"].partition(" lr ")[0], row["runs"]) for row in table}
    assert found == {(name, "2") for name in OPTIMIZERS}


# ---- ends


@dataclass(frozen=True)
class InTraining:
    """Ends the process, or the training, when that of an optimizer and a seed reaches an epoch."""

    optimizer: str
    seed: int
    act: Send | None
    epoch: int = 1

    def __call__(self) -> None:
        from nfa.errors import DivergedError
        from nfa.registry.training import tracked

        after = tracked.TrackedTraining._after

        def stop(job: tracked.TrackedTraining, epoch: int) -> None:
            config = job.session.config
            if (config.optimizer, config.seed, epoch) == (self.optimizer, self.seed, self.epoch):
                if self.act is None:
                    raise DivergedError("made to fail")
                self.act()
            after(job, epoch)

        tracked.TrackedTraining._after = stop  # type: ignore[method-assign]


def ended_in(empty: Store, folder: Path, before: Callable[[], None], **parameters: object) -> tuple[Family, Ended]:
    store = empty.copy(folder / "store")
    ended = run(store, tiny(**parameters), before=before)
    return family_in(store), ended


def states(family: Family, run_ids: dict[str, str]) -> dict[str, str]:
    return {name: family.store.tags(run_id)["nfa.state"] for name, run_id in run_ids.items()}


@pytest.mark.parametrize("several", [{"seeds": "1-2"}, {"seeds": "1-2", "optimizer": "all"}], ids=["seeds", "groups"])
def test_if_all_seeds_fail_every_reason_is_said_and_how_to_continue(fresh: Store, several: dict[str, str]) -> None:
    ended = run(fresh, tiny(lr=1e30, **several), pictures=True)
    assert ended.code == 1
    assert "Traceback" not in ended.output
    assert "seed 1: the training loss became" in ended.output
    assert "seed 2: the training loss became" in ended.output
    parent = fresh.runs()[0]
    note = fresh.tags(parent)["mlflow.note.content"]
    assert "seed 2 has failed: the training loss became" in note
    assert f"--resume {parent}" in note


def test_a_failed_seed_stops_no_other_and_what_it_lacks_has_no_mean_until_it_is_resumed(
    seeded: Family, empty_store: Store, tmp_path: Path
) -> None:
    broken, ended = ended_in(empty_store, tmp_path, InTraining("sgd", 2, None, epoch=2), seeds="1-3")
    assert ended.code == 1
    assert "seed 2: made to fail" in ended.output
    assert states(broken, broken.children) == {"seed 1": "finished", "seed 2": "failed", "seed 3": "finished"}
    assert broken.store.tags(broken.parent)["nfa.state"] == "failed"
    assert_means(broken.store, broken.parent, list(broken.children.values()))
    assert {step for key, step in rows_of(broken.store, broken.parent) if key == "val/loss"} == {0, 1}
    resumed = run(broken.store, words(resume=broken.parent))
    assert resumed.code == 0, resumed.output
    assert "seed 3 has already finished" in resumed.output
    assert measured(broken.store, broken.parent) == measured(seeded.store, seeded.parent)
    for name, child in broken.children.items():
        assert_same((broken.store, child), (seeded.store, seeded.children[name]))


def test_resume_continues_a_group_and_then_all_that_is_left(
    grouped: Family, empty_store: Store, tmp_path: Path
) -> None:
    killed, ended = ended_in(empty_store, tmp_path, InTraining("adam", 2, TERM), **GROUPED)
    assert ended.code == 143
    assert f"continue the unfinished trainings with resume={killed.parent}" in ended.output
    assert states(killed, killed.children) == dict.fromkeys(OPTIMIZERS, "killed")
    assert states(killed, below(killed, "muon")) == {"seed 1": "finished"}
    assert measured(killed.store, killed.children["sgd"]) == []
    group = run(killed.store, words(resume=killed.children["adam"]))
    assert group.code == 0, group.output
    assert states(killed, killed.children) == {"sgd": "killed", "adam": "finished", "muon": "killed"}
    whole = run(killed.store, words(resume=killed.parent))
    assert whole.code == 0, whole.output
    for said in ("adam has already finished", "sgd, seed 2 has already finished", "muon, seed 1 has already finished"):
        assert said in whole.output
    for name in OPTIMIZERS:
        ours, theirs = measured(killed.store, killed.children[name]), measured(grouped.store, grouped.children[name])
        assert ours == theirs
        for seed, child in below(killed, name).items():
            assert_same((killed.store, child), (grouped.store, below(grouped, name)[seed]))
    assert {killed.store.tags(run_id)["nfa.state"] for run_id in killed.store.runs()} == {"finished"}


# ---- several at a time


def test_trainings_in_processes_side_by_side_are_bitwise_those_one_after_another(
    seeded: Family, empty_store: Store, tmp_path: Path
) -> None:
    beside = trained_with(empty_store, tmp_path, seeds="1-2", n_workers=2)
    assert sorted(beside.children) == ["seed 1", "seed 2"]
    for name, child in beside.children.items():
        assert_same((beside.store, child), (seeded.store, seeded.children[name]))
    assert_means(beside.store, beside.parent, list(beside.children.values()))
    assert beside.store.tags(beside.parent)["nfa.trained"] == "true"


@pytest.mark.slow
@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_all_processes_and_resume_goes_on(
    signum: int, code: int, empty_store: Store, tmp_path: Path
) -> None:
    store = empty_store.copy(tmp_path / "store")
    child = launch(store, tiny(**BESIDE))
    _until_trained(store)
    child.send(signum)
    ended = child.end()
    assert ended.code == code, ended.output
    family = family_in(store)
    assert states(family, {"parent": family.parent, **family.children}) == {
        "parent": "killed", "seed 1": "killed", "seed 2": "killed",
    }  # fmt: skip
    resumed = run(store, words(resume=family.parent))
    assert resumed.code == 0, resumed.output
    for run_id in family.children.values():
        steps = [step for key, step, _ in store.metrics(run_id) if key == "val/loss"]
        assert steps == list(range(BESIDE["epochs"] + 1))


@pytest.mark.slow
def test_the_training_of_a_killed_process_is_resumed_by_another_one(empty_store: Store, tmp_path: Path) -> None:
    store = empty_store.copy(tmp_path / "store")
    child = launch(store, tiny(**BESIDE))
    victim = _until_trained(store)
    os.kill(victim, signal.SIGKILL)
    ended = child.end()
    assert ended.code == 0, ended.output
    assert f"worker {victim} was ended by signal 9; it is replaced" in ended.output
    family = family_in(store)
    for run_id in family.children.values():
        steps = [step for key, step, _ in store.metrics(run_id) if key == "val/loss"]
        assert steps == list(range(BESIDE["epochs"] + 1))


def _until_trained(store: Store) -> int:
    """Wait until both trainings have a checkpoint; return the process of the first one."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        trained = [run_id for run_id in store.runs() if any(store.artifact(run_id, "checkpoints").glob("*"))]
        if len(trained) == 2:
            return int(json.loads(store.claims(trained[0])["nfa.claim.0"])["pid"])
        time.sleep(0.02)
    raise AssertionError("no training has begun")


# ---- what else is trained


def test_latest_is_the_parent_of_seeds(seeded: Family) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch, used(seeded.store, monkeypatch):
        assert tracking.find_run("latest").info.run_id == seeded.parent


def test_one_seed_is_a_parent_with_a_child(empty_store: Store, tmp_path: Path, single: Finished) -> None:
    alone = trained_with(empty_store, tmp_path, seeds="2")
    assert_same((alone.store, alone.children["seed 2"]), (single.store, single.run_id))
    assert_means(alone.store, alone.parent, list(alone.children.values()))
