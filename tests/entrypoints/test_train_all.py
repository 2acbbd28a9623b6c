"""`optimizer=all`: a parent with one child for each optimizer, and one comparison."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from nfa.errors import Refusal
from nfa.registry import stored_runs, tracking
from tests.support.fault_injection import KILL, TERM, Send
from tests.support.processes import Ended, run, words
from tests.support.stores import Family, Store, family_in, same_weights, used
from tests.support.tiny_runs import OPTIMIZERS, tiny, trained_family


@pytest.fixture(scope="module")
def trained(empty_store: Store, tmp_path_factory: pytest.TempPathFactory) -> Family:
    store = empty_store.copy(tmp_path_factory.mktemp("all") / "store")
    return trained_family(store, epochs=2, momentum=0.5, pictures=True)


@pytest.fixture
def looking(trained: Family) -> Iterator[Family]:
    with pytest.MonkeyPatch.context() as monkeypatch, used(trained.store, monkeypatch):
        yield trained


def test_three_children_and_their_parent_are_finished(trained: Family) -> None:
    assert sorted(trained.children) == sorted(OPTIMIZERS)
    for run_id in (trained.parent, *trained.children.values()):
        assert trained.store.tags(run_id)["nfa.state"] == "finished"
        assert trained.store.status(run_id) == "FINISHED"
        assert trained.store.tags(run_id)["nfa.entrypoint"] == "train"
        assert trained.store.tags(run_id)["nfa.workload"] == "mlp"


def test_children_log_their_resolved_values_under_plain_names(trained: Family) -> None:
    lr = {name: trained.store.params(run_id)["lr"] for name, run_id in trained.children.items()}
    assert lr == {"sgd": "0.1", "adam": "0.001", "muon": "0.01"}
    for name, run_id in trained.children.items():
        params = trained.store.params(run_id)
        assert params["optimizer"] == name
        assert not [key for key in params if key.startswith("resolved.")]


def test_momentum_is_for_the_optimizers_that_have_one(trained: Family) -> None:
    momenta = {name: trained.store.params(run_id)["momentum"] for name, run_id in trained.children.items()}
    assert momenta == {"sgd": "0.5", "adam": "0.0", "muon": "0.5"}


def test_all_children_start_from_the_same_weights_on_the_same_examples(trained: Family) -> None:
    starts = [trained.store.checkpoints(run_id)["epoch_0000.safetensors"] for run_id in trained.children.values()]
    ids = [trained.store.json(run_id, "example_ids.json") for run_id in trained.children.values()]
    assert all(start["layers.0.weight"].equal(starts[0]["layers.0.weight"]) for start in starts)
    assert ids == [ids[0]] * 3


def test_parent_has_the_comparison_and_no_checkpoints_of_its_own(trained: Family) -> None:
    for kind in ("png", "pdf"):
        file = trained.store.artifact(trained.parent, f"plots/optimizer_comparison.{kind}")
        assert file.stat().st_size > 5000
    assert not trained.store.artifact(trained.parent, "checkpoints").exists()


def test_parent_logs_what_compares_its_children_and_nothing_else_of_them(looking: Family) -> None:
    found = {key: of for key, of in tracking.history(looking.parent).items() if not key.startswith("nfa/")}
    series = {name: tracking.history(run_id) for name, run_id in looking.children.items()}
    for name, own in series.items():
        assert found.pop(f"- comparison/val loss: {name}") == own["val/loss"]
        assert found.pop(f"- comparison/val accuracy: {name}") == own["val/accuracy"]
        sites = [of_site for key, of_site in own.items() if key.endswith("/agop_nfm")]
        mean = {step: pytest.approx(sum(of[step] for of in sites) / len(sites)) for step in sites[0]}
        assert found.pop(f"- comparison/agop_nfm over sites: {name}") == mean
    assert found == {}


def test_latest_means_the_parent_not_its_last_child(looking: Family) -> None:
    assert tracking.find_run("latest").info.run_id == looking.parent


def test_child_s_checkpoint_loads_and_the_parent_s_is_refused(looking: Family) -> None:
    model, workload = stored_runs.load_checkpoint(looking.children["muon"], 2)
    assert workload.config.optimizer == "muon"
    first, *_ = looking.children.values()
    for asked, typed in ((0, "0"), (99, "'last'"), ("best", "'best'"), (None, "'last'")):
        with pytest.raises(Refusal) as refused:
            stored_runs.load_checkpoint(looking.parent, asked)
        got, allowed, remedy = str(refused.value).splitlines()
        assert "(it has no checkpoints)" in got
        apart = (
            "sgd lr 0.1 seed 1717 momentum 0.5 epochs 2",
            "adam lr 0.001 seed 1717 epochs 2 batch_size 64",
            "muon lr 0.01 seed 1717 momentum 0.5 epochs 2",
        )
        named = zip(apart, looking.children.values(), strict=True)
        assert allowed.endswith(f": {', '.join(f'{name} {run_id[:12]}' for name, run_id in named)}")
        assert remedy == f"  do: load_checkpoint({first[:12]!r}, epoch={typed})"
    assert model is not None


@dataclass(frozen=True)
class InChild:
    """Ends the process, or the child, when the training of `optimizer` reaches its first epoch."""

    optimizer: str
    act: Send | None

    def __call__(self) -> None:
        from nfa.errors import DivergedError
        from nfa.registry.training import tracked

        after = tracked.TrackedTraining._after

        def stop(job: tracked.TrackedTraining, epoch: int) -> None:
            if job.session.called == self.optimizer and epoch == 1:
                if self.act is None:
                    raise DivergedError("made to fail")
                self.act()
            after(job, epoch)

        tracked.TrackedTraining._after = stop  # type: ignore[method-assign]


def started(empty: Store, folder: Path, optimizer: str, act: Send | None) -> tuple[Family, Ended]:
    store = empty.copy(folder / "store")
    ended = run(store, tiny(optimizer="all", epochs=2, momentum=0.5), before=InChild(optimizer, act), pictures=True)
    return family_in(store), ended


def assert_completed(family: Family, expected: Family) -> None:
    assert sorted(family.children) == sorted(OPTIMIZERS)
    for name, run_id in family.children.items():
        ours, theirs = family.store, expected.store
        assert same_weights(ours.checkpoints(run_id), theirs.checkpoints(expected.children[name]))
        assert ours.metrics(run_id) == theirs.metrics(expected.children[name])
    for run_id in family.store.runs():
        assert family.store.tags(run_id)["nfa.state"] == "finished"


def test_child_that_fails_does_not_stop_the_others_and_resume_trains_only_it(
    trained: Family, empty_store: Store, tmp_path: Path
) -> None:
    broken, ended = started(empty_store, tmp_path, "sgd", None)
    assert ended.code == 1
    assert "sgd: made to fail" in ended.output
    states = {name: broken.store.tags(run_id)["nfa.state"] for name, run_id in broken.children.items()}
    assert states == {"sgd": "failed", "adam": "finished", "muon": "finished"}
    assert broken.store.tags(broken.parent)["nfa.state"] == "failed"
    assert broken.store.artifact(broken.parent, "plots/optimizer_comparison.png").exists()
    resumed = run(broken.store, words(resume=broken.parent))
    assert resumed.code == 0, resumed.output
    assert "adam has already finished" in resumed.output
    assert "muon has already finished" in resumed.output
    assert_completed(family_in(broken.store), trained)


@pytest.mark.parametrize(("act", "code", "state"), [
    (TERM, 143, "killed"), pytest.param(KILL, -9, "running", marks=pytest.mark.slow),
])  # fmt: skip
def test_ended_parent_resumes_what_is_unfinished_and_nothing_else(
    act: Send, code: int, state: str, trained: Family, empty_store: Store, tmp_path: Path
) -> None:
    ended_family, ended = started(empty_store, tmp_path, "adam", act)
    assert ended.code == code
    states = {name: ended_family.store.tags(run_id)["nfa.state"] for name, run_id in ended_family.children.items()}
    assert states == {"sgd": "finished", "adam": state}
    assert ended_family.store.tags(ended_family.parent)["nfa.state"] == state
    resumed = run(ended_family.store, words(resume=ended_family.parent))
    assert resumed.code == 0, resumed.output
    assert "sgd has already finished" in resumed.output
    assert_completed(family_in(ended_family.store), trained)
