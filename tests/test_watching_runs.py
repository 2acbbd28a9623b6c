"""A watch and its run: initial weights that belong to the run, one row a step, one watch under each name."""

from typing import Any

import mlflow
import pytest
import torch
import torch.nn as nn
from torch import Tensor

import nfa
from nfa.errors import Refusal
from tests.support.analyses import series, undrawn
from tests.support.stores import Store
from tests.support.toy_models import layers, seeded
from tests.test_watching import cross_entropy, in_a_run, layers_of, only, plain

INITIAL = "0/agop_nfm_init_removed"


def trained(model: nn.Module, x: Tensor, y: Tensor, steps: int = 4) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    for _ in range(steps):
        optimizer.zero_grad()
        cross_entropy(model(x), y).mean().backward()
        optimizer.step()


def watched(
    model: nn.Module, x: Tensor, y: Tensor, first: int = 0, last: int = 4, **options: Any
) -> dict[int, dict[str, float]]:
    """Values of a training from one step to another; each step is one update."""
    with nfa.watch(model, cross_entropy, (x, y), step=first, **options) as watch:
        found = {first: watch.record(first)}
        for step in range(first + 1, last + 1):
            trained(model, x, y, steps=1)
            found[step] = watch.record(step)
    return found


def whole(store: Store) -> dict[str, dict[int, float]]:
    return series(store, only(store))


def started() -> tuple[nn.Module, Tensor, Tensor]:
    torch.manual_seed(0)
    return layers_of(4, 6, 5, 3)


@pytest.mark.parametrize("studies", ["alignment", "alignment,flow"])
def test_a_run_that_goes_on_has_the_values_of_one_that_was_never_cut(studies: str, store: Store) -> None:
    with undrawn(), mlflow.start_run():
        expected = watched(*started(), last=8, studies=studies, prefix="whole/")
        cut = started()
        watched(*cut, last=6, studies=studies)
    again = started()
    trained(*again)  # as a checkpoint of step 4 has it
    with undrawn(), mlflow.start_run(run_id=only(store)):
        watched(*again, first=4, last=8, studies=studies)
    found = whole(store)  # where a step that is logged twice is an error
    for step, values in expected.items():
        for key, value in values.items():
            assert found[key.removeprefix("whole/")][step] == pytest.approx(value, abs=1e-6), (key, step)
    assert list(found[INITIAL]) == list(range(1, 9))


