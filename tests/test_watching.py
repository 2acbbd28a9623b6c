"""`nfa.watch` in a training loop of one's own: what it records, and that the training is none the wiser."""

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import mlflow
import numpy as np
import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

import nfa
from nfa.errors import Refusal
from nfa.levels import is_beside
from nfa.reference.linear_twin import linear_twin
from nfa.watching import Watch
from tests.support.analyses import Exact, Series, series
from tests.support.similarity_tables import read_back
from tests.support.snapshots import assert_same, snapshot
from tests.support.stores import Store
from tests.support.toy_models import Toy, layers, seeded

DEFAULT = ["agop_nfm", "agop_nfm_init_removed", "g_vs_h", "g_vs_m", "h_vs_m"]
CLASSES = 3


def cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(outputs, targets, reduction="none")


def images() -> nn.Module:
    """Convolutions, one of them depthwise, in-place activations, batch statistics and dropout."""
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(inplace=True),
        nn.Conv2d(4, 4, 3, groups=4),
        nn.ReLU(inplace=True),
        nn.Dropout(0.3),
        nn.Flatten(),
        nn.Linear(36, 6),
        nn.ReLU(inplace=True),
        nn.Linear(6, CLASSES),
    )


class Reader(nn.Module):
    """A TransformerEncoder with dropout, read by the mean over positions."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Linear(5, 8)
        layer = nn.TransformerEncoderLayer(8, 2, 12, dropout=0.2, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.readout = nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.readout(self.encoder(self.embedding(x)).mean(dim=1))
        return outputs


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "convolutions": (images, (1, 5, 5)),
    "transformer": (Reader, (5, 5)),
}
SITES = {
    "convolutions": ["0", "3", "7"],
    "transformer": [
        "embedding",
        *(
            f"encoder.layers.{index}.{name}"
            for index in (0, 1)
            for name in (*(f"self_attn.{part}_proj" for part in ("q", "k", "v", "out")), "linear1", "linear2")
        ),
    ],
}


def toy(name: str) -> Toy:
    """A network in training mode and 24 examples."""
    build, shape = NETWORKS[name]
    drawn = torch.Generator().manual_seed(1)
    inputs = torch.randn(24, *shape, generator=drawn)
    targets = torch.randint(CLASSES, (24,), generator=drawn)
    return Toy(seeded(build).train(), inputs, targets, SITES[name], cross_entropy)


@dataclass
class Recorded:
    """A run that was watched: its store, id, and what each `record` gave back."""

    store: Store
    run_id: str
    values: dict[int, dict[str, float]]

    @property
    def series(self) -> Series:
        return series(self.store, self.run_id)


def train(
    toys: Toy, watch: Watch | None, *, steps: int = 4
) -> tuple[torch.optim.Optimizer, dict[int, dict[str, float]]]:
    """A few steps of Adam on random batches; the values recorded before each."""
    optimizer, values = torch.optim.Adam(toys.net.parameters(), lr=0.01), {}
    for step in range(steps):
        if watch:
            values[step] = watch.record(step)
        batch = torch.randint(len(toys.inputs), (8,))
        optimizer.zero_grad()
        toys.loss(toys.net(toys.inputs[batch]), toys.targets[batch]).mean().backward()
        optimizer.step()
    return optimizer, values


in_a_run = pytest.mark.usefixtures("run")


def only(store: Store) -> str:
    (run_id,) = store.runs()
    return run_id


def watched(store: Store, toys: Toy, **options: Any) -> Recorded:
    probe = (toys.inputs[:10], toys.targets[:10])
    with nfa.watch(toys.net, toys.loss, probe, **options) as watch:
        _, values = train(toys, watch)
    return Recorded(store, only(store), values)


# ---- the training


def left_by_training(name: str, **options: Any) -> list[Any]:
    """What a training leaves with a watch of these options, and without one."""
    left = []
    for seen in (True, False):
        toys = toy(name)
        random.seed(7), np.random.seed(7), torch.manual_seed(7)
        if seen:
            with nfa.watch(toys.net, toys.loss, (toys.inputs[:10], toys.targets[:10]), **options) as watch:
                optimizer, _ = train(toys, watch)
        else:
            optimizer, _ = train(toys, None)
        left.append(snapshot(toys, optimizer))
    return left


@pytest.mark.parametrize("name", NETWORKS)
@in_a_run
def test_training_is_bitwise_the_same_with_and_without(name: str) -> None:
    """Weights, running statistics, optimizer state, gradients, modes, hooks and generators."""
    seen, unseen = left_by_training(name, relations="*_nfm,?_vs_?,out_?_vs_?")
    assert_same(seen, unseen)
    assert set(seen["training"].values()) == {True}


# ---- the values


@pytest.mark.parametrize("name", NETWORKS)
def test_every_layer_but_the_readout_is_a_site_with_a_series_in_the_active_run(name: str, run: Store) -> None:
    recorded = watched(run, toy(name))
    assert {key.rpartition("/")[0] for key in recorded.series} == {*SITES[name], "probe"}
    for key, of_key in recorded.series.items():
        steps = [1, 2, 3] if "init_removed" in key else [0, 1, 2, 3]
        assert list(of_key) == steps or (key.endswith(("_se", "_unbiased")) and set(of_key) < set(steps)), key
        assert of_key == {step: recorded.values[step][key] for step in of_key}
    named = {key.rpartition("/")[2] for key in recorded.series}
    assert {name for name in named if not is_beside(name)} == {*DEFAULT, "loss"}
    assert {"agop_nfm_chance", "agop_nfm_chance_sd", "agop_nfm_shared", "h_vs_m_chance"} <= named


CHECKED = {
    "convolutions": {"0": "0.linear", "3": "3.linear", "7": "7"},
    "transformer": {
        name: name for name in ("embedding", "encoder.layers.1.self_attn.k_proj", "encoder.layers.0.linear2")
    },
}


@pytest.mark.parametrize("name", NETWORKS)
@in_a_run
def test_values_equal_the_reference_in_float64(name: str) -> None:
    toys, relations = toy(name), "agop_nfm*,?_vs_?,out_*_m,fact_nfm,h_stable_rank"
    start = linear_twin(toys.net)
    with nfa.watch(toys.net, toys.loss, (toys.inputs[:5], toys.targets[:5]), relations=relations, top_k=2) as watch:
        train(toys, watch, steps=3)
        found = watch.record(3)
    twin = linear_twin(toys.net)
    for site, of_twin in CHECKED[name].items():
        initial = start.get_submodule(of_twin).weight.detach()
        exact = Exact(twin, of_twin, toys.inputs[:5], toys.targets[:5], cross_entropy, initial).relations(top_k=2)
        mine = {key.removeprefix(f"{site}/"): value for key, value in found.items() if key.startswith(f"{site}/")}
        assert {*DEFAULT, "out_h_vs_m", "fact_nfm", "h_stable_rank"} <= set(mine)
        tolerant = {key: value for key, value in mine.items() if "exponent" not in key and not is_beside(key)}
        assert tolerant == pytest.approx({key: exact[key] for key in tolerant}, abs=2e-5)


def test_probe_loss_is_the_mean_in_evaluation_mode(run: Store) -> None:
    toys = toy("convolutions")
    recorded = watched(run, toys)
    net = seeded(images).eval()
    with torch.no_grad():
        expected = float(cross_entropy(net(toys.inputs[:10]), toys.targets[:10]).mean())
    assert recorded.series["probe/loss"][0] == pytest.approx(expected, rel=1e-6)
    assert recorded.series["probe/loss"][3] != pytest.approx(expected, rel=1e-6)


def test_only_scheduled_steps_are_recorded(run: Store) -> None:
    recorded = watched(run, toy("convolutions"), schedule="0-2/2,3")
    assert {step: bool(values) for step, values in recorded.values.items()} == {0: True, 1: False, 2: True, 3: True}
    assert list(recorded.series["3/h_vs_m"]) == [0, 2, 3]


def test_options_are_those_of_analyze(run: Store) -> None:
    options = {"relations": "agop_nfm", "sites": "3,9", "precision": "float64", "directions": "2", "seed": 5}
    recorded = watched(run, toy("convolutions"), **options)
    named = {key for key in recorded.series if not is_beside(key)}
    assert named == {"3/agop_nfm", "9/agop_nfm", "probe/loss"}
    said = recorded.store.json(recorded.run_id, "alignment.json")["conventions"]
    assert (said["precision"], said["directions"]) == ("float64", "2 random, seed 5")


@in_a_run
def test_options_may_be_numbers_and_lists_where_the_meaning_is_clear() -> None:
    toys, found = toy("convolutions"), []
    probe = list(toys.inputs[:10]), list(toys.targets[:10])
    as_typed = {"relations": "agop_nfm,h_vs_m", "sites": "3,9", "directions": "2", "schedule": "10", "top_k": 1}
    as_meant = {"relations": ("agop_nfm", "h_vs_m"), "sites": ["3", "9"], "directions": 2, "schedule": 10, "top_k": 1}
    for number, options in enumerate((as_typed, as_meant)):
        with nfa.watch(
            toys.net, toys.loss, [torch.stack(part) for part in probe], prefix=f"{number}/", **options
        ) as one:
            assert one.record(3) == {}
            found.append({key.partition("/")[2]: value for key, value in one.record(10).items()})
    assert found[0] == found[1]
    assert "9/agop_nfm" in found[0]


def test_alignment_json_says_what_was_compared_and_how(run: Store) -> None:
    recorded = watched(run, toy("convolutions"))
    content = recorded.store.json(recorded.run_id, "alignment.json")
    assert content["relations"] == DEFAULT
    assert content["sites"] == SITES["convolutions"]
    assert content["nfa_version"] == nfa.__version__
    assert content["conventions"]["examples"] == 10
    assert content["conventions"]["positions"] == "each"


def test_table_has_every_value(run: Store) -> None:
    recorded = watched(run, toy("convolutions"))
    found = read_back(recorded.store.artifact(recorded.run_id, "similarities.csv").read_text())
    assert found == {(key, step): value for key, of_key in recorded.series.items() for step, value in of_key.items()}


def test_figure_is_there_in_both_formats(store: Store) -> None:
    with mlflow.start_run():
        watched(store, toy("convolutions"), relations="h_vs_m", sites="3")
    for kind, start in (("png", b"\x89PNG"), ("pdf", b"%PDF")):
        assert store.artifact(only(store), f"plots/all_relations.{kind}").read_bytes().startswith(start)


def failing_loop(toys: Toy) -> None:
    with nfa.watch(toys.net, toys.loss, (toys.inputs, toys.targets)) as watch:
        watch.record(0)
        raise KeyError("mine")


def test_loop_that_fails_keeps_its_series_and_its_error(run: Store) -> None:
    with pytest.raises(KeyError, match="mine"):
        failing_loop(toy("convolutions"))
    assert list(series(run, only(run))["0/agop_nfm"]) == [0]
    assert not run.artifact(only(run), "similarities.csv").exists()


def test_a_step_recorded_twice_is_logged_once(run: Store) -> None:
    toys = toy("convolutions")
    with nfa.watch(toys.net, toys.loss, (toys.inputs[:4], toys.targets[:4]), relations="h_vs_m") as watch:
        assert watch.record(1) == watch.record(1)
    assert list(series(run, only(run))["0/h_vs_m"]) == [1]


# ---- a training that diverges


def diverge(watch: Watch, module: nn.Linear, entry: float) -> tuple[dict[str, float], ...]:
    """Values before and after the weights of a module become `entry`; the step after that is recorded too."""
    before = watch.record(0)
    with torch.no_grad():
        module.weight.fill_(entry)
    after = watch.record(1)
    assert watch.record(2) == after
    return before, after


def relations_of(site: str, values: dict[str, float]) -> set[str]:
    return {key.removeprefix(f"{site}/") for key in values if key.startswith(f"{site}/") and not is_beside(key)}


@pytest.mark.parametrize("entry", [math.nan, math.inf, -math.inf, 1e30])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"centre": "entry"},
        {"centre": "jacobian"},
        {"directions": "2"},
        {"precision": "float64"},
        {"agop_power": "0.5"},
    ],
    ids=str,
)
def test_diverged_weights_end_no_training_and_leave_out_what_is_undefined(
    entry: float, options: dict[str, str], run: Store
) -> None:
    net, x, y = layers_of(4, 6, 5, CLASSES)
    with nfa.watch(net, cross_entropy, (x, y), relations="all", top_k=2, **options) as watch:
        before, after = diverge(watch, net[2], entry)
    assert {"agop_nfm", "h_vs_m", "out_h_vs_m"} <= relations_of("2", before)
    if not math.isfinite(entry):
        assert "probe/loss" not in after
        assert relations_of("2", after) == {"h_stable_rank"}
    of_inputs = {name for name in relations_of("0", before) if not {"agop", "g", "fact"} & set(name.split("_"))}
    assert {name: after.get(f"0/{name}") for name in of_inputs} == {name: before[f"0/{name}"] for name in of_inputs}
    logged = series(run, only(run))
    assert {key for key, of_key in logged.items() if 1 in of_key} == set(after)
    assert run.rows("SELECT count(*) FROM metrics WHERE is_nan OR abs(value) > 1e300") == [(0,)]


@in_a_run
def test_a_layer_behind_weights_that_are_nan_has_no_gradients_either() -> None:
    """ReLU passes gradients through nan, but outputs that are nan have none."""
    net = seeded(layers, 4, 6, 5, CLASSES, activation=nn.ReLU)
    with nfa.watch(net, cross_entropy, (torch.randn(9, 4), torch.randint(CLASSES, (9,))), relations="*_nfm") as watch:
        _, after = diverge(watch, net[0], math.nan)
    assert after == {}


def test_the_table_has_the_values_of_steps_without_a_loss(run: Store) -> None:
    net, x, y = layers_of(4, 6, 5, CLASSES)
    with nfa.watch(net, cross_entropy, (x, y), relations="h_vs_m", sites="0") as watch:
        diverge(watch, net[2], math.nan)
    table = run.artifact(only(run), "similarities.csv").read_text().splitlines()
    assert [line.split(",")[:3] for line in table[1:]] == [
        ["0", "", "probe/loss"],
        *([str(step), "0", "h_vs_m"] for step in range(3)),
    ]


def layers_of(*sizes: int) -> tuple[nn.Sequential, Tensor, Tensor]:
    """A network and 9 examples."""
    return seeded(layers, *sizes), torch.randn(9, sizes[0]), torch.randint(sizes[-1], (9,))


@pytest.mark.parametrize(
    ("module", "entry", "said"),
    [
        (0, math.nan, "step 1: weights of 0 are not finite; undefined values are left out"),
        (0, -math.inf, "step 1: weights of 0 are not finite; undefined values are left out"),
        (4, math.inf, "step 1: weights of 4 are not finite; undefined values are left out"),
        (4, 1.0, ""),
    ],
)
@in_a_run
def test_the_first_step_of_divergence_is_said_once(
    module: int, entry: float, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    net, x, y = layers_of(4, 6, 5, CLASSES)
    with nfa.watch(net, cross_entropy, (x, y), relations="h_vs_m") as watch:
        diverge(watch, net[module], entry)
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition("notice  ")[2] for line in lines if "notice  " in line] == ([said] if said else [])
    assert "/runs/" in lines[-1]


def test_a_run_without_any_value_still_has_its_table_and_figure(store: Store) -> None:
    net, x, y = layers_of(4, 6, 5, CLASSES)
    with mlflow.start_run(), nfa.watch(net, cross_entropy, (x, y)) as watch:
        with torch.no_grad():
            net[0].weight.fill_(math.nan)
        assert watch.record(0) == {}
    assert store.metrics(only(store)) == []
    assert store.artifact(only(store), "similarities.csv").exists()
    assert store.artifact(only(store), "plots/all_relations.png").exists()


# ---- inputs


class Named(nn.Module):
    """Answers like a Hugging Face model: named inputs, a result with `logits`."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.readout = nn.Linear(4, 6), nn.Linear(4, 6), nn.Linear(6, CLASSES)

    def forward(self, left: Tensor, right: Tensor) -> SimpleNamespace:
        return SimpleNamespace(logits=self.readout(torch.tanh(self.first(left)) * torch.tanh(self.second(right))))


