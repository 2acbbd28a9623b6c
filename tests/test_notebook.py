"""`nfa.alignment` and the other calls about a model at hand: the values of a watch, in a table."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn as nn
from matplotlib.figure import Figure
from torch import Tensor
from torch.func import functional_call, grad, vmap
from torch.utils.data import DataLoader, TensorDataset

import nfa
from nfa.errors import Refusal
from nfa.measures import sketch_sizes
from nfa.measures.gradient_gram import GradientGram
from nfa.notebook.table import ValueRow, ValueTable
from nfa.sinks import Memory
from tests.support.snapshots import assert_same, snapshot
from tests.test_watching import cross_entropy, layers_of, toy

CALLS: list[Callable[..., ValueTable]] = [nfa.alignment, nfa.gradient_directions, nfa.gradient_flow]
each_call = pytest.mark.parametrize("call", CALLS)


def started() -> tuple[nn.Module, Tensor, Tensor]:
    torch.manual_seed(0)
    return layers_of(4, 6, 5, 3)


# ---- values


@each_call
@pytest.mark.parametrize("name", ["convolutions", "transformer"])
def test_values_are_bitwise_those_of_a_watch(call: Callable[..., ValueTable], name: str) -> None:
    toys, study = toy(name), call.__name__.removeprefix("gradient_")
    probe = (toys.inputs[:10], toys.targets[:10])
    table = call(toys.net, toys.loss, probe, max_samples=9)
    with nfa.watch(toys.net, toys.loss, probe, studies=study, sink=Memory(), max_samples=9) as watch:
        expected = {key: value for key, value in watch.record(0).items() if key != "probe/loss"}
    found = {row.key: row.value for row in table}
    beside = {"_se": "se", "_chance": "chance", "_shared": "shared"}
    for suffix, field in beside.items():
        found |= {f"{row.key}{suffix}": of for row in table if (of := getattr(row, field)) is not None}
    kept = {key: of for key, of in expected.items() if not key.endswith(("_unbiased", "_chance_sd", "_shared_sd"))}
    assert found == {key: of for key, of in kept.items() if "weight_change" not in key}


def test_options_are_those_of_the_watch() -> None:
    """Of 64 examples, because of 9 a few decide, and no standard error is given."""
    model, x, y = started()[0], torch.randn(64, 4), torch.randint(3, (64,))
    table = nfa.alignment(model, cross_entropy, (x, y), relations="agop_nfm", sites="2", directions=2, seed=5)
    (row,) = table
    assert (row.site, row.quantity) == ("2", "agop_nfm")
    assert row.se is not None
    assert table.described["conventions"]["directions"] == "2 random, seed 5"


def test_the_gram_matrix_is_that_of_the_examples_own_gradients() -> None:
    model, x, y = started()
    weights = {name: weight.detach() for name, weight in model.named_parameters()}

    def loss(weights: dict[str, Tensor], row: Tensor, target: Tensor) -> Tensor:
        return cross_entropy(functional_call(model, weights, (row[None],)), target[None])[0]

    gradients = vmap(grad(loss), (None, 0, 0))(weights, x, y)
    for parameters, names in {
        "all": [*weights],
        "2.weight": ["2.weight"],
        "0,4": ["0.weight", "0.bias", "4.weight", "4.bias"],
    }.items():
        rows = torch.cat([gradients[name].flatten(1) for name in names if name in gradients], dim=1).double()
        found = nfa.gradient_gram(model, cross_entropy, (x, y), parameters=parameters)
        assert found.dtype == torch.float64
        torch.testing.assert_close(found, rows @ rows.T, rtol=1e-5, atol=1e-7)
    assert nfa.gradient_gram(model, cross_entropy, (x, y), max_samples=4).shape == (4, 4)


def test_gradients_are_sketched_if_asked_and_a_gram_matrix_only_then(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x, y = started()
    exact = nfa.gradient_gram(model, cross_entropy, (x, y))
    monkeypatch.setattr(sketch_sizes, "SMALL", 0)
    monkeypatch.setattr(sketch_sizes, "_of_exact", lambda *_: math.inf)
    monkeypatch.setattr(GradientGram, "at_once", lambda *_: False)
    assert torch.equal(nfa.gradient_gram(model, cross_entropy, (x, y)), exact)
    found = [nfa.gradient_gram(model, cross_entropy, (x, y), sketch=4, seed=seed) for seed in (0, 0, 1)]
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])
    assert not torch.equal(found[0], exact)
    assert "gradient/sketch_error" in [row.key for row in nfa.gradient_directions(model, cross_entropy, (x, y))]
    with pytest.raises(Refusal, match=r"sketch='1'(.|\n)*auto, none, or a whole number from 2"):
        nfa.gradient_gram(model, cross_entropy, (x, y), sketch=1)


def as_batch(x: Tensor, y: Tensor) -> Any:
    return x, y


def as_dict(x: Tensor, y: Tensor) -> Any:
    return {"input": x, "labels": y}


def as_dataset(x: Tensor, y: Tensor) -> Any:
    return TensorDataset(x, y)


def as_loader(x: Tensor, y: Tensor) -> Any:
    return DataLoader(TensorDataset(x, y), batch_size=4, shuffle=True)


@each_call
@pytest.mark.parametrize("form", [as_dict, as_dataset, as_loader])
def test_a_probe_may_be_all_that_a_watch_takes(call: Callable[..., ValueTable], form: Callable[..., Any]) -> None:
    model, x, y = started()
    found = {row.key: row.value for row in call(model, cross_entropy, form(x, y))}
    expected = {row.key: row.value for row in call(model, cross_entropy, as_batch(x, y))}
    assert found == pytest.approx(expected, rel=1e-4)


@each_call
def test_a_model_that_is_wrapped_is_seen_as_itself(call: Callable[..., ValueTable]) -> None:
    model, x, y = started()
    assert repr(call(nn.DataParallel(model), cross_entropy, (x, y))) == repr(call(model, cross_entropy, (x, y)))


@each_call
def test_nothing_of_the_model_and_of_the_generators_is_moved(call: Callable[..., ValueTable]) -> None:
    toys = toy("convolutions")
    before = snapshot(toys)
    call(toys.net, toys.loss, (toys.inputs, toys.targets))
    assert_same(snapshot(toys), before)


@each_call
def test_what_a_watch_refuses_is_refused(call: Callable[..., ValueTable]) -> None:
    model, x, y = started()
    with pytest.raises(Refusal, match=r"losses of shape \(\)"):
        call(model, nn.functional.cross_entropy, (x, y))
    with pytest.raises(Refusal, match=rf"option 'sample' of nfa\.{call.__name__}\n  allowed: .*max_samples"):
        call(model, cross_entropy, (x, y), sample=3)
    with pytest.raises(Refusal, match="a probe on which the model or the loss fails"):
        call(model, cross_entropy, (x[:, :3], y))


def test_relations_to_the_initial_weights_are_refused_where_they_are_asked_for() -> None:
    model, x, y = started()
    with pytest.raises(Refusal, match="init_removed for a model whose initial weights are not known"):
        nfa.alignment(model, cross_entropy, (x, y), relations="agop_nfm_init_removed")


# ---- the table


def of_inputs(scale: float, **options: Any) -> ValueTable:
    """With inputs of 0 the second moment of the first site's inputs is 0."""
    model, x, y = started()
    return nfa.alignment(model, cross_entropy, (scale * x, y), **{"relations": "*_nfm,h_vs_m", **options})


