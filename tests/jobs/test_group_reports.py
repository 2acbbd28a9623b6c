"""Runs that differ only in their seed are put together; what one of them lacks is not."""

import pytest

from nfa.registry.analyses.seed_groups import _bands, _say_verdicts, groups, table_of_groups, together


def stored(configs):
    """The config.json of runs with such parameters."""
    return {name: {"workload": "mlp", "train": train} for name, train in configs.items()}


def test_a_group_is_named_by_what_tells_it_from_the_others():
    configs = {
        "a": {"optimizer": "sgd", "seed": 1, "width": 8, "run_name": "a"},
        "b": {"optimizer": "sgd", "seed": 2, "width": 8, "run_name": "b"},
        "c": {"optimizer": "adam", "seed": 1, "width": 8, "run_name": "c"},
    }
    assert groups(stored(configs)) == {"sgd": ["a", "b"], "adam": ["c"]}


def test_runs_that_differ_in_nothing_but_their_seed_are_one_group():
    assert groups(stored({"a": {"lr": 0.1, "seed": 1}, "b": {"lr": 0.1, "seed": 2}})) == {"all": ["a", "b"]}


def test_a_run_again_is_no_second_seed():
    trained = {name: {"lr": 0.1, "seed": seed} for name, seed in {"a": 1, "b": 2, "c": 1}.items()}
    assert groups(stored(trained)) == {"all": ["a", "b"], "all, run c": ["c"]}


@pytest.mark.parametrize("entrypoint", ["track", "watch"])
def test_runs_of_own_loops_are_apart_though_their_seeds_differ(entrypoint):
    """Only the program knows whether its learning rate did not."""
    configs = stored({"a": {"seed": 1}, "b": {"seed": 2}})
    configs = {name: {**config, "entrypoint": entrypoint} for name, config in configs.items()}
    assert groups(configs) == {"run a": ["a"], "run b": ["b"]}


def test_numbers_are_rounded_unless_that_would_make_different_groups_equal():
    assert list(groups(stored({"a": {"lr": 0.00087326}, "b": {"lr": 0.01}}))) == ["lr 0.000873", "lr 0.01"]
    near = {"a": {"lr": 0.10001}, "b": {"lr": 0.10002}}
    assert groups(stored(near)) == {"lr=0.10001": ["a"], "lr=0.10002": ["b"]}


def test_what_only_some_runs_have_sets_them_apart():
    """An imported run knows no optimizer."""
    assert groups(stored({"a": {"lr": 0.1}, "b": {}})) == {"lr 0.1": ["a"], "all": ["b"]}


def test_intervals_are_over_all_runs_or_none():
    """A noise scale that is beyond measure in one run has no mean over the others."""
    runs = [{"x": {0: 1.0, 1: 5.0}, "y": {0: 2.0}}, {"x": {0: 3.0, 1: 6.0}, "y": {0: 4.0}}, {"x": {0: 5.0}}]
    runs = [{**run, "x_se": {0: 0.1}, "nfa/seconds": {0: 9.0, 1: 9.0}} for run in runs]
    found = together(runs)
    assert {key: set(of_key) for key, of_key in found.items()} == {"x": {0}}
    assert found["x"][0][::3] == (pytest.approx(3.0), 3)
    assert {key: set(of_key) for key, of_key in together(runs[:2]).items()} == {"x": {0, 1}, "y": {0}}


def of_seed(value):
    """A relation of such a value, with all that may stand beside it."""
    beside = {"_se": 0.1, "_unbiased": value, "_chance": value / 4, "_chance_sd": 0.05, "_shared": value / 2}
    return {f"0/agop_nfm{end}": {0: of} for end, of in {"": value, **beside}.items()}


def test_levels_of_a_group_are_means_in_columns_of_their_own():
    table = table_of_groups({"all": together([of_seed(0.4), of_seed(0.8)])}, "epoch")
    header, row = (line.split(",") for line in table.splitlines())
    assert header[5:] == ["mean", "low", "high", "chance", "shared"]
    assert row[:5] == ["all", "2", "0", "0", "agop_nfm"]
    assert [float(row[place]) for place in (5, 8, 9)] == pytest.approx([0.6, 0.15, 0.3])


def test_a_level_that_a_run_lacks_leaves_its_cell_empty():
    without = {key: of for key, of in of_seed(0.8).items() if "shared" not in key}
    table = table_of_groups({"all": together([of_seed(0.4), without])}, "epoch")
    assert table.splitlines()[1].endswith(",")


def test_a_group_is_drawn_by_means_their_interval_over_seeds_and_mean_levels():
    """The interval takes the place of the lowest and the highest block, which means over blocks bring along."""
    blocks = {"0/agop_nfm_lo": {0: 0.0}, "0/agop_nfm_hi": {0: 1.0}}
    found = _bands([of_seed(0.5) | blocks, of_seed(0.75) | blocks])
    drawn = {key: of[0] for key, of in found.items()}
    assert drawn["0/agop_nfm_lo"] < 0 < 1 < drawn["0/agop_nfm_hi"]
    assert [drawn[f"0/agop_nfm{end}"] for end in ("", "_chance", "_chance_sd", "_shared")] == pytest.approx(
        [0.625, 0.15625, 0.05, 0.3125]
    )
    assert found.keys().isdisjoint({"0/agop_nfm_se", "0/agop_nfm_unbiased"})


@pytest.mark.parametrize(("label", "told"), [("all", ""), ("adam", ", adam")])
def test_a_group_has_verdicts_on_the_relations_with_a_shared_weights_level_alone(label, told, capsys):
    runs = [{**of_seed(value), "nfa/seconds": {0: 1.0}, "0/h_vs_m_chance": {0: 0.1}} for value in (0.4, 0.8)]
    _say_verdicts(runs, ["0"], ["agop_nfm", "h_vs_m"], "epoch", label)
    said = "above chance in 1 of 1 sites, above the shared-weights level in 0"
    assert capsys.readouterr().out == f"   verdict  agop_nfm at epoch 0{told}, in each of 2 runs: {said}\n"
