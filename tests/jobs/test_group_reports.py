"""Runs that differ only in their seed are put together; what one of them lacks is not."""

import pytest

from nfa.registry.analyses.seed_groups import groups, together


def stored(configs):
    """The config.json of runs with such parameters."""
    return {name: {"workload": "mlp", "train": train} for name, train in configs.items()}


def test_a_group_is_named_by_what_tells_it_from_the_others():
    configs = {
        "a": {"optimizer": "sgd", "seed": 1, "width": 8, "run_name": "a"},
        "b": {"optimizer": "sgd", "seed": 2, "width": 8, "run_name": "b"},
        "c": {"optimizer": "adam", "seed": 1, "width": 8, "run_name": "c"},
    }
    assert groups(stored(configs)) == {"optimizer=sgd": ["a", "b"], "optimizer=adam": ["c"]}


def test_runs_that_differ_in_nothing_but_their_seed_are_one_group():
    assert groups(stored({"a": {"lr": 0.1, "seed": 1}, "b": {"lr": 0.1, "seed": 2}})) == {"all": ["a", "b"]}


def test_a_run_again_is_no_second_seed():
    trained = {name: {"lr": 0.1, "seed": seed} for name, seed in {"a": 1, "b": 2, "c": 1}.items()}
    assert groups(stored(trained)) == {"all": ["a", "b"], "all, run=c": ["c"]}


@pytest.mark.parametrize("entrypoint", ["track", "watch"])
def test_runs_of_own_loops_are_apart_though_their_seeds_differ(entrypoint):
    """Only the program knows whether its learning rate did not."""
    configs = stored({"a": {"seed": 1}, "b": {"seed": 2}})
    configs = {name: {**config, "entrypoint": entrypoint} for name, config in configs.items()}
    assert groups(configs) == {"run=a": ["a"], "run=b": ["b"]}


def test_what_only_some_runs_have_sets_them_apart():
    """An imported run knows no optimizer."""
    assert groups(stored({"a": {"lr": 0.1}, "b": {}})) == {"lr=0.1": ["a"], "all": ["b"]}


def test_intervals_are_over_all_runs_or_none():
    """A noise scale that is beyond measure in one run has no mean over the others."""
    runs = [{"x": {0: 1.0, 1: 5.0}, "y": {0: 2.0}}, {"x": {0: 3.0, 1: 6.0}, "y": {0: 4.0}}, {"x": {0: 5.0}}]
    runs = [{**run, "x_se": {0: 0.1}, "analysis/seconds": {0: 9.0, 1: 9.0}} for run in runs]
    found = together(runs)
    assert {key: set(of_key) for key, of_key in found.items()} == {"x": {0}}
    assert found["x"][0][::3] == (pytest.approx(3.0), 3)
    assert {key: set(of_key) for key, of_key in together(runs[:2]).items()} == {"x": {0, 1}, "y": {0}}
