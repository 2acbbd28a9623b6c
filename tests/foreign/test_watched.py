"""Training is bitwise the same with a watch, the last values that it records are right, and every site has a series."""

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F

import nfa
from tests.support.models.text import mixtral
from tests.support.models.watched import TRAININGS, compare
from tests.support.models.workloads import EXAMPLES, cross_entropy, next_tokens, normal, whole
from tests.support.toy_models import seeded


@pytest.mark.slow
@pytest.mark.usefixtures("run")
@pytest.mark.parametrize("name", TRAININGS)
def test_a_watched_training_is_bitwise_the_same_and_its_last_values_are_those_of_loops_by_hand(name):
    found = compare(TRAININGS[name]())
    assert found.differing == []
    assert found.largest(found.right) <= found.allowed, (found.recorded, found.right)


class Computing(nn.Module):
    """Two products with weights that it computes."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Parameter(torch.randn(4, 4)), nn.Parameter(torch.randn(3, 4))

    def forward(self, x):
        return F.linear(torch.tanh(F.linear(x, self.a.abs())), self.b.exp())


class Around(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = Computing()

    def forward(self, x):
        return self.inner(x)


def sites_logged(store) -> set[str]:
    keys = {key for (run_id,) in [store.runs()] for key, _, _ in store.metrics(run_id)}
    return {key.rpartition("/")[0] for key in keys} - {"probe"}


OPTIONS = {"relations": "h_vs_m", "sites": "*"}


def test_every_matrix_of_a_stack_has_a_series_and_is_chosen_by_a_glob(run):
    probe = mixtral()
    experts = "model.layers.0.mlp.experts"
    with nfa.watch(probe.network, next_tokens, (probe.all.inputs, probe.all.targets), **OPTIONS) as watch:
        watch.record(0)
    sites = sites_logged(run)
    assert {site for site in sites if site.startswith(experts)} == {
        f"{experts}.{name}.{expert}" for name in ("gate_up_proj", "down_proj") for expert in range(4)
    }
    with nfa.watch(
        probe.network, next_tokens, (probe.all.inputs, probe.all.targets), relations="h_vs_m",
        sites="*.gate_up_proj.[02]", prefix="two/",
    ) as watch:  # fmt: skip
        assert {key.rpartition("/")[0] for key in watch.record(0)} == {
            "two/probe", f"two/{experts}.gate_up_proj.0", f"two/{experts}.gate_up_proj.2",
        }  # fmt: skip


@pytest.mark.parametrize(
    ("build", "names"),
    [(Computing, {"computed", "computed_2"}), (Around, {"inner", "inner.computed_2"})],
)
def test_every_weight_that_a_module_computes_has_a_series(run, build, names):
    with nfa.watch(seeded(build), cross_entropy, (normal(EXAMPLES, 4), whole(3, EXAMPLES)), **OPTIONS) as watch:
        watch.record(0)
    assert sites_logged(run) == names
