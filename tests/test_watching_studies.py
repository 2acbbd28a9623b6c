"""Every study through `nfa.watch`: keys and values of the analyses of stored runs, with a table and a description."""

import csv
from collections import OrderedDict
from typing import Any

import mlflow
import pytest
import torch
import torch.nn as nn
from torch import Tensor

import nfa
from nfa.analyses.gradient_directions import GradientAnalysis
from nfa.errors import Refusal
from nfa.measures.gradient_gram import GradientGram
from nfa.measures.mean_gradient import mean_gradient
from nfa.registry.analyses.config import GradientDirectionsConfig
from nfa.sinks import Memory
from nfa.workloads.probe import Probe
from tests.support.analyses import series
from tests.support.stores import Store
from tests.support.toy_models import Toy
from tests.test_watching import cross_entropy, in_a_run, only, toy

EVERY = "alignment,directions,flow"
PARTS = ["0", "1", "3", "7", "9"]  # of the convolutional network, that have parameters


def stepped(toys: Toy, watch: Any, steps: int = 3) -> dict[int, dict[str, float]]:
    optimizer, values = torch.optim.SGD(toys.net.parameters(), lr=0.1), {}
    for step in range(steps):
        values[step] = watch.record(step)
        optimizer.zero_grad()
        toys.loss(toys.net(toys.inputs), toys.targets).mean().backward()
        optimizer.step()
    return values


def probe(toys: Toy) -> tuple[Any, Any]:
    return toys.inputs[:12], toys.targets[:12]


def test_three_studies_write_their_series_side_by_side(run: Store) -> None:
    toys = toy("convolutions")
    with nfa.watch(toys.net, toys.loss, probe(toys), studies=EVERY) as watch:
        values = stepped(toys, watch)
    found = series(run, only(run))
    for key, of_key in found.items():
        assert of_key == {step: of_step[key] for step, of_step in values.items() if key in of_step}
    assert {key.split("/")[1] for key in found if key.startswith("flow/")} >= {*PARTS, "front_output_ratio"}
    assert {"0/agop_nfm", "gradient/mean_cosine", "gradient/mean_cosine_se", "gradient/silhouette"} <= found.keys()
    assert list(found["gradient/correlation_with_previous"]) == [1, 2]
    assert list(found["flow/0/weight_change"]) == [1, 2]
    assert list(found["probe/loss"]) == [0, 1, 2]


@in_a_run
def test_chance_false_leaves_out_the_levels_and_nothing_else() -> None:
    toys = toy("convolutions")
    usual, without = (
        nfa.watch(toys.net, toys.loss, probe(toys), studies="directions", prefix=f"{chance}/", chance=chance)
        for chance in (True, False)
    )
    found = {key.removeprefix("True/"): value for key, value in usual.record(0).items()}
    assert {f"gradient/silhouette_{end}" for end in ("se", "chance", "chance_sd")} <= found.keys()
    left = {key.removeprefix("False/"): value for key, value in without.record(0).items()}
    assert left == {key: value for key, value in found.items() if "_chance" not in key}


@in_a_run
def test_values_are_those_of_the_library() -> None:
    toys = toy("convolutions")
    with nfa.watch(toys.net, toys.loss, probe(toys), studies="directions,flow") as watch:
        found = stepped(toys, watch)[2]
        now = watch.record(3)
    workload = Probe(toys.net, toys.loss, *probe(toys))
    directions = GradientAnalysis(workload, toys.net, GradientDirectionsConfig(n=12))(toys.net).scalars
    assert {key: now[key] for key in directions} == dict(directions)
    names = [name for name, _ in toys.net.named_parameters()]
    gram = GradientGram(workload, range(12), names)(toys.net)
    gradients = mean_gradient(workload, toys.net, workload.batches("train", batch_size=12))
    mean = sum(value.double().square().sum() for value in gradients.values())
    assert float(gram.mean()) == pytest.approx(float(mean), rel=1e-5)
    assert now["flow/9/grad_rms"] != found["flow/9/grad_rms"]


def test_weight_changes_are_those_since_the_call(run: Store) -> None:
    toys = toy("convolutions")
    start = {name: weight.detach().clone() for name, weight in toys.net.named_parameters()}
    with nfa.watch(toys.net, toys.loss, probe(toys), studies="flow") as watch:
        stepped(toys, watch, steps=2)
        found = watch.record(2)
    before = torch.cat([start["9.weight"].flatten(), start["9.bias"]])
    after = torch.cat([toys.net[9].weight.detach().flatten(), toys.net[9].bias.detach()])
    assert found["flow/9/weight_change"] == pytest.approx(float((after - before).norm() / before.norm()), rel=1e-5)
    assert run.json(only(run), "flow.json")["groups"]["output"] == "9"


