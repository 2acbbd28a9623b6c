"""`nfa.results`: which values a text means, and what their table says."""

import math
from collections.abc import Mapping
from typing import Any

import pytest

import nfa
from nfa.errors import Refusal
from nfa.registry import tracking
from nfa.registry.results.run_series import RunRow
from nfa.registry.tracking.store import client
from tests.support.logged_runs import analysis, logged, tagged

pytestmark = pytest.mark.usefixtures("store")
LOSS = {"val/loss": {0: 2.0, 1: 1.0, 2: 1.5}}


def values(run_ids: Any, **options: Any) -> dict[tuple[str, str, int], float]:
    return {(row.run, row.key, row.step): row.value for row in nfa.results(run_ids, **options)}


def runs_of(run_ids: Any) -> list[str]:
    return list(dict.fromkeys(row.run for row in nfa.results(run_ids)))


# ---- rows


def test_errors_and_levels_are_columns_of_the_value_s_row() -> None:
    levels = {"_chance": 0.2, "_chance_sd": 0.02, "_shared": 0.3, "_shared_sd": 0.03}
    ends = {"": 0.5, "_se": 0.1, "_unbiased": 0.6, **levels}
    similarity = {f"blocks.0.attn/agop_nfm{end}": {4: value} for end, value in ends.items()}
    run_id = logged({**similarity, "val/loss": {4: 1.0}}, "a name", seed=7)
    assert list(nfa.results(run_id)) == [
        RunRow(run_id, "a name", "", 7, "blocks.0.attn/agop_nfm", "blocks.0.attn", "agop_nfm", 4, 0.5, 0.1, 0.2, 0.3),
        RunRow(run_id, "a name", "", 7, "val/loss", "", "val/loss", 4, 1.0),
    ]


def test_rows_are_in_natural_order_of_keys_and_steps() -> None:
    series = {f"layer_{layer}/agop_nfm": {10: 0.5, 2: 0.4} for layer in (10, 2)}
    table = nfa.results(logged(series))
    assert [(row.site, row.step) for row in table] == [(f"layer_{n}", step) for n in (2, 10) for step in (2, 10)]
    assert len(table) == 4
    assert table.keys == ["layer_2/agop_nfm", "layer_10/agop_nfm"]


def test_a_frame_has_a_row_for_each_value_and_numbers_in_its_columns() -> None:
    frame = nfa.results([logged(LOSS, seed=3), logged(LOSS, tags={})]).frame()
    assert list(frame.columns) == list(RunRow._fields)
    assert list(frame["seed"].isna()) == [False] * 3 + [True] * 3
    assert {str(frame[name].dtype) for name in ("value", "se", "chance", "shared")} == {"float64"}


def test_bookkeeping_is_read_only_where_it_is_asked_for() -> None:
    run_id = logged({**LOSS, "nfa/seconds": {0: 1.0}, "system/cpu": {0: 9.0}})
    assert nfa.results(run_id).keys == ["val/loss"]
    assert nfa.results(run_id, keys="nfa/*").keys == ["nfa/seconds"]


def test_metrics_of_a_user_with_the_endings_of_means_over_seeds_have_rows() -> None:
    ends = {f"val/loss{end}": {0: 1.0} for end in ("_lo", "_hi", "_n")}
    assert nfa.results(logged({**LOSS, **ends})).keys == sorted({*LOSS, *ends})


def test_values_that_another_program_logged_as_undefined_have_no_row_and_are_never_the_best() -> None:
    run_id = logged({"val/loss": {1: 0.5, 2: 0.2, 3: 0.9}})
    client().log_metric(run_id, "val/loss", math.nan, step=0)
    table = nfa.results(run_id)
    assert [row.step for row in table] == [1, 2, 3]
    assert [row.step for row in table.at(best="val/loss")] == [2]


def test_only_the_keys_that_are_asked_for_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[set[str]] = []
    whole = tracking.histories

    def histories(run_ids: Any, among: Any = ()) -> Any:
        read.append(set(among))
        return whole(run_ids, among)

    monkeypatch.setattr(tracking, "histories", histories)
    series = {f"{site}/{name}": {0: 0.5} for site in ("a", "b") for name in ("agop_nfm", "agop_nfm_se", "g_vs_h")}
    run_id = logged({**series, **LOSS})
    assert nfa.results(run_id, keys="agop_nfm").keys == ["a/agop_nfm", "b/agop_nfm"]
    assert nfa.results(run_id, keys=["a/*", "val/loss"]).keys == ["a/agop_nfm", "a/g_vs_h", "val/loss"]
    a, b = {"a/agop_nfm", "a/agop_nfm_se"}, {"b/agop_nfm", "b/agop_nfm_se"}
    assert read == [a | b, a | {"a/g_vs_h", "val/loss"}]
    with pytest.raises(Refusal, match=r"keys=val/los \(no run logs it\)(.|\n)*did you mean val/loss"):
        nfa.results(run_id, keys="val/los")


