"""Names of runs say what ran, in one order, and stay short."""

import dataclasses
from typing import Any

import pytest

from nfa.plain_text import apart
from nfa.registry.families.custom.config import CustomConfig
from nfa.registry.families.eeg.config import TrainEEGConfig
from nfa.registry.families.language.config import TrainLoraConfig
from nfa.registry.families.mlp.config import TrainConfig
from nfa.registry.run_names import MORE, own_loop_name, training_name, trial_name

NAMES: dict[str, Any] = {
    "digits mlp 1024×5 sgd lr 0.1 seed 1717": TrainConfig(),
    "svhn mlp 64×2 adam lr 0.003 seed 3 label_noise 0.2": TrainConfig(
        dataset="svhn", width=64, depth=2, optimizer="adam", lr=0.003, seed=3, label_noise=0.2
    ),
    "digits mlp 8×2, 3 optimizers, epochs 4": TrainConfig(width=8, depth=2, optimizer="all", epochs=4),
    "simulated eeg full adam lr 0.003 seed 1717": TrainEEGConfig(),
    "simulated eeg v1 adam lr 0.0001 seed 2 size paper": TrainEEGConfig(preset="v1", size="paper", seed=2),
    "simulated eeg full adam lr 0.003 seed 1717 split subjects": TrainEEGConfig(split="subjects", unseen="population"),
    "stdlib tiny random rank 16 adamw lr 0.005 seed 1717": TrainLoraConfig(),
    "stdlib tiny full adamw lr 0.001 seed 1717 steps 9": TrainLoraConfig(init="full", steps=9),
    "digits cnn sgd lr 0.1 seed 1717 width 4": CustomConfig(workload="cnn", workload_args="width=4"),
}


@pytest.mark.parametrize(("name", "config"), NAMES.items())
def test_a_training_is_named_by_what_it_trains_on_what_and_how(name: str, config: Any) -> None:
    assert training_name(config) == name


def test_places_and_what_is_only_measured_are_not_told() -> None:
    quiet = {"data_dir": "/secret/place", "schedule": "all", "max_samples": 9, "chance": False, "device": "cpu"}
    assert training_name(TrainConfig(**quiet)) == training_name(TrainConfig())


def test_of_a_path_only_the_last_part_is_told() -> None:
    config = TrainLoraConfig(base_model="/models/of/mine/small.gguf", data="/home/me/questions.jsonl")
    assert training_name(config).startswith("questions.jsonl small.gguf random rank 16 ")


def test_parameters_that_do_not_fit_are_left_out() -> None:
    config = TrainConfig(
        epochs=4, batch_size=64, loss="cross-entropy", activation="leaky_relu", init="balanced", label_noise=0.25
    )
    name = training_name(config)
    assert name == "digits mlp 1024×5 sgd lr 0.1 seed 1717 cross-entropy epochs 4"
    assert len(name) <= len(training_name(TrainConfig())) + MORE


def test_the_loop_of_a_user_has_no_optimizer_in_its_name() -> None:
    assert own_loop_name(CustomConfig(workload="cnn", seed=5)) == "digits cnn seed 5"


def test_a_trial_with_many_parameters_has_a_short_name() -> None:
    name = trial_name(3, {f"parameter_{index}": 0.123456 for index in range(9)})
    assert name == "trial 3: parameter_0 0.123, parameter_1 0.123"


APART = {
    ("main", "fast"): ["main", "fast"],
    ("big sgd", "big adam"): ["sgd", "adam"],
    ("a sgd lr 0.1 seed 1", "a sgd lr 0.01 seed 1"): ["lr 0.1", "lr 0.01"],
    ("a sgd lr 0.1 seed 1", "a adam lr 0.001 seed 2"): ["sgd lr 0.1 seed 1", "adam lr 0.001 seed 2"],
    ("a 64×2 sgd seed 1", "a 32×2 sgd seed 1"): ["64×2", "32×2"],
    ("a seed 1", "a seed 1 epochs 4"): ["seed 1", "seed 1 epochs 4"],
    ("same", "same"): ["same", "same"],
    ("trial 1: lr 0.1, width 8", "trial 2: lr 0.2, width 8"): ["trial 1: lr 0.1", "trial 2: lr 0.2"],
}


@pytest.mark.parametrize(("names", "expected"), APART.items())
def test_legends_show_what_sets_names_apart(names: tuple[str, ...], expected: list[str]) -> None:
    assert apart(names) == expected


def test_a_run_that_is_continued_with_resolved_parameters_has_the_name_that_it_began_with() -> None:
    config = TrainConfig(epochs=25, seeds="1-3", width=8, depth=1)
    resolved = dataclasses.replace(config.resolved(), seeds="1-3")
    assert training_name(resolved) == training_name(config)
    assert "momentum" in training_name(TrainConfig(momentum=0.5))


def test_a_parent_and_its_children_tell_the_same_parameters() -> None:
    several = TrainConfig(loss="cross-entropy", epochs=1234, seeds="1-3")
    parent, child = training_name(several), training_name(dataclasses.replace(several, seeds="", seed=1))
    assert parent.endswith(", cross-entropy, epochs 1234")
    assert child.endswith(" cross-entropy epochs 1234")
