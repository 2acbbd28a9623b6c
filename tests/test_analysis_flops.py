"""Operations of analyses: those that a calculation by hand and a count of everything give, and none that are not
known.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn as nn
from torch import Tensor

from nfa.analyses.alignment import Analysis
from nfa.analyses.gradient_directions import GradientAnalysis
from nfa.analyses.gradient_flow import FlowAnalysis
from nfa.analyses.parameters import AlignmentParameters, DirectionsParameters, FlowParameters
from nfa.measures.evaluation import record_outputs
from nfa.parallel import World
from nfa.registry.analyses.flops import alignment_flops, directions_flops, extrapolated, flow_flops
from nfa.registry.training.flops import Tally
from nfa.workload import Batch
from tests.support.toy_models import Noisy, Sequences, Tied, Toy, layers, seeded, toy
from tests.support.training_loops import assert_bitwise_equal

N, D, H, K = 50, 6, 20, 3
FORWARD = 2 * (D * H + H * H + H * K)  # of an example
TO_OUTPUTS = 2 * (H * H + H * K)  # backward, to the outputs of the first two layers
MODELS: dict[str, Callable[[], Toy]] = {
    "linear maps": lambda: mlp(),
    "positions": lambda: toy(seeded(Sequences, 5, 8, 3), 40, 4, 5, sites=["first", "second", "readout"]),
    "one map twice": lambda: toy(seeded(Tied, 5, 8, 3), 40, 4, 5, sites=["shared", "readout"]),
    "convolutions": lambda: toy(convolutions(), 40, 2, 9, sites=["0", "2", "5"]),
    "many outputs": lambda: toy(seeded(layers, 30, 8, 6, 90), 40, 30, sites=["0", "2", "4"]),
    "few rows": lambda: toy(seeded(layers, 30, 110, 90, 9), 40, 30, sites=["0", "2", "4"]),
}


def mlp() -> Toy:
    return toy(seeded(layers, D, H, H, K), N, D, sites=["0", "2", "4"], dtype=torch.float32)


def convolutions() -> nn.Module:
    flat = [nn.Flatten(), nn.Linear(6 * 4, 3)]
    return seeded(lambda: nn.Sequential(nn.Conv1d(2, 4, 2), nn.Tanh(), nn.Conv1d(4, 6, 2, stride=2), nn.Tanh(), *flat))


def alignment_of(workload: Toy, world: World | None = None, **options: Any) -> Analysis:
    config = AlignmentParameters(**{"batch_size": 16, "chance": False, **options})
    return Analysis(workload, workload.model(), config, None, world)


def counted(work: Callable[[], object]) -> int:
    with Tally() as tally:
        work()
    assert not tally.unknown
    return tally.flops


def test_relations_cost_passes_sums_of_matrices_and_the_products_of_their_cosines() -> None:
    workload = mlp()
    first, further = alignment_flops(alignment_of(workload, sites="0", relations="h_vs_m"), workload.model()) or (0, 0)
    nfm, sum_of_inputs = 2 * H * D * D, 2 * N * D * D
    assert (first, further) == (N * FORWARD + sum_of_inputs + nfm, N * FORWARD + nfm)  # the inputs are fixed


@pytest.mark.parametrize("directions", ["all", str(K)])
def test_sums_over_outputs_or_directions_are_on_the_cheaper_side(directions: str) -> None:
    workload = mlp()
    analysis = alignment_of(workload, sites="0", relations="agop_nfm", directions=directions)
    pulled_back, nfm = K * (2 * N * H * D + 2 * N * D * D), 2 * H * D * D  # D is the smaller side
    expected = N * (FORWARD + K * TO_OUTPUTS) + pulled_back + nfm
    assert alignment_flops(analysis, workload.model()) == (expected, expected)


def test_only_the_triangle_that_is_multiplied_counts() -> None:
    wide, n = 300, 200
    workload = toy(seeded(layers, wide, 2), n, wide, sites=["0"], dtype=torch.float32)
    first, further = alignment_flops(alignment_of(workload, sites="0", relations="h_vs_m"), workload.model()) or (0, 0)
    assert first - further == 2 * n * (256 * wide + (wide - 256) * (wide - 256))


def test_gram_matrices_cost_their_passes_and_the_products_of_pairs() -> None:
    workload, model = mlp(), mlp().model()
    analysis = GradientAnalysis(workload, model, DirectionsParameters(n=N))
    analysis(model)
    passes = N * (FORWARD + TO_OUTPUTS)
    weights, biases = (D + H) + (H + H) + (H + K), H + H + K
    assert directions_flops(analysis, model) == N * FORWARD + passes + 2 * N * N * (weights + biases)


def test_mean_gradients_cost_a_forward_and_a_backward_pass() -> None:
    workload, model = mlp(), mlp().model()
    analysis = FlowAnalysis(workload, model, FlowParameters(n=N, batch_size=16), None)
    assert flow_flops(analysis, model) == N * (3 * FORWARD - 2 * D * H)  # the inputs need no gradient


@pytest.mark.parametrize("name", MODELS)
def test_few_examples_tell_what_all_of_them_cost(name: str) -> None:
    workload = MODELS[name]()
    model = workload.model()
    asked = "agop_nfm,g_vs_h,out_g_vs_h,out_h_vs_m,out_h_stable_rank,fact_nfm"
    relations = alignment_of(workload, relations=asked, directions="all")
    expected = [counted(lambda: relations.values(model)) for _ in range(2)]
    assert alignment_flops(relations, model) == tuple(expected)

    flow = FlowAnalysis(workload, model, FlowParameters(n=40, batch_size=16), None)
    assert flow_flops(flow, model) == counted(lambda: flow(model))

    directions = GradientAnalysis(workload, model, DirectionsParameters(n=12))
    directions.gram(model)  # the first one checks the model, which does not count
    directions.gram.budget = 0  # not all gradients fit, so that passes are repeated
    batches = list(workload.batches("train", batch_size=12, ids=directions.ids))
    losses = counted(lambda: record_outputs(model, workload, batches, lambda *_: None))
    expected_of_gram = counted(lambda: directions.gram(model))
    assert directions.gram.work.examples > 12 + 4
    assert directions_flops(directions, model) == losses + expected_of_gram


def test_processes_share_the_examples_and_each_makes_the_matrices_of_the_weights() -> None:
    workload, model = mlp(), mlp().model()
    alone, shared = (alignment_flops(alignment_of(workload, World(0, size)), model) for size in (1, 3))
    assert alone
    assert shared == tuple(one + 2 * (2 * H * D * D) for one in alone)


def test_standard_errors_and_levels_do_not_count() -> None:
    workload, model = mlp(), mlp().model()
    plain, beside = (
        alignment_flops(alignment_of(workload, max_samples=40, chance=chance), model) for chance in (False, True)
    )
    assert plain == beside


class Distances(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.centres = nn.Parameter(torch.eye(D))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cdist(x, self.centres)


class Looking(nn.Module):
    """Multiplies more often for many examples."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(D, D)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) if len(x) < 10 else self.layer(self.layer(x))


