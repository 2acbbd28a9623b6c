"""The search for the number of examples that an accuracy needs, on standard errors that are known."""

import math
from collections.abc import Mapping

import pytest

from nfa.analyses.accuracy import search, widest_of

KEY = "layer_0/agop_nfm"


class Errors:
    """Standard errors c/√n with a constant for each step; infinite ones are absent. It remembers what was measured."""

    def __init__(self, constants: Mapping[int, float], population: int = 10**9) -> None:
        self.constants, self.population = constants, population
        self.measured: list[tuple[int, int, int]] = []

    def values(self, step: int, n: int) -> dict[str, float]:
        error = self.constants[step] / math.sqrt(n)
        given = {f"{KEY}_se": error} if math.isfinite(error) and n < self.population else {}
        return {KEY: 0.5, "train/loss": 1.0, **given}

    def __call__(self, step: int, before: int, now: int) -> tuple[dict[str, float], dict[str, float]]:
        self.measured.append((step, before, now))
        return self.values(step, before), self.values(step, now)


def test_small_errors_need_the_first_two_numbers_alone() -> None:
    errors = Errors({0: 0.1, 1: 0.1})
    found = search(errors, [0, 1], target=0.01, most=8000, population=None)
    assert (found.examples, found.reached) == (512, True)
    assert errors.measured == [(0, 256, 512), (1, 256, 512)]
    assert found.values == {step: errors.values(step, 512) for step in (0, 1)}


def test_one_number_serves_all_checkpoints_and_is_small_enough_twice_in_a_row() -> None:
    errors = Errors({0: 0.1, 1: 0.32, 2: 0.1})  # 0.01 at 1,024 examples
    found = search(errors, [0, 1, 2], target=0.01, most=8000, population=None)
    assert (found.examples, found.reached) == (2048, True)
    assert errors.measured == [
        (0, 256, 512), (1, 256, 512), (1, 512, 1024), (1, 1024, 2048), (0, 1024, 2048), (2, 1024, 2048)
    ]  # fmt: skip
    assert list(found.values) == [0, 1, 2]
    assert found.widest.step == 1
    assert found.widest.se == pytest.approx(0.32 / math.sqrt(2048))


def test_at_the_largest_number_every_checkpoint_is_measured_and_the_reason_is_named() -> None:
    errors = Errors({0: 0.1, 1: 1.0, 2: math.inf})
    found = search(errors, [0, 1, 2], target=0.01, most=1000, population=48000)
    assert (found.examples, found.reached, found.widest.key, found.widest.step) == (1000, False, KEY, 2)
    assert set(found.values) == {0, 1, 2}


def test_the_whole_training_set_has_no_sampling_error() -> None:
    errors = Errors({0: 5.0}, population=1149)
    found = search(errors, [0], target=0.01, most=1149, population=1149)
    assert (found.examples, found.reached) == (1149, True)


@pytest.mark.parametrize("most", [1, 2, 100, 300, 512, 513])
def test_any_largest_number_ends_the_search(most: int) -> None:
    errors = Errors({0: 50.0, 3: 50.0})
    found = search(errors, [0, 3], target=0.01, most=most, population=None)
    assert (found.examples, found.reached) == (most, False)
    assert all(1 <= before <= now <= most for _, before, now in errors.measured)


def test_only_cosines_count_and_one_without_an_error_is_the_widest() -> None:
    values = {KEY: 0.5, f"{KEY}_se": 0.2, f"{KEY}_chance": 0.1, "layer_0/agop_nfm_overlap": 0.5, "val/loss": 1.0}
    assert (widest_of(values, 3).se, widest_of(values, 3).key) == (0.2, KEY)
    assert widest_of({**values, "layer_1/g_vs_h": 0.1}, 3).se == math.inf
    assert widest_of({"val/loss": 1.0}, 3).se == 0.0


def test_errors_of_random_directions_count_when_all_training_examples_are_measured() -> None:
    class Directions(Errors):
        def values(self, step: int, n: int) -> dict[str, float]:
            return {**super().values(step, n), f"{KEY}_se": 0.02}

    found = search(Directions({0: 1.0}, population=600), [0], target=0.01, most=600, population=600)
    assert (found.examples, found.reached, found.widest.se) == (600, False, 0.02)
