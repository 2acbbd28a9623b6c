"""`tune`: a study whose trials are tracked runs like any other, its best one registered, and continued by its name."""

from pathlib import Path
from typing import Any

import optuna
import pytest
import torch

from nfa.errors import Refusal
from nfa.registry import stored_runs, tracking
from nfa.registry.typed_values import assignments
from tests.support.processes import run, words
from tests.support.stores import Store, same_weights, used, wrapper_in
from tests.support.tuning_runs import FIXED, NAME, Study, tuned

PRUNED = {"n_trials": 10, "pruner": "median", "sampler": "random", "confirm": 2, "constraint": "val/accuracy>0.05"}


@pytest.fixture(scope="module")
def study(empty_store: Store, tmp_path_factory: pytest.TempPathFactory) -> Study:
    store = empty_store.copy(tmp_path_factory.mktemp("study"))
    ended = tuned(store, PRUNED, MLFLOW_RUN_ID=wrapper_in(store))  # as `mlflow run` starts it
    assert ended.code == 0, ended.output
    return Study(store)


def states(study: Study) -> dict[str, str]:
    return {name: study.store.tags(run_id)["nfa.state"] for name, run_id in study.trials.items()}


def finished(study: Study) -> dict[int, str]:
    return {int(name.split()[1]): study.trials[name] for name, state in states(study).items() if state == "finished"}


def test_every_trial_is_a_run_below_that_of_the_study(study: Study) -> None:
    assert sorted(study.trials) == sorted(f"trial {number}" for number in range(10))
    assert study.store.status(study.parent) == "FINISHED"
    assert set(states(study).values()) == {"finished", "pruned"}
    for name, state in states(study).items():
        assert study.store.status(study.trials[name]) == {"finished": "FINISHED", "pruned": "KILLED"}[state]
        assert study.store.tags(study.trials[name])["nfa.entrypoint"] == "train"
        assert study.store.tags(study.trials[name])["nfa.study"] == NAME


def test_the_database_says_the_same_of_every_trial(study: Study) -> None:
    said = {"COMPLETE": "finished", "PRUNED": "pruned"}
    assert {f"trial {slot}": said[state] for _, state, slot, _ in study.rows()} == states(study)
    assert {slot: run_id for _, _, slot, run_id in study.rows()} == {
        int(name.split()[1]): run_id for name, run_id in study.trials.items()
    }


def test_the_first_trial_is_that_of_the_defaults(study: Study) -> None:
    params = study.store.params(study.trials["trial 0"])
    assert (params["lr"], params["optimizer"]) == ("0.1", "sgd")


def test_a_trial_is_a_plain_run_with_its_objective_beside_it(study: Study, tmp_path: Path, empty_store: Store) -> None:
    run_id = study.trials["trial 0"]
    plain = empty_store.copy(tmp_path / "plain")
    ended = run(plain, words(**assignments("fixed", FIXED)))
    assert ended.code == 0, ended.output
    (alone,) = plain.runs()
    assert [row for row in study.store.metrics(run_id) if row[0] != "objective"] == plain.metrics(alone)
    params = {name: value for name, value in plain.params(alone).items() if name != "run_name"}
    assert {name: value for name, value in study.store.params(run_id).items() if name != "run_name"} == params
    kept = {name: plain.checkpoints(alone)[name] for name in ("epoch_0000.safetensors", "epoch_0004.safetensors")}
    assert same_weights(study.store.checkpoints(run_id), kept)
    assert study.store.tags(run_id)["nfa.best_epoch"] in ("0", "4")
    assert not study.store.artifact(run_id, "state/latest.pt").exists()


def test_the_objective_is_the_metric_so_far_and_at_last_the_value_of_the_trial(study: Study) -> None:
    values = study.values()
    for number, run_id in finished(study).items():
        assert study.series(run_id, "objective") == study.series(run_id, "val/loss")
        assert study.series(run_id, "objective")[4] == values[number]
    assert study.series(study.parent, "objective") == {number: values[number] for number in finished(study)}