class Plain(nn.Module):
    """The same from one tensor."""

    def __init__(self, named: Named) -> None:
        super().__init__()
        self.named = named

    def forward(self, both: Tensor) -> Tensor:
        logits: Tensor = self.named(*both.chunk(2, dim=1)).logits
        return logits


def once(net: nn.Module, inputs: Any, targets: Any, loss: Any = cross_entropy, **options: Any) -> dict[str, float]:
    with nfa.watch(net, loss, (inputs, targets), **options) as watch:
        return watch.record(0)


def unprefixed(values: dict[str, float]) -> dict[str, float]:
    return {key.removeprefix("plain/"): value for key, value in values.items()}


@in_a_run
def test_named_inputs_and_an_answer_with_logits_are_understood() -> None:
    net, x, y = seeded(Named), torch.randn(6, 8), torch.randint(CLASSES, (6,))
    left, right = x.chunk(2, dim=1)
    found = once(net, {"left": left, "right": right}, y)
    plain = unprefixed(once(Plain(net), x, y, prefix="plain/"))
    assert found == {key.removeprefix("named."): value for key, value in plain.items()}
    assert {key.split("/")[0] for key in found} == {"first", "second", "probe"}


@in_a_run
def test_outputs_and_targets_may_be_whatever_outputs_and_loss_understand() -> None:
    net, x, y = seeded(layers, 4, 6, CLASSES), torch.randn(6, 4), torch.randint(CLASSES, (6,))

    def doubled(outputs: Tensor, targets: dict[str, Tensor]) -> Tensor:
        return cross_entropy(outputs / 2, targets["label"]) * targets["weight"]

    weight = torch.ones(6)
    found = once(net, [x], {"label": y, "weight": weight}, doubled, outputs=lambda model, inputs: 2 * model(inputs[0]))
    plain = unprefixed(once(net, x, y, prefix="plain/"))
    for key in ("g_vs_h", "agop_nfm", "h_vs_m"):  # cosines do not see the factor
        assert found[f"0/{key}"] == pytest.approx(plain[f"0/{key}"], abs=1e-6)