@pytest.mark.parametrize("studies", ["directions", "flow", ["flow", "directions"], " alignment , flow"])
def test_what_is_not_chosen_is_not_measured(studies: Any, run: Store) -> None:
    toys = toy("convolutions")
    with nfa.watch(toys.net, toys.loss, probe(toys), studies=studies) as watch:
        found = stepped(toys, watch)[2]
    named = studies if isinstance(studies, str) else ",".join(studies)
    starts = {"alignment": "0/", "directions": "gradient/", "flow": "flow/"}
    for study, start in starts.items():
        assert any(key.startswith(start) for key in found) is (study in named)
        assert run.artifact(only(run), f"{study}.json").exists() is (study in named)
    assert found["probe/loss"] > 0


@pytest.mark.parametrize(("studies", "passes"), [("alignment", 1), ("flow", 1), ("alignment,flow", 2)])
def test_no_pass_is_made_for_the_loss_of_the_probe_alone(studies: str, passes: int) -> None:
    toys, memory, calls = toy("convolutions"), Memory(), []
    with nfa.watch(toys.net, toys.loss, probe(toys), studies=studies, batch_size=4, sink=memory) as watch:
        watch.record(0)
        toys.net[9].register_forward_hook(lambda _module, given, _output: calls.append(len(given[0])))
        watch.record(1)
    assert calls == [4, 4, 4] * passes
    net = toys.net.eval()
    with torch.no_grad():
        expected = float(toys.loss(net(toys.inputs[:12]), toys.targets[:12]).mean())
    assert memory.series["probe/loss"][1] == pytest.approx(expected, rel=1e-6)


def test_tables_and_pictures_of_each_study_are_made_of_the_series(store: Store) -> None:
    toys = toy("convolutions")
    with mlflow.start_run(), nfa.watch(toys.net, toys.loss, probe(toys), studies="directions,flow") as watch:
        stepped(toys, watch)
    run_id, found = only(store), series(store, only(store))
    flow = list(csv.DictReader(store.artifact(run_id, "gradient_flow.csv").read_text().splitlines()))
    assert {(row["series"], int(row["step"])): float(row["value"]) for row in flow} == {
        (key, step): value for key, of_key in found.items() if key[:5] == "flow/" for step, value in of_key.items()
    }
    rows = list(csv.DictReader(store.artifact(run_id, "gradient_directions.csv").read_text().splitlines()))
    assert float(rows[0]["value"]) == found[rows[0]["series"]][int(rows[0]["step"])]
    for name in ("gradient_directions", "gradient_flow_map"):
        assert store.artifact(run_id, f"plots/{name}.png").read_bytes().startswith(b"\x89PNG")


def test_the_first_line_says_how_much_is_seen_and_so_do_a_tag_and_the_description(
    run: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    toys = toy("convolutions")
    toys.net[0].requires_grad_(False)
    with nfa.watch(toys.net, toys.loss, probe(toys), studies="flow,directions"):
        pass
    total = sum(weight.numel() for weight in toys.net.parameters())
    share = f"{100 * (total - 40) / total:.0f} %"
    said = f"watching {total - 40:,} of {total:,} weights ({share}); not seen: '0'"
    assert capsys.readouterr().out.splitlines()[0].strip() == f"watch  directions: {said}"
    assert run.tags(only(run))["nfa.coverage"] == said
    assert run.json(only(run), "flow.json")["coverage"] == run.json(only(run), "directions.json")["coverage"] == said


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"studies": "alignement"}, "studies='alignement'\n  allowed: alignment, directions, flow"),
        ({"studies": ""}, "studies=''"),
        ({"studies": "flow", "relations": "h_vs_m"}, "option 'relations' of nfa.watch\n  allowed: max_samples, batch"),
        ({"studies": "directions", "sites": "0"}, "option 'sites' of nfa.watch\n  allowed: parameters"),
        ({"studies": "directions", "parameters": "conv"}, "sites=conv"),
        ({"studies": "flow", "max_samples": 13}, r"max_samples=13\n  allowed: 0 \(all\) to 12"),
        ({"studies": "flow", "batch_size": 0}, "batch_size=0"),
        ({"studies": "directions", "max_samples": 1}, "n=1"),
    ],
)
@in_a_run
def test_what_no_chosen_study_can_use_is_refused(options: dict[str, Any], match: str) -> None:
    toys = toy("convolutions")
    with pytest.raises(Refusal, match=match):
        nfa.watch(toys.net, toys.loss, probe(toys), **options)


