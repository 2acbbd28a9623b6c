"""The configuration: what it allows, and how `auto` is resolved."""

import dataclasses

import pytest

from nfa.errors import Refusal
from nfa.registry.entry_points import entry_points
from nfa.registry.families.mlp.config import TrainConfig

CONFIGS = {name: point.parameters for name, point in entry_points().items()}


@pytest.mark.parametrize(
    ("optimizer", "lr", "momentum"), [("sgd", 0.1, 0.0), ("adam", 0.001, 0.0), ("muon", 0.01, 0.95)]
)
def test_auto_becomes_the_value_of_the_optimizer(optimizer: str, lr: float, momentum: float) -> None:
    resolved = TrainConfig(optimizer=optimizer).resolved()
    assert (resolved.lr, resolved.momentum) == (lr, momentum)


def test_typed_values_survive_resolving() -> None:
    resolved = TrainConfig(lr=0.5, momentum=0.9).resolved()
    assert (resolved.lr, resolved.momentum) == (0.5, 0.9)
    assert resolved.resolved() == resolved


def test_all_leaves_auto_to_its_children() -> None:
    assert TrainConfig(optimizer="all").resolved() == TrainConfig(optimizer="all")


def test_defaults_are_those_of_the_reference_experiment() -> None:
    config = TrainConfig()
    assert (config.width, config.depth, config.activation, config.loss) == (1024, 5, "relu", "mse")
    assert (config.batch_size, config.seed, config.epochs) == (128, 1717, 100)
    assert (config.schedule, config.weight_decay, config.companion_lr) == ("0-20,40,60,80,100", 0.0, 0.001)
    assert (config.optimizer, config.dataset, config.max_samples) == ("sgd", "digits", 0)


def test_config_made_in_python_is_checked_like_typed_words() -> None:
    with pytest.raises(Refusal, match=r"cannot use width=0\n  allowed: a whole number ≥ 1"):
        TrainConfig(width=0)
    with pytest.raises(Refusal, match=r"momentum=0.9 with optimizer=adam"):
        TrainConfig(optimizer="adam", momentum=0.9)


def test_config_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        TrainConfig().lr = 1.0  # type: ignore[misc]


@pytest.mark.parametrize("name", ["loss", "init", "activation", "precision", "dataset"])
def test_unknown_choice_names_all_choices_and_the_nearest(name: str) -> None:
    choices = TrainConfig.__dataclass_fields__[name].metadata["choices"]
    wrong = choices[-1] + "x"
    with pytest.raises(Refusal) as refused:
        TrainConfig(**{name: wrong})
    assert ", ".join(choices) in str(refused.value)
    assert f"do: {name}={choices[-1]}" in str(refused.value)


@pytest.mark.parametrize(("wrong", "nearest"), [("adamx", "adam"), ("Muons", "muon"), ("RMSPro", "RMSprop")])
def test_an_unknown_optimizer_names_ours_a_class_of_pytorch_and_the_nearest(wrong: str, nearest: str) -> None:
    with pytest.raises(Refusal) as refused:
        TrainConfig(optimizer=wrong)
    assert "all, sgd, adam, adamw, muon, or the name of another class of torch.optim" in str(refused.value)
    assert str(refused.value).endswith(f"do: optimizer={nearest}")


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_every_parameter_has_a_type_a_default_and_a_help_text(config: type) -> None:
    assert config.__doc__
    for item in dataclasses.fields(config):
        assert item.default is not dataclasses.MISSING
        assert item.metadata["help"]
        assert item.type
