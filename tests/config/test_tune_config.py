"""What a study searches, what it fixes, and what is refused before anything starts."""

from typing import Any

import pytest

from nfa.errors import Refusal
from nfa.registry.families.mlp.config import TrainConfig
from nfa.registry.families.registry import FAMILIES, family, family_of
from nfa.registry.sweeps.config import TuneConfig
from nfa.registry.sweeps.space import Range

WORKLOADS = [*(name for name in FAMILIES if name != "custom"), "cnn"]  # one for all that have names of their own


@pytest.mark.parametrize("workload", WORKLOADS)
def test_every_workload_has_an_objective_and_a_space_that_holds_its_defaults(workload: str) -> None:
    config = TuneConfig(workload=workload)
    assert config.keys == [family(workload).objective]
    assert list(config.axes) == [part.split("=")[0] for part in family(workload).space.split(",")]
    assert config.points == [config.defaults]
    assert all(axis.holds(config.defaults[name]) for name, axis in config.axes.items())


@pytest.mark.parametrize("workload", WORKLOADS)
def test_the_defaults_are_a_training_without_a_study(workload: str) -> None:
    config = TuneConfig(workload=workload)
    plain = family(workload).config().resolved()
    trained = config.training(config.defaults, seed=plain.seed)
    same = {"preset", "use_llrd", "llrd_front", "llrd_back", "llrd_output"}  # said otherwise; the factors are 1
    for name in set(vars(plain)) - same - {"workload"}:
        assert getattr(trained, name) == getattr(plain, name), name


def test_llrd_factors_and_a_gradient_scale_are_switched_on_where_they_are_searched() -> None:
    config = TuneConfig(workload="eeg")
    training: Any = config.training({"gradient_scale": 3.0, "llrd_front": 2.0}, seed=1)
    assert training.use_llrd
    assert training.gradient_scale == 3.0
    assert training.use_gated_residual
    assert not TuneConfig(workload="eeg", space="lr=log:1e-4:1e-2").settings


def test_what_is_fixed_is_not_searched() -> None:
    config = TuneConfig(fixed="epochs=2,width=32,schedule=0-5,10")
    assert config.settings == {"epochs": 2, "width": 32, "schedule": "0-5,10"}
    assert "width" not in config.axes
    assert (
        config.training({"lr": 0.5}, seed=3)
        == TrainConfig(lr=0.5, epochs=2, width=32, schedule="0-5,10", seed=3).resolved()
    )


def test_a_space_that_is_typed_is_the_whole_space() -> None:
    assert TuneConfig(space="lr=log:1e-3:1").axes == {"lr": Range("lr", 1e-3, 1.0, log=True)}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"objective": "val/los"}, "no run logs it"),
        ({"objective": "layer_9/agop_nfm"}, "did you mean layer_4/agop_nfm"),
        ({"objective": "layer_3/agop_nfm", "space": "depth=2:5"}, "no run logs it"),
        ({"objective": "ghm/loss"}, "no run logs it"),
        ({"constraint": "flow/gradnorm<10"}, "did you mean flow/grad_norm"),
        ({"objective": "val/loss,val/accuracy", "pruner": "median"}, "several objectives do not rank the trials"),
        ({"sampler": "grid"}, "list the values, lr=A|B|C"),
        ({"space": "width=0:100"}, "a whole number ≥ 1"),
        ({"space": "momentum=0:0.9,optimizer=sgd|adam"}, "momentum for sgd and muon"),
        ({"space": "seed=1|2"}, "the study's own parameter: seed=N"),
        ({"fixed": "resume=abc"}, "leave resume out"),
        ({"space": "optimizer=sgd|all"}, "one optimizer per trial"),
        ({"space": "lr=log:1e-3:1", "fixed": "lr=0.1"}, "in space and in fixed"),
        ({"fixed": "lr=1,optimizer=sgd,width=8,weight_decay=0"}, "at least one"),
        ({"space": "gradient_scale=1:4"}, "'gradient_scale'"),
        ({"fixed": "epoch=2"}, "did you mean epochs"),
        ({"storage": "foo.db"}, "sqlite:////FOLDER/FILE.db"),
        ({"workload": "eeg", "space": "gradient_scale=1:4", "fixed": "preset=full"}, "preset=custom"),
        ({"n_trials": 0}, "n_trials=0"),
    ],
)
def test_what_cannot_be_searched_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(Refusal) as refused:
        TuneConfig(**options)
    assert message in str(refused.value)


def test_ghm_is_logged_where_it_is_the_weighting() -> None:
    assert TuneConfig(objective="ghm/loss", fixed="weighting=ghm").keys == ["ghm/loss"]
    assert "ghm/loss" not in family_of(TrainConfig()).metric_keys(TrainConfig())


def test_the_median_prunes_one_objective_and_nothing_prunes_several() -> None:
    assert TuneConfig().pruning == "median"
    assert TuneConfig(objective="val/loss,val/accuracy").pruning == "none"
    assert TuneConfig(pruner="none").pruning == "none"


def test_two_searches_are_the_same_whatever_does_not_decide_a_trial() -> None:
    one = TuneConfig(n_trials=5, n_workers=2, confirm=0, run_name="a", timeout=3)
    assert one.identity == TuneConfig().identity
    for options in ({"trial_seeds": 2}, {"space": "lr=0.1:1"}, {"fixed": "depth=3"}, {"objective": "val/accuracy"}):
        assert TuneConfig(**options).identity != one.identity  # type: ignore[arg-type]
