"""`ablate_eeg`: a run for each arm and seed, ended in the middle and continued, and one table of all."""

import csv
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nfa.errors import DivergedError, NfaError
from nfa.maths.statistics import crossed_bootstrap
from nfa.registry import stored_runs, tracking
from nfa.registry.analyses import gradient_flow_comparison
from nfa.registry.analyses.gradient_flow import GradientFlow
from nfa.registry.families.eeg import ablation as job
from nfa.registry.families.eeg.config import AblateEEGConfig
from nfa.registry.training import children
from tests.support.fault_injection import During, Send
from tests.support.gradient_flow_runs import EEG, expected
from tests.support.processes import Ended, run, words
from tests.support.stores import Store, used

ARMS, SEEDS = ["v1", "full", "v1 + gradient_scale"], [1, 2]
NAMES = [f"{arm}, seed {seed}" for seed in SEEDS for arm in ARMS]  # in the order of training
OPTIONS = {**EEG, "epochs": 2, "schedule": "0,2", "eval_every": 2, "seeds": "1,2", "switches": "gradient_scale"}
MIDDLE = 4  # a report at epoch 0 and one at epoch 2 for each training: the last of the second


@dataclass(frozen=True)
class Undrawn:
    """Neither does TensorBoard get figures; then `act`."""

    act: During | None = None

    def __call__(self) -> None:
        from nfa.registry.tracking.event_files import EventFiles

        EventFiles.figure = lambda *_: None  # type: ignore[method-assign]
        if self.act:
            self.act()


@dataclass(frozen=True)
class Ablated:
    """An ablation that a signal ended, what it had finished then, and how both parts of it ended."""

    store: Store
    parent: str
    before: dict[str, list[tuple[str, int, float]]]
    states: dict[str, str]
    ended: list[Ended]

    def child(self, name: str) -> str:
        return self.store.named()[name]

    def rows(self) -> dict[str, dict[str, str]]:
        lines = self.store.artifact(self.parent, "ablation.csv").read_text(encoding="utf-8").splitlines()
        return {row["arm"]: row for row in csv.DictReader(lines)}

    def results(self, arm: str) -> list[dict[str, Any]]:
        return [self.store.json(self.child(f"{arm}, seed {seed}"), "results.json") for seed in SEEDS]


@pytest.fixture(scope="module")
def ablated(empty_store: Store, tmp_path_factory: pytest.TempPathFactory) -> Ablated:
    folder = tmp_path_factory.mktemp("ablation")
    store, cache = empty_store.copy(folder / "store"), {"NFA_CACHE": str(folder / "cache")}
    stop = During("nfa.registry.training.tracked", "TrackedTraining._after", Send((signal.SIGTERM,)), MIDDLE)
    first = run(store, words(**OPTIONS), entrypoint="ablate_eeg", before=Undrawn(stop), **cache)
    parent = store.runs()[0]
    made = store.named()
    before = {name: store.metrics(made[name]) for name in NAMES if name in made}
    states = {name: store.tags(made[name])["nfa.state"] for name in before}
    states["parent"] = store.tags(parent)["nfa.state"]
    second = run(store, words(resume=parent), entrypoint="ablate_eeg", before=Undrawn(), **cache)
    assert second.code == 0, second.output
    return Ablated(store, parent, before, states, [first, second])


@pytest.fixture
def looking(ablated: Ablated, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ablated]:
    monkeypatch.setenv("NFA_CACHE", str(ablated.store.folder.parent / "cache"))
    with used(ablated.store, monkeypatch):
        yield ablated


def test_a_signal_ends_it_and_what_was_finished_is_left_alone(ablated: Ablated) -> None:
    first, second = ablated.ended
    assert first.code == 143, first.output
    assert "Traceback" not in first.output
    assert f"continue the unfinished trainings with resume={ablated.parent}" in first.output
    assert ablated.states == {NAMES[0]: "finished", NAMES[1]: "killed", "parent": "killed"}
    assert f"{NAMES[0]} has already finished" in second.output
    assert f"{NAMES[1]} has already finished" not in second.output
    assert ablated.store.metrics(ablated.child(NAMES[0])) == ablated.before[NAMES[0]]