class Padded(Toy):
    """Examples of different lengths."""

    def batches(self, split: str, **how: Any) -> Any:
        for batch in super().batches(split, **how):
            present = torch.ones(len(batch), batch.inputs.shape[1], dtype=torch.bool)
            yield Batch(batch.inputs, batch.targets, batch.ids, present)


@pytest.mark.parametrize(
    "workload",
    [
        toy(Distances(), N, D, sites=[""]),
        toy(Looking(), N, D, sites=["layer"]),
        toy(layers(D, H, K), 11, D, sites=["0", "2"]),
        Padded(layers(D, K), torch.randn(N, D), torch.randn(N, K), ["0"]),
    ],
    ids=["without a formula", "not linear", "too few examples", "of different lengths"],
)
def test_what_cannot_be_counted_is_absent(workload: Toy) -> None:
    model = workload.model()
    assert flow_flops(FlowAnalysis(workload, model, FlowParameters(n=len(workload.inputs)), None), model) is None


def test_operations_that_grow_faster_are_no_line() -> None:
    with pytest.raises(ValueError, match="not grow linearly"):
        extrapolated({(1, n): n * n for n in (4, 8, 12)}, (1, 100))


def test_counting_changes_no_value_no_statistic_and_no_generator() -> None:
    def values(*, count: bool) -> tuple[dict[str, float], dict[str, float], Any]:
        workload = toy(seeded(Noisy, 5, 8, 3), N, 5, sites=["first", "readout"])
        model = workload.model().train()
        before = {name: value.clone() for name, value in model.state_dict().items()}
        analysis = alignment_of(workload, chance=True, max_samples=40)
        flow = FlowAnalysis(workload, model, FlowParameters(n=40), None)
        found = [analysis.values(model), flow(model)]
        torch.manual_seed(3)
        if count:
            assert alignment_flops(analysis, model)
            assert flow_flops(flow, model)
        drawn = torch.rand(3)
        assert_bitwise_equal(model.state_dict(), before)
        assert model.training
        return {**found[0], **found[1]}, {**analysis.values(model), **flow(model)}, drawn.tolist()

    assert values(count=True) == values(count=False)
