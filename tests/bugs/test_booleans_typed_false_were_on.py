"""EEG fault 1: every text but the empty one was true, so `--use_gated_residual False` ablated nothing."""

import pytest

from nfa.errors import Refusal
from nfa.registry.cli import parse
from nfa.registry.families.eeg.config import TrainEEGConfig
from tests.support.eeg_trainings import TINY, tiny_decoder

SWITCHES = ("use_residual", "use_gated_residual", "use_mlp_head", "use_se", "use_subjects", "use_positions", "use_llrd")


@pytest.mark.parametrize("text", ["false", "False", "FALSE"])
@pytest.mark.parametrize("name", SWITCHES)
def test_false_is_false_and_true_is_true(name, text):
    above = ["--use_residual", "true"] if name == "use_gated_residual" else []
    off, on = (parse(TrainEEGConfig, ["--preset", "custom", *above, f"--{name}", word]) for word in (text, "True"))
    assert getattr(off.resolved(), name) is False
    assert getattr(on.resolved(), name) is True


def test_the_network_has_no_gate_when_that_is_typed():
    typed = ["--preset", "custom", "--use_residual", "true", "--use_gated_residual", "False"]
    config = parse(TrainEEGConfig, typed)
    model = tiny_decoder(**{name: getattr(config, name) for name in ("preset", "use_residual", "use_gated_residual")})
    assert model.model().gate is None
    assert tiny_decoder(**{**TINY, "preset": "full"}).model().gate is not None


@pytest.mark.parametrize("text", ["yes", "no", "0", "1", "", "Flase"])
def test_no_other_word_is_taken_for_either(text):
    with pytest.raises(Refusal, match="allowed: true, false"):
        parse(TrainEEGConfig, ["--use_llrd", text])