def test_children_are_named_and_tagged_and_have_their_arm_s_switches(ablated: Ablated) -> None:
    store = ablated.store
    trained = [made for made in store.runs() if store.tags(made).get("nfa.entrypoint") == "train_eeg"]
    assert [store.tags(made)["nfa.variant"] for made in trained] == NAMES
    assert [store.tags(made)["mlflow.parentRunId"] for made in trained] == [ablated.parent] * len(NAMES)
    for made in (ablated.parent, *trained):
        assert (store.tags(made)["nfa.state"], store.status(made)) == ("finished", "FINISHED")
    for name, made in zip(NAMES, trained, strict=True):
        asked = store.json(made, "config.json")["train"]
        assert asked["seed"] == int(name[-1])
        assert asked["gradient_scale"] == (1.0 if name.startswith("v1,") else 2.0)
        assert asked["use_gated_residual"] is asked["use_mlp_head"] is name.startswith("full")
    ids = [store.json(made, "example_ids.json") for made in trained]
    assert ids == [ids[0]] * len(ids)


def test_the_table_is_recomputed_from_the_children(looking: Ablated) -> None:
    rows = looking.rows()
    assert list(rows) == ARMS
    tables = {}
    for arm, row in rows.items():
        recordings = [one["test"]["recordings"] for one in looking.results(arm)]
        tables[arm] = np.array([[one[name] for name in sorted(one)] for one in recordings])
        found = crossed_bootstrap(tables[arm])
        assert found
        assert [float(row[name]) for name in ("pearson", "low", "high")] == pytest.approx(found[:3])
        assert float(row["pearson"]) == pytest.approx(np.mean([r["test"]["pearson"] for r in looking.results(arm)]))
        assert float(row["val_pearson"]) == pytest.approx(np.mean([r["val"]["pearson"] for r in looking.results(arm)]))
        model = stored_runs.load_workload(looking.child(f"{arm}, seed 1")).model()
        assert int(row["parameters"]) == sum(weight.numel() for weight in model.parameters())
        assert int(row["seeds"]) == 2
        seconds = [looking.store.json(looking.child(f"{arm}, seed {s}"), "timing.json")["training"] for s in SEEDS]
        assert float(row["training_seconds"]) == pytest.approx(np.mean(seconds))
    for arm in ARMS[1:]:
        found = crossed_bootstrap(tables[arm] - tables["v1"])
        assert found
        shown = [float(rows[arm][name]) for name in ("difference", "difference_low", "difference_high")]
        assert shown == pytest.approx(found[:3])
    assert rows["v1"]["difference"] == rows["v1"]["difference_low"] == ""


def test_its_time_is_that_of_its_trainings_and_its_own(ablated: Ablated) -> None:
    whole = ablated.store.json(ablated.parent, "timing.json")
    times = [ablated.store.json(ablated.child(name), "timing.json")["total"] for name in NAMES]
    assert whole["children"] == pytest.approx(sum(times), abs=1e-6)
    assert whole["comparison"] > 0
    assert "training" not in whole


def test_flow_in_the_table_is_the_geometric_mean_of_the_references(looking: Ablated) -> None:
    for arm in ("v1", "v1 + gradient_scale"):
        row, ratios, changes = looking.rows()[arm], [], []
        for seed in SEEDS:
            values = expected(looking.child(f"{arm}, seed {seed}"), 2, 64)
            ratios.append(values["flow/block_0/grad_rms"] / values["flow/head/grad_rms"])
            changes.append(values["flow/block_0/weight_change"])
        assert float(row["front_output_ratio"]) == pytest.approx(np.sqrt(np.prod(ratios)), rel=1e-3)
        assert float(row["front_weight_change"]) == pytest.approx(np.sqrt(np.prod(changes)), rel=1e-3)


def test_the_comparison_says_what_is_cosmetic_with_intervals_over_seeds(ablated: Ablated) -> None:
    found = ablated.store.json(ablated.parent, "gradient_flow.json")["remedies"]
    assert set(found) == set(ARMS[1:])
    scaled = found["v1 + gradient_scale"]
    assert scaled["gradient_factor"] == pytest.approx(2, rel=0.01)
    assert scaled["update_factor"] == pytest.approx(1, abs=0.05)
    assert scaled["verdict"].startswith("cosmetic")
    at = scaled["gradient_factor_at_epoch"]
    assert at["low"] <= at["mean"] <= at["high"]
    assert at["n"] == 2
    text = ablated.store.artifact(ablated.parent, "ablation.txt").read_text(encoding="utf-8")
    assert [line.split("  ")[0].strip() for line in text.splitlines()[1:4]] == ARMS