def test_a_pruned_trial_was_behind_the_median_of_those_that_had_finished(study: Study) -> None:
    pruned = {int(name.split()[1]): study.trials[name] for name, state in states(study).items() if state == "pruned"}
    assert pruned
    for number, run_id in pruned.items():
        own = study.series(run_id, "val/loss")
        last = max(own)
        assert 0 < last < 4
        best = min(value for step, value in own.items() if step)
        others = [study.series(other, "val/loss")[last] for place, other in finished(study).items() if place < number]
        assert best > torch.tensor(others, dtype=torch.float64).quantile(0.5)
        assert "behind the other trials" in study.store.tags(run_id)["nfa.error"]


def test_the_best_trial_is_tagged_and_its_last_checkpoint_is_the_champion(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = {number: study.values()[number] for number in finished(study)}
    best = min(values, key=lambda number: values[number])
    tags = study.store.tags(study.parent)
    assert (tags["nfa.best_trial"], tags["nfa.best_run_id"]) == (str(best), finished(study)[best])
    tagged = {number for number, run_id in finished(study).items() if study.store.tags(run_id)["nfa.best"] == "true"}
    assert tagged == {best}
    with used(study.store, monkeypatch):
        champion = stored_runs.load_checkpoint(f"models:/{NAME}@champion")
        version = stored_runs.load_checkpoint(f"models:/{NAME}/1")
        stored = stored_runs.load_checkpoint(finished(study)[best], epoch=4)
        with pytest.raises(Refusal, match=rf"do: load_checkpoint\('{finished(study)[best][:12]}', epoch='best'\)"):
            stored_runs.load_checkpoint(study.parent, epoch="best")
    for model in (champion.model, version.model):
        assert all(
            torch.equal(one, other) for one, other in zip(model.parameters(), stored.model.parameters(), strict=True)
        )


@pytest.mark.parametrize(
    ("address", "epoch", "message"),
    [
        ("models:/nothing@champion", None, "a registered model"),
        (f"models:/{NAME}@second", None, "a registered model"),
        (f"models:/{NAME}/7", None, "a registered model"),
        (f"models:/{NAME}", None, "models:/NAME@ALIAS"),
        (f"models:/{NAME}@champion", 2, "leave epoch out"),
    ],
)
def test_a_model_that_is_not_registered_is_refused(
    study: Study, monkeypatch: pytest.MonkeyPatch, address: str, epoch: int | None, message: str
) -> None:
    with used(study.store, monkeypatch), pytest.raises(Refusal, match=message):
        stored_runs.load_checkpoint(address, epoch)


def test_the_best_was_trained_again_beside_the_defaults_with_seeds_of_their_own(study: Study) -> None:
    (confirmation,) = (run_id for name, run_id in study.below(study.parent).items() if "confirmation" in name)
    trained = study.below(confirmation)
    assert sorted(trained) == sorted(f"{arm}, seed {seed}" for arm in ("defaults", "best") for seed in (1718, 1719))
    for name, run_id in trained.items():
        assert study.store.params(run_id)["seed"] == name.split()[-1]
        assert max(study.series(run_id, "val/loss")) == 4, "none is pruned"
    point = study.store.params(study.store.tags(study.parent)["nfa.best_run_id"])
    again = study.store.params(trained["best, seed 1718"])
    assert {name for name in point if again[name] != point[name]} <= {"seed", "run_name"}


def test_dashboards_know_what_each_study_is_and_what_its_objective_is_called(study: Study) -> None:
    storage = f"sqlite:///{study.store.folder}/optuna.db"
    best = study.store.tags(study.parent)["nfa.best_trial"]
    names = optuna.get_all_study_names(storage)
    assert sorted(names) == [NAME, f"{NAME} confirmation of trial {best}"]
    for name in names:
        assert optuna.load_study(study_name=name, storage=storage).metric_names == ["val/loss"]


def test_the_study_says_in_its_run_what_it_searched(study: Study) -> None:
    content = study.store.json(study.parent, "config.json")
    assert content["entrypoint"] == "tune"
    assert content["search"]["space"] == ["lr=log:0.0001:1.0", "optimizer=sgd|adam"]
    assert content["defaults"] == {"lr": 0.1, "optimizer": "sgd"}
    assert study.store.params(study.parent)["study_name"] == NAME
    assert study.store.tags(study.parent)["nfa.trained"] == "true"


def test_latest_is_the_study_never_one_of_its_trials(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    with used(study.store, monkeypatch):
        assert tracking.find_run("latest").info.run_id == study.parent


def test_a_study_goes_on_under_its_name_in_its_run_up_to_the_new_total(study: Study, tmp_path: Path) -> None:
    store = study.store.copy(tmp_path / "on")
    before = {run_id: store.metrics(run_id) for run_id in store.runs()}
    ended = tuned(store, {**PRUNED, "n_trials": 12})
    assert ended.code == 0, ended.output
    longer = Study(store)
    assert len(longer.trials) == 12
    assert len(longer.rows()) == 12
    old = set(before) - {longer.parent}
    assert all(store.metrics(run_id) == before[run_id] for run_id in old)
    again = tuned(store, {**PRUNED, "n_trials": 12})
    assert again.code == 0, again.output
    assert len(longer.rows()) == 12
    assert len(store.rows("SELECT version FROM model_versions")) <= 2, "the same champion has one version"


def test_all_checkpoints_are_kept_where_that_is_asked_for(empty_store: Store, tmp_path: Path) -> None:
    store = empty_store.copy(tmp_path / "all")
    ended = tuned(store, {"n_trials": 1, "keep_checkpoints": "all"})
    assert ended.code == 0, ended.output
    run_id = Study(store).trials["trial 0"]
    assert [int(name[6:10]) for name in store.checkpoints(run_id)] == [0, 1, 2, 4]
    assert store.artifact(run_id, "state/latest.pt").exists()


def test_several_seeds_are_runs_below_the_trial_whose_series_are_their_means(
    empty_store: Store, tmp_path: Path
) -> None:
    store = empty_store.copy(tmp_path / "seeds")
    ended = tuned(store, {"n_trials": 2, "trial_seeds": 2, "reduction": "best"})
    assert ended.code == 0, ended.output
    study = Study(store)
    for name, run_id in study.trials.items():
        parts = study.below(run_id)
        assert [name.rpartition(", ")[2] for name in sorted(parts)] == ["seed 1717", "seed 1718"]
        times = [store.json(part, "timing.json")["total"] for part in parts.values()]
        assert store.json(run_id, "timing.json")["children"] == pytest.approx(sum(times), abs=1e-6)
        assert store.seconds(run_id) == {0: store.json(run_id, "timing.json")["total"]}
        losses = [study.series(part, "val/loss") for part in parts.values()]
        means = study.series(run_id, "val/loss")
        assert means == {step: pytest.approx((losses[0][step] + losses[1][step]) / 2) for step in losses[0]}
        errors = study.series(run_id, "val/loss_se")
        assert errors == {step: pytest.approx(abs(losses[0][step] - losses[1][step]) / 2) for step in losses[0]}
        value = study.values()[int(name.split()[1])]
        assert value == pytest.approx((min(losses[0].values()) + min(losses[1].values())) / 2)
        assert study.series(run_id, "objective")[4] == pytest.approx(value)


def test_several_objectives_have_a_front_and_no_pruner(empty_store: Store, tmp_path: Path) -> None:
    store = empty_store.copy(tmp_path / "several")
    ended = tuned(store, {"n_trials": 6, "pruner": "auto", "objective": "layer_*/agop_nfm,val/loss"})
    assert ended.code == 0, ended.output
    study = Study(store)
    assert set(states(study).values()) == {"finished"}
    found: dict[str, Any] = {}
    for name, run_id in study.trials.items():
        layers = [study.series(run_id, f"layer_{index}/agop_nfm") for index in range(2)]
        similarity = (layers[0][4] + layers[1][4]) / 2
        assert study.series(run_id, "objective/layer_mean/agop_nfm")[4] == pytest.approx(similarity)
        found[name] = (-similarity, study.series(run_id, "objective/val/loss")[4])
    front = {
        name
        for name, own in found.items()
        if not any(other[0] <= own[0] and other[1] <= own[1] and other != own for other in found.values())
    }
    tagged = {name for name, run_id in study.trials.items() if store.tags(run_id)["nfa.best"] == "true"}
    assert tagged == front