@pytest.mark.parametrize("studies", ["alignment", "directions", "flow"])
@in_a_run
def test_a_reduced_loss_and_a_model_that_cannot_run_are_refused_by_each_study(studies: str) -> None:
    toys = toy("convolutions")
    with pytest.raises(Refusal, match="losses of shape"):
        nfa.watch(toys.net, torch.nn.functional.cross_entropy, probe(toys), studies=studies)
    with pytest.raises(Refusal, match=r"on which the model or the loss fails .*\n.*\n  do: pass outputs=lambda"):
        nfa.watch(toys.net, toys.loss, (toys.inputs[:, :, :2], toys.targets), studies=studies)


class Broken(nn.Module):
    """What forward leaves for the backward pass is edited in place."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.exp(self.layer(x))
        outputs = hidden.square()
        hidden.add_(1)
        return outputs


@pytest.mark.parametrize("studies", ["directions", "flow"])
@in_a_run
def test_what_fails_on_the_way_back_is_refused_before_training_whatever_the_schedule_is(studies: str) -> None:
    inputs, targets = torch.randn(9, 4), torch.zeros(9, dtype=torch.int64)
    with pytest.raises(Refusal, match=r"cannot be differentiated .*modified by an inplace operation"):
        nfa.watch(Broken(), cross_entropy, (inputs, targets), studies=studies, schedule="3-9")


class TimeFirst(nn.Module):
    """An encoder that wants positions before examples, and in evaluation mode has a way of its own."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(4, 2, 6, dropout=0.1)
        self.encoder, self.readout = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.readout(self.encoder(x.transpose(0, 1)).mean(dim=0))
        return outputs


@pytest.mark.parametrize("positions", [5, 6, 12])
def test_what_was_taken_before_training_is_recorded_however_late_the_schedule_begins(positions: int) -> None:
    memory, probe = Memory(), (torch.randn(6, positions, 4), torch.arange(6) % 3)
    with nfa.watch(TimeFirst().train(), cross_entropy, probe, studies=EVERY, schedule=3, sink=memory) as watch:
        assert [bool(watch.record(step)) for step in range(4)] == [False, False, False, True]
    parts = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj", "linear1", "linear2")
    sites = {key.rpartition("/")[0] for key in memory.series if key.endswith("/g_vs_h")}
    assert sites == {f"encoder.layers.{index}.{name}" for index in (0, 1) for name in parts}


@in_a_run
def test_a_loss_that_uses_weights_itself_is_refused_before_training() -> None:
    toys = toy("convolutions")

    def penalised(outputs: Tensor, targets: Tensor) -> Tensor:
        return cross_entropy(outputs, targets) + toys.net[9].weight.square().sum()

    with pytest.raises(Refusal, match="a loss that uses parameter"):
        nfa.watch(toys.net, penalised, probe(toys), studies="directions", schedule="3-9")


@in_a_run
def test_studies_take_the_first_of_the_probe_that_max_samples_says() -> None:
    toys = toy("convolutions")
    with nfa.watch(toys.net, toys.loss, probe(toys), studies=EVERY, max_samples=7) as watch:
        found = watch.record(0)
    with nfa.watch(toys.net, toys.loss, (toys.inputs[:7], toys.targets[:7]), studies=EVERY, prefix="few/") as watch:
        few = watch.record(0)
    assert {key.removeprefix("few/"): value for key, value in few.items()} == found


@pytest.mark.parametrize("studies", ["alignment", "flow"])  # directions have none of one layer
def test_two_layers_of_one_name_in_the_keys_of_series_are_refused(studies: str) -> None:
    """One would stand for both."""
    network = nn.Sequential(OrderedDict({"a<": nn.Linear(4, 3), "a>": nn.Linear(3, 3)}))
    with pytest.raises(Refusal, match="modules 'a<' and 'a>', which would both be 'a_'"):
        nfa.watch(network, cross_entropy, (torch.randn(6, 4), torch.arange(6) % 3), studies=studies, sink=Memory())