# ---- refusals


def refused(match: str, *args: Any, **options: Any) -> None:
    with pytest.raises(Refusal, match=match):
        nfa.watch(*args, **options)


def plain() -> tuple[nn.Module, Tensor, Tensor]:
    return seeded(layers, 4, 6, CLASSES), torch.randn(9, 4), torch.randint(CLASSES, (9,))


def test_without_an_active_run_it_is_refused(store: Store) -> None:
    net, x, y = plain()
    words = "a watch without an active MLflow run\n.*\n  do: put the training inside `with mlflow.start_run"
    refused(words, net, cross_entropy, (x, y))
    assert store.runs() == []


@in_a_run
def test_a_reduced_loss_is_refused_before_training() -> None:
    net, x, y = plain()
    refused(r"losses of shape \(\) for 8 examples\n.*\n  do: .*reduction='none'", net, F.cross_entropy, (x, y))


@in_a_run
def test_examples_that_see_each_other_are_refused() -> None:
    net, x, y = plain()
    refused("coupled", net, lambda f, t: cross_entropy(f, t) / len(f), (x, y))
    refused(
        "uses the statistics of the batch",
        nn.Sequential(nn.BatchNorm1d(4, track_running_stats=False), *net),
        cross_entropy,
        (x, y),
    )


@in_a_run
def test_a_model_that_answers_differently_each_time_is_refused() -> None:
    net, x, y = plain()
    refused(
        "differ when it is run twice",
        net,
        cross_entropy,
        (x, y),
        outputs=lambda model, inputs: F.dropout(model(inputs)),
    )


