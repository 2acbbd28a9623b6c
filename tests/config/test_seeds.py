"""One grammar of lists of seeds, and what several seeds go with."""

import pytest

from nfa.errors import Refusal
from nfa.registry.families.eeg.config import AblateEEGConfig
from nfa.registry.families.language.experiment.config import LoraExperimentConfig
from nfa.registry.typed_values import SEED_LIMIT, seed_list


@pytest.mark.parametrize(
    ("text", "seeds"),
    [("7", [7]), ("1-5", [1, 2, 3, 4, 5]), ("1,2,7", [1, 2, 7]), ("1-3, 9", [1, 2, 3, 9]), ("9,0-1", [9, 0, 1])],
)
def test_numbers_and_ranges_are_seeds_in_their_order(text: str, seeds: list[int]) -> None:
    assert seed_list(text) == seeds


def test_the_largest_seed_is_that_of_a_training() -> None:
    assert seed_list(str(SEED_LIMIT - 1)) == [SEED_LIMIT - 1]
    for text in (str(SEED_LIMIT), f"{SEED_LIMIT - 1}-{SEED_LIMIT}"):
        with pytest.raises(Refusal, match="numbers from 0 to"):
            seed_list(text)


@pytest.mark.parametrize("text", ["", ",", "1,", "-1", "1-", "3-1", "1.5", "1-3/2", "all", "1_0", "٣", "1–3"])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(Refusal, match="seeds=1-3"):
        seed_list(text)


@pytest.mark.parametrize(("text", "at"), [("1,1", "'1'"), ("1-3,2", "'2'"), ("2,1-3", "'1-3'")])
def test_no_seed_is_named_twice(text: str, at: str) -> None:
    with pytest.raises(Refusal, match=f"at {at}"):
        seed_list(text)


def test_a_range_that_no_machine_trains_is_refused_before_it_is_written_out() -> None:
    assert len(seed_list("1-1000")) == 1000
    for text in ("0-1000", "1-1000,1001", f"0-{SEED_LIMIT - 1}"):
        with pytest.raises(Refusal, match="at most 1000"):
            seed_list(text)


def test_every_list_of_seeds_takes_ranges() -> None:
    assert AblateEEGConfig(seeds="1-2,9").seed_list() == [1, 2, 9]
    assert LoraExperimentConfig(seeds="1-2,9").seed_list() == [1, 2, 9]