def test_what_is_undefined_has_no_row() -> None:
    assert "0/h_vs_m" in {row.key for row in of_inputs(1)}
    table = of_inputs(0)
    assert {"0/agop_nfm", "2/h_vs_m"} <= {row.key for row in table}
    with pytest.raises(KeyError, match="0/h_vs_m"):
        _ = table["0/h_vs_m"]


def test_a_frame_has_a_row_for_each_value() -> None:
    table = of_inputs(1)
    frame = table.frame()
    assert list(frame.columns) == ["key", "site", "quantity", "value", "se", "chance", "shared"]
    assert list(frame["key"]) == [row.key for row in table]
    assert frame.set_index("key")["value"]["2/h_vs_m"] == table["2/h_vs_m"]
    assert {str(frame[name].dtype) for name in ("se", "chance", "shared")} == {"float64"}


def test_errors_and_levels_are_columns_and_what_belongs_to_them_has_no_row() -> None:
    suffixes = ("", "_se", "_unbiased", "_chance", "_chance_sd", "_shared", "_shared_sd")
    scalars = {f"0/agop_nfm{end}": place / 8 for place, end in enumerate(suffixes)} | {"0/h_stable_rank": 2.0}
    table = ValueTable.of(scalars, "", {"coverage": "all"}, lambda _: Figure())
    assert table.rows == [
        ValueRow("0/agop_nfm", "0", "agop_nfm", 0, 0.125, 0.375, 0.625),
        ValueRow("0/h_stable_rank", "0", "h_stable_rank", 2.0),
    ]
    assert [line.split() for line in repr(table).splitlines()[:3]] == [
        ["site", "quantity", "value", "standard", "error", "chance", "shared"],
        ["0", "agop_nfm", "0", "0.12", "0.375", "0.625"],
        ["0", "h_stable_rank", "2"],
    ]
    assert list(table.frame()["chance"].isna()) == [False, True]


def test_a_long_table_is_shown_in_part_and_says_so() -> None:
    rows = [ValueRow(f"{index}/h_vs_m", str(index), "h_vs_m", 0.5) for index in range(100)]
    lines = repr(ValueTable(rows, {"coverage": "all"}, draw=lambda _: Figure())).splitlines()
    assert lines[0].split() == ["site", "quantity", "value"]
    assert lines[30].split() == ["29", "h_vs_m", "0.5"]
    assert lines[31:] == ["… 70 more rows; .frame() returns all", "all"]


@each_call
def test_a_plot_is_a_figure_with_its_title(call: Callable[..., ValueTable]) -> None:
    model, x, y = started()
    figure = call(model, cross_entropy, (x, y)).plot("after training")
    titles = [figure.get_suptitle(), *(axes.get_title() for axes in figure.axes)]
    assert "after training" in titles
    assert any(axes.has_data() for axes in figure.axes)


@each_call
def test_a_plot_without_a_title_says_which_model_loss_and_examples(call: Callable[..., ValueTable]) -> None:
    model, x, y = started()
    figure = call(model, cross_entropy, (x, y)).plot()
    titles = [figure.get_suptitle(), *(axes.get_title() for axes in figure.axes)]
    assert f"{type(model).__name__}, cross-entropy: {len(x)} examples" in titles


def test_a_plot_shows_every_value_at_its_site() -> None:
    table = of_inputs(1)
    figure = table.plot()
    panel = next(axes for axes in figure.axes if axes.get_title() == "H vs M")
    shown = {line.get_ydata()[0]: line.get_xdata()[0] for line in panel.get_lines() if len(line.get_xdata()) == 1}
    assert shown == {0: table["0/h_vs_m"], 1: table["2/h_vs_m"]}
    assert [label.get_text() for label in panel.get_yticklabels()] == ["module 0", "module 2"]


def test_without_any_value_table_and_plot_are_empty() -> None:
    table = of_inputs(0, sites="0", relations="h_vs_m")
    assert len(table) == 0
    assert repr(table).splitlines() == ["value", table.described["coverage"]]
    assert not table.plot().axes[0].has_data()