@in_a_run
def test_another_number_of_targets_is_refused() -> None:
    net, x, y = plain()
    refused("a probe of 9 inputs and 8 targets", net, cross_entropy, (x, y[:8]))
    refused("a probe of 9 inputs and 8 targets", net, cross_entropy, ({"input": x}, {"labels": y[:8]}))
    refused("parts have 9, 8 rows\n.*\n  do: pass tensors of the same examples", net, cross_entropy, ([x, x[:8]], y))
    refused("parts have no rows", net, cross_entropy, ({}, y))


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"schedule": "0-x"}, "schedule '0-x'"),
        ({"relations": "cka"}, "relations=cka"),
        ({"sites": "conv"}, "sites=conv\n  allowed: 0, 2\n"),
        ({"directions": "1"}, "directions='1'"),
        ({"precision": "half"}, "precision='half'"),
        ({"max_samples": 10}, "max_samples=10"),
        ({"studies": "directions", "chance": "false"}, "chance='false'\n  allowed: True or False"),
        ({"relation": "h_vs_m"}, "option 'relation' of nfa.watch\n  allowed: relations, sites"),
        ({"nproc": 2}, "option 'nproc' of nfa.watch"),  # about stored runs
    ],
)
@in_a_run
def test_options_are_refused_like_those_of_analyze(options: dict[str, Any], match: str) -> None:
    net, x, y = plain()
    refused(match, net, cross_entropy, (x, y), **options)


def test_a_refusal_leaves_model_generators_and_run_as_they_were(run: Store) -> None:
    toys = toy("convolutions")
    before = snapshot(toys)
    with pytest.raises(Refusal):
        nfa.watch(toys.net, F.cross_entropy, (toys.inputs, toys.targets))
    assert_same(snapshot(toys), before)
    assert run.metrics(only(run)) == []


# ---- its name (that `import nfa` loads nothing heavy is tested with the layers)


def test_it_is_there_when_it_is_asked_for_and_what_nfa_does_not_have_is_an_attribute_error() -> None:
    assert nfa.watch is Watch
    with pytest.raises(AttributeError, match="'nfa' has no attribute 'wacth'"):
        _ = nfa.wacth