# ---- which runs


def test_runs_are_named_by_ids_beginnings_lists_commas_and_latest() -> None:
    first, second = logged(LOSS), logged(LOSS)
    assert runs_of(second) == [second]
    assert runs_of(f"{second[:20]}, {first}") == runs_of([second, first, second]) == [second, first]
    assert runs_of("latest") == [second]
    third = logged(LOSS, depth=3)
    assert runs_of(["params.depth = '3'", first]) == [third, first]


def test_a_parent_stands_for_the_trainings_below_it_with_the_variant_of_their_group() -> None:
    parent = logged(LOSS, "parent")
    for optimizer in ("sgd", "adam"):
        group = tagged(logged(LOSS, parent=parent), variant=optimizer, seeds="1,2")
        for seed in (1, 2):
            tagged(logged(LOSS, parent=group, seed=seed, optimizer=optimizer), variant=f"seed {seed}")
    found = [(run.variant, run.seed) for run in nfa.results(parent).runs]
    assert found == [("sgd", 1), ("sgd", 2), ("adam", 1), ("adam", 2)]
    alone = nfa.results("params.optimizer LIKE '%'").runs
    assert [(run.variant, run.seed) for run in alone] == found


def test_without_a_parent_s_variant_it_is_what_sets_the_runs_apart_but_not_the_seed() -> None:
    ids = [logged(LOSS, seed=seed, lr=lr, depth=2) for lr in (0.1, 0.2) for seed in (1, 2)]
    assert [run.variant for run in nfa.results(ids).runs] == ["lr 0.1", "lr 0.1", "lr 0.2", "lr 0.2"]
    assert [run.variant for run in nfa.results(ids[:2]).runs] == ["", ""]


def test_a_resolved_parameter_counts_and_not_what_was_typed() -> None:
    ids = [logged(LOSS, seed=1, lr="auto", **{"resolved.lr": lr}) for lr in (0.1, 0.2)]
    assert [run.variant for run in nfa.results(ids).runs] == ["lr 0.1", "lr 0.2"]


def test_runs_that_nfa_did_not_train_are_variants_of_their_own() -> None:
    ids = [logged(LOSS, name, tags={}) for name in ("one", "other")]
    assert [(run.name, run.variant) for run in nfa.results(ids).runs] == [("one", "one"), ("other", "other")]


def test_values_of_analyses_belong_to_the_training_whose_own_come_first_and_then_the_newest() -> None:
    run_id = logged({**LOSS, "a/agop_nfm": {0: 0.5}})
    analysis({"a/g_vs_h": {0: 0.1}, "a/g_vs_h_se": {0: 0.01}, "a/h_vs_m": {0: 0.3}}, run_id)
    newest = {"val/loss": {1: 9.0}, "a/agop_nfm": {0: 0.9}, "a/agop_nfm_se": {0: 0.09}, "a/g_vs_h": {0: 0.2}}
    analysis(newest, run_id)
    found = {row.key: row for row in nfa.results(run_id)["agop_nfm,g_vs_h,h_vs_m"]}
    assert {key: (row.run, row.value, row.se) for key, row in found.items()} == {
        "a/agop_nfm": (run_id, 0.5, None),
        "a/g_vs_h": (run_id, 0.2, None),
        "a/h_vs_m": (run_id, 0.3, None),
    }
    assert {step for _, key, step in values(run_id) if key == "val/loss"} == {0, 1, 2}


def test_the_id_of_an_analysis_means_its_own_values_of_the_analysed_run() -> None:
    run_id = logged({"a/agop_nfm": {0: 0.5}}, "trained", seed=4)
    part = analysis({"a/agop_nfm": {0: 0.9}}, run_id)
    (row,) = nfa.results(part)
    assert (row.run, row.name, row.seed, row.value) == (run_id, "trained", 4, 0.9)
    assert values([part, run_id]) == values(run_id)


def test_a_comparison_without_values_means_the_runs_that_it_compares() -> None:
    ids = [logged(LOSS), logged(LOSS)]
    assert runs_of(analysis({}, *ids)) == ids
    own = analysis(LOSS, *ids)
    assert runs_of(own) == [own]


def test_a_filter_takes_the_matching_trainings_and_neither_their_parents_nor_analyses() -> None:
    parent = logged({"val/loss": {0: 0.05}})
    low, high = (logged({"val/loss": {0: loss}}, parent=parent, optimizer="adam") for loss in (0.01, 0.9))
    analysis({"val/loss": {0: 0.01}}, low)
    assert runs_of("metrics.`val/loss` < 0.1") == [low]
    assert runs_of("params.optimizer = 'adam'") == [low, high]
    assert runs_of("params.optimizer LIKE 'ad%'") == [low, high]
    assert runs_of(f"attributes.run_id IN ('{parent}')") == [low, high]