def test_every_training_has_its_own_line(ablated: Ablated) -> None:
    lines = ablated.store.artifact(ablated.parent, "ablation_trainings.csv").read_text(encoding="utf-8").splitlines()
    rows = list(csv.DictReader(lines))
    assert [(row["arm"], int(row["seed"])) for row in rows] == [(arm, seed) for arm in ARMS for seed in SEEDS]
    text = ablated.store.artifact(ablated.parent, "ablation.txt").read_text(encoding="utf-8")
    for row, result in zip(rows, (one for arm in ARMS for one in ablated.results(arm)), strict=True):
        assert row["run_id"] == ablated.child(f"{row['arm']}, seed {row['seed']}")
        assert float(row["pearson"]) == result["test"]["pearson"]
        assert f"{result['test']['pearson']:.4g}" in text
    for arm in ARMS:
        ratios = [float(row["front_output_ratio"]) for row in rows if row["arm"] == arm]
        assert float(ablated.rows()[arm]["front_output_ratio"]) == pytest.approx(np.sqrt(np.prod(ratios)))
    scaled = ablated.store.json(ablated.parent, "gradient_flow.json")["remedies"]["v1 + gradient_scale"]
    of_seeds = [scaled["by_seed"][str(seed)]["gradient_factor"] for seed in SEEDS]
    assert scaled["gradient_factor"] == pytest.approx(np.sqrt(np.prod(of_seeds)))
    shown = f"by seed: {of_seeds[0]:.3g}, {of_seeds[1]:.3g}"
    assert shown in ablated.store.artifact(ablated.parent, "gradient_flow.txt").read_text(encoding="utf-8")


def test_an_arm_of_which_a_training_failed_has_no_mean_of_the_lucky_ones(looking: Ablated, tmp_path: Path) -> None:
    store = looking.store.copy(tmp_path / "store")
    with pytest.MonkeyPatch.context() as patch, used(store, patch):
        for owner, name in ((tracking, "save_picture"), (GradientFlow, "report"), (gradient_flow_comparison, "_draw")):
            patch.setattr(owner, name, lambda *_, **__: None)
        children = [tracking.find_run(store.named()[name]) for name in (*NAMES[:2], NAMES[3])]
        patch.setattr(tracking, "children", lambda *_: children)
        parent = tracking.open_run("ablate_eeg", "eeg", adopt=False)
        with parent:
            job._compare(parent, ARMS, {"full, seed 2": "the loss became inf"})
    lines = store.artifact(parent.run_id, "ablation.csv").read_text(encoding="utf-8").splitlines()
    rows = {row["arm"]: row for row in csv.DictReader(lines)}
    assert [rows["full"][name] for name in ("pearson", "difference", "val_pearson")] == [""] * 3
    assert rows["v1"]["pearson"] != ""
    text = store.artifact(parent.run_id, "ablation.txt").read_text(encoding="utf-8")
    assert "full, seed 2 failed (the loss became inf), so its arm has no mean" in text
    flow = store.artifact(parent.run_id, "gradient_flow.txt").read_text(encoding="utf-8")
    assert "full: 1 failed; the mean of the others would be biased" in flow
    assert store.json(parent.run_id, "gradient_flow.json")["pearson"]["full"]["mean"] is None


def test_where_every_training_fails_their_reasons_are_said(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise DivergedError("made to fail")

    monkeypatch.setenv("NFA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(children, "train_one", fail)
    with pytest.raises(NfaError, match=r"v1, seed 1: made to fail\nv1, seed 2: made to fail") as failed:
        job.ablate_eeg(AblateEEGConfig(**{**OPTIONS, "presets": "v1", "switches": "none"}))
    assert failed.value.exit_code == 1
    assert {store.tags(made)["nfa.state"] for made in store.runs()} == {"failed"}


def test_arms_are_the_presets_and_each_switch_alone_on_v1() -> None:
    arms = AblateEEGConfig(presets="full,v1,full", switches="use_llrd,output_grad_scale").arms()
    assert arms == {
        "full": {"preset": "full"},
        "v1": {"preset": "v1"},
        "v1 + use_llrd": {"preset": "custom", "use_llrd": True},
        "v1 + output_grad_scale": {"preset": "custom", "output_grad_scale": 0.5},
    }
    assert list(AblateEEGConfig(presets="v1", switches="none").arms()) == ["v1"]
    assert len(AblateEEGConfig().arms()) == 8