def test_without_the_initial_weights_what_is_made_of_them_is_left_out_and_a_line_says_so(
    run: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    watched(*started(), first=4, last=6, studies="alignment,flow", relations="agop_nfm_init_removed,h_vs_m")
    found = whole(run)
    assert {"0/h_vs_m", "flow/0/grad_rms"} <= found.keys()
    assert not [key for key in found if "init_removed" in key or "weight_change" in key]
    said = "the run continues from step 4 and has no stored initial weights"
    left_out = "so relations with nfm_init_removed and weight changes are left out"
    assert f"notice  {said}, {left_out}" in capsys.readouterr().out


@in_a_run
def test_nothing_but_what_is_made_of_unknown_weights_is_refused() -> None:
    with pytest.raises(Refusal, match="relations=agop_nfm_init_removed for a run whose initial weights are not known"):
        watched(*started(), first=4, relations="agop_nfm_init_removed")


def test_initial_weights_lie_in_the_run_whole_and_checked(store: Store, capfd: pytest.CaptureFixture[str]) -> None:
    model, x, y = started()
    first = model[0].weight.detach().clone()
    with undrawn(), mlflow.start_run():
        watched(model, x, y)
    store.change_tensors(only(store), "initial_weights.safetensors", lambda found: found["site/0"].sub_(first))
    again = started()
    trained(*again)
    with undrawn(), mlflow.start_run(run_id=only(store)):
        found = watched(*again, first=4)  # W − 0
    assert found[4][INITIAL] == pytest.approx(found[4]["0/agop_nfm"], abs=1e-6)
    assert "Downloading" not in capfd.readouterr().err
    store.artifact(only(store), "initial_weights.safetensors").write_bytes(b"damaged")
    with mlflow.start_run(run_id=only(store)), pytest.raises(Refusal, match=r"initial_weights\.safetensors of run"):
        watched(*again, first=4)


def test_at_its_end_a_watch_asks_only_for_the_series_that_others_have_logged(
    run: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    ask = mlflow.MlflowClient.get_metric_history
    noted = lambda client, run_id, key: [asked.append(key), ask(client, run_id, key)][1]  # noqa: E731
    monkeypatch.setattr(mlflow.MlflowClient, "get_metric_history", noted)
    mlflow.log_metric("val/loss", 0.25, step=2)
    watched(*started(), last=2)
    assert asked == ["val/loss"]
    table = run.artifact(only(run), "similarities.csv").read_text(encoding="utf-8")
    assert "2,,val/loss,0.25," in table
    assert ",agop_nfm," in table


# ---- several watches of a run


def test_two_watches_with_prefixes_of_their_own_write_side_by_side(run: Store) -> None:
    (teacher, x, y), (student, *_) = started(), plain()
    with (
        nfa.watch(teacher, cross_entropy, (x, y), prefix="teacher/") as one,
        nfa.watch(student, cross_entropy, (x, y), prefix="student/") as two,
    ):
        both = {**one.record(0), **two.record(0)}
    found = whole(run)
    assert {key: of_key[0] for key, of_key in found.items()} == both
    assert {key.split("/")[0] for key in found} == {"teacher", "student"}
    for name in ("teacher", "student"):
        assert run.json(only(run), f"{name}/alignment.json")["sites"]
        assert f"{name}/" not in run.artifact(only(run), f"{name}/similarities.csv").read_text()
        assert run.tags(only(run))[f"nfa.coverage.{name}"]


@pytest.mark.parametrize("other", [{"prefix": ""}, {"studies": "flow"}])
@in_a_run
def test_the_same_names_twice_are_refused_and_the_remedy_works(other: dict[str, Any]) -> None:
    model, x, y = started()
    made = nfa.watch(model, cross_entropy, (x, y), **other)
    with nfa.watch(model, cross_entropy, (x, y)) as watch:
        watch.record(0)
        match = r"prefix='', which another watch of this run uses\n.*\n  do: prefix='second/'"
        with pytest.raises(Refusal, match=match):
            nfa.watch(model, cross_entropy, (x, y), **other)
        with pytest.raises(Refusal, match=match):
            made.__enter__()
        with nfa.watch(model, cross_entropy, (x, y), **{**other, "prefix": "second/"}) as second:
            assert second.record(0)


@pytest.mark.parametrize("relations", ["agop_nfm_init_removed,h_vs_m", "h_vs_m"])
def test_another_model_under_the_names_of_one_before_is_refused(relations: str, run: Store) -> None:
    model, x, y = started()
    watched(model, x, y, relations=relations)
    before = run.metrics(only(run))
    match = r"do: pass another prefix= for another watch, or step= .* or start a new run"
    for other in (seeded(layers, 4, 6, 5, 3, seed=1), seeded(layers, 4, 7, 3), model):
        with pytest.raises(Refusal, match=match):
            watched(other, x, y, relations=relations)
    assert run.metrics(only(run)) == before
    assert watched(model, x, y, first=4, last=5, relations=relations)[5]


def test_a_training_that_begins_again_in_its_run_goes_on_where_it_is_the_same(run: Store) -> None:
    first = watched(*started(), last=2)
    assert watched(*started(), last=4)[2] == first[2]
    assert list(whole(run)[INITIAL]) == [1, 2, 3, 4]


@pytest.mark.parametrize("prefix", ["a//b", "../x", "/x", "a b", "ä", ".hidden", 3])
@in_a_run
def test_a_prefix_that_no_file_can_be_called_is_refused(prefix: Any) -> None:
    with pytest.raises(Refusal, match="prefix="):
        nfa.watch(*plain()[:1], cross_entropy, plain()[1:], prefix=prefix)


def test_a_long_prefix_that_ends_badly_is_refused_at_once() -> None:
    with pytest.raises(Refusal, match="prefix="):
        nfa.watch(*plain()[:1], cross_entropy, plain()[1:], prefix="a" * 5000 + "!")
