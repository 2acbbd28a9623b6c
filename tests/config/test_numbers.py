"""Numbers are plain digits, wherever they are typed: Python reads other alphabets' digits and underscores too."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nfa import checkpoint_schedule
from nfa.errors import Refusal
from nfa.registry import cli
from nfa.registry.analyses.config import AnalyzeConfig
from nfa.registry.entry_points import entry_points
from nfa.registry.families.eeg.config import AblateEEGConfig
from nfa.registry.families.language.experiment.config import LoraExperimentConfig
from nfa.registry.families.mlp import old_checkpoints
from nfa.registry.families.mlp.config import TrainConfig
from nfa.registry.sweeps.config import TuneConfig
from nfa.registry.sweeps.objectives import parse_constraints, parse_objectives
from nfa.registry.typed_values import number_in, read_number

CONFIGS = {name: point.parameters for name, point in entry_points().items()}

STRANGE = ["٣", "1_000", "１２", "𝟛", "1٣", "+", "", "0x10", "1e", "1 0", "Ⅷ", "½"]


@pytest.mark.parametrize("text", STRANGE)
def test_what_is_no_plain_number_is_none(text: str) -> None:
    for kind in (int, float):
        with pytest.raises(ValueError, match="not a number"):
            read_number(text, kind)


@given(st.integers(-(10**9), 10**9), st.floats(allow_nan=False))
def test_every_number_that_is_written_plainly_is_read(whole: int, real: float) -> None:
    assert read_number(f" {whole:+d} ", int) == whole
    assert read_number(repr(real), float) == real


@pytest.mark.parametrize("name", CONFIGS)
def test_no_parameter_of_any_entry_point_takes_other_digits(name: str) -> None:
    import typing

    config = CONFIGS[name]
    for parameter, hint in typing.get_type_hints(config).items():
        if number_in(hint) is not None:
            for text in ("٣", "1_0"):
                with pytest.raises(Refusal, match=f"{parameter}='{text}'"):
                    cli.parse(config, [f"--{parameter}", text])


CASES: dict[str, Any] = {
    "schedule": lambda text: checkpoint_schedule.parse(f"0-{text}", 10),
    "step": lambda text: checkpoint_schedule.parse(f"0-9/{text}", 10),
    "epochs": lambda text: TrainConfig(schedule=text),
    "eeg seeds": lambda text: AblateEEGConfig(seeds=f"1,{text}"),
    "lora seeds": lambda text: LoraExperimentConfig(seeds=f"{text},2"),
    "lora steps": lambda text: LoraExperimentConfig(steps=text),
    "directions": lambda text: AnalyzeConfig(directions=text),
    "range": lambda text: TuneConfig(space=f"width={text}:64"),
    "step of a range": lambda text: TuneConfig(space=f"width=8:64/{text}"),
    "choice": lambda text: TuneConfig(space=f"width=8|{text}"),
    "fixed": lambda text: TuneConfig(fixed=f"epochs={text}"),
    "known point": lambda text: TuneConfig(enqueue=f"width={text}"),
    "constraint": lambda text: parse_constraints(f"val/loss<{text}"),
    "reduction": lambda text: parse_objectives(["val/loss"], "auto", f"mean:{text}"),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("text", ["٣", "1_0"])
def test_nor_does_any_list_or_space_of_them(case: str, text: str) -> None:
    with pytest.raises(Refusal):
        CASES[case](text)


def test_nor_does_the_name_of_a_file() -> None:
    assert old_checkpoints.find(["model_epoch_٣.pth", "model_epoch_3.pth"]).keys() == {3}