@pytest.mark.parametrize(
    ("run_ids", "message"),
    [
        ("metrics.val/loss < 1", r"filter 'metrics.val/loss < 1' \(.*\n  allowed: a filter string of MLflow's"),
        ("params.depth = '3'", r"\(no run matches it\)\n  allowed: a filter that matches runs of 'Default'"),
        ("f" * 32, "a run in sqlite"),
        ("", "run id ''"),
        ([], "no run ids"),
    ],
)
def test_what_means_no_run_is_refused(run_ids: Any, message: str) -> None:
    logged(LOSS)
    with pytest.raises(Refusal, match=message):
        nfa.results(run_ids)


@pytest.mark.parametrize("series", [{}, {"nfa/seconds": {0: 1.0}}])
def test_runs_without_values_are_refused(series: Any) -> None:
    with pytest.raises(Refusal, match=r"\(they have no values\)"):
        nfa.results(logged(series))


def test_runs_of_one_name_are_told_apart() -> None:
    ids = [logged(LOSS, "same", tags={}) for _ in range(3)]
    assert runs_of(ids) == ids
    assert len({run.variant for run in nfa.results(ids).runs}) == 3


def test_twice_as_many_runs_take_no_more_searches(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    searching = client().search_runs

    class Counted:
        def __getattr__(self, name: str) -> Any:
            return getattr(client(), name)

        def search_runs(self, *arguments: Any, **named: Any) -> Any:
            asked.append(arguments[1])
            return searching(*arguments, **named)

    monkeypatch.setattr("nfa.registry.tracking.naming_runs.client", Counted)
    for count in (20, 40):
        parent = logged({})
        for seed in range(count):
            logged({"val/loss": {0: 1.0}}, parent=parent, seed=seed)
        assert len(nfa.results(parent)) == count
    assert len(asked) == 2 * 3  # the parent, its children and theirs


# ---- one step of each run


def test_the_best_step_is_the_lowest_loss_and_the_highest_score_of_each_run() -> None:
    first = logged({**LOSS, "val/accuracy": {0: 0.1, 1: 0.2, 2: 0.9}})
    second = logged({"val/loss": {0: 0.5, 3: 0.7}})
    table = nfa.results([first, second])
    assert {(row.run, row.step) for row in table.at(best="val/loss")} == {(first, 1), (second, 0)}
    assert {(row.run, row.step) for row in table.at(best="val/accuracy")} == {(first, 2)}


def test_the_best_step_is_one_at_which_more_than_losses_is_known() -> None:
    run_id = logged({**LOSS, "a/agop_nfm": {0: 0.5, 2: 0.75}, "a/agop_nfm_se": {2: 0.1}})
    table = nfa.results(run_id).at(best="val/loss")
    assert {row.key: (row.step, row.value, row.se) for row in table} == {
        "a/agop_nfm": (2, 0.75, 0.1),
        "val/loss": (2, 1.5, None),
    }


def test_a_step_is_that_of_all_runs_that_have_it() -> None:
    first, second = logged(LOSS), logged({"val/loss": {0: 0.5}})
    assert [(row.run, row.value) for row in nfa.results([first, second]).at(step=2)] == [(first, 1.5)]


def test_the_last_step_is_that_of_each_run_at_which_more_than_losses_is_known() -> None:
    first, second = logged({**LOSS, "a/agop_nfm": {0: 0.5, 1: 0.75}}), logged(LOSS)
    assert {(row.run, row.step) for row in nfa.results([first, second]).at(step="last")} == {(first, 1), (second, 2)}


@pytest.mark.parametrize(
    ("at", "message"),
    [
        ({}, r"either a step or a metric key"),
        ({"step": 0, "best": "val/loss"}, r"either a step or a metric key"),
        ({"step": 9}, r"step=9 \(no run has a value there\)\n  allowed: 'last', or one of 0, 1, 2\n"),
        ({"step": "best"}, r"step='best' \(no run has a value there\)"),
        ({"best": "val/los"}, r"best=val/los \(no run logs it\)"),
        ({"best": "flow/grad_norm"}, r"the key does not tell which is better"),
    ],
)
def test_another_step_is_refused(at: Mapping[str, Any], message: str) -> None:
    table = nfa.results(logged({**LOSS, "flow/grad_norm": {0: 1.0}}))
    with pytest.raises(Refusal, match=message):
        table.at(**at)


# ---- what is printed


def test_a_table_prints_names_values_and_how_many_there_are() -> None:
    run_id = logged({**LOSS, "a/agop_nfm": {0: 0.5}, "a/agop_nfm_chance": {0: 0.25}}, "x<y", seed=7)
    lines = repr(nfa.results(run_id)).splitlines()
    assert lines[0].split() == ["name", "seed", "key", "step", "value", "chance"]
    assert lines[1].split() == ["x<y", "7", "a/agop_nfm", "0", "0.5", "0.25"]
    assert lines[-1] == "4 values of 1 run, 2 keys, 3 steps"
    assert "<td>x&lt;y</td><td>7</td>" in nfa.results(run_id)._repr_html_()
