"""`tune` of EEG and language models: their objectives, what they log, and whether a scaled gradient is real."""

from typing import Any

import pytest

from nfa.registry.families.registry import family_of
from nfa.registry.sweeps.config import TuneConfig
from nfa.registry.sweeps.objectives import keys_of
from tests.support.gradient_flow_runs import RECORDINGS, SIZES
from tests.support.stores import Store
from tests.support.tuning_runs import Study, tuned

OWN = {"objective"}
EEG = ",".join(f"{name}={value}" for name, value in {**RECORDINGS, **SIZES}.items())
EEG += ",epochs=2,eval_every=1,histograms_every=0,schedule=0-2"
LORA = "max_items=24,eval_items=4,batch_size=2,accumulation=2"


@pytest.fixture(scope="module")
def decoders(empty_store: Store, tmp_path_factory: pytest.TempPathFactory) -> Study:
    folder = tmp_path_factory.mktemp("eeg")
    store = empty_store.copy(folder / "store")
    options = {"workload": "eeg", "fixed": EEG, "space": "lr=log:1e-3:1e-2,gradient_scale=1:4", "n_trials": 3}
    options |= {"enqueue": "lr=0.005,gradient_scale=3", "confirm": 1, "constraint": "flow/grad_norm<1000"}
    ended = tuned(store, options, NFA_CACHE=str(folder / "cache"))
    assert ended.code == 0, ended.output
    return Study(store)


@pytest.fixture(scope="module")
def language_models(empty_store: Store, tmp_path_factory: pytest.TempPathFactory) -> Study:
    store = empty_store.copy(tmp_path_factory.mktemp("lora") / "store")
    space = "rank=2|4,lr=log:1e-3:1e-2,init=random|pissa"
    ended = tuned(store, {"workload": "lora", "fixed": LORA, "space": space, "n_trials": 3})
    assert ended.code == 0, ended.output
    return Study(store)


def logged(study: Study, name: str) -> set[str]:
    return {key for key, _, _ in study.store.metrics(study.trials[name])} - OWN


def assert_foretold(study: Study, name: str, config: Any, absent: set[str]) -> None:
    """What a run has logged is exactly what is said of it before it starts, but what was undefined in it."""
    foretold, found = family_of(config).metric_keys(config), logged(study, name)
    assert {key for key in found if not any(keys_of(key, [one]) for one in foretold)} == set()
    assert {one for one in foretold if not keys_of(one, sorted(found))} == absent


def test_what_a_decoder_logs_is_foretold(decoders: Study) -> None:
    config = TuneConfig(workload="eeg", fixed=EEG, space="lr=log:1e-3:1e-2,gradient_scale=1:4")
    assert_foretold(decoders, "trial 0", config.training({"gradient_scale": 3.0}, seed=1), set())


def test_what_a_language_model_logs_is_foretold(language_models: Study) -> None:
    config = TuneConfig(workload="lora", fixed=LORA)
    assert_foretold(language_models, "trial 0", config.training({}, seed=1), set())


def test_trials_of_decoders_are_runs_of_train_eeg_with_their_point(decoders: Study) -> None:
    run_id = decoders.trials["trial 0"]
    params = decoders.store.params(run_id)
    assert (params["lr"], params["gradient_scale"], params["preset"]) == ("0.005", "3.0", "custom")
    assert decoders.store.tags(run_id)["nfa.entrypoint"] == "train_eeg"
    assert decoders.series(run_id, "objective") == decoders.series(run_id, "val/pearson")
    best = int(decoders.store.tags(run_id)["nfa.best_epoch"])
    kept = [int(name[6:10]) for name in decoders.store.checkpoints(run_id)]
    assert kept == sorted({0, best, 2}), "test/… is of the best epoch, so its weights stay too"


def test_a_scaled_gradient_is_compared_with_none_by_its_updates(decoders: Study) -> None:
    (confirmation,) = (run_id for name, run_id in decoders.below(decoders.parent).items() if "confirmation" in name)
    arms = {name.rpartition(", seed")[0] for name in decoders.below(confirmation) if "seed" in name}
    assert {"defaults", "best", "gradient_scale=1"} <= arms
    content = decoders.store.json(confirmation, "gradient_flow.json")
    assert content["compared_with"] == "gradient_scale=1"
    scaled = decoders.store.json(decoders.parent, "study.json")["remedies"]
    assert scaled
    assert all("gradient ratio ×" in line and "update ratio" in line for line in scaled)
    text = decoders.store.artifact(decoders.parent, "study.txt").read_text(encoding="utf-8")
    assert "scaled gradient:" in text


def test_trials_of_language_models_count_steps(language_models: Study) -> None:
    for run_id in language_models.trials.values():
        losses = language_models.series(run_id, "eval/loss")
        assert language_models.series(run_id, "objective") == losses
        steps = [int(name[5:11]) for name in language_models.store.checkpoints(run_id)]
        assert steps == [0, max(losses)]
    ranks = {language_models.store.params(run_id)["rank"] for run_id in language_models.trials.values()}
    assert ranks <= {"2", "4"}
