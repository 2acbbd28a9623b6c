"""Workloads that would fail in the middle, or give wrong values, are refused before there is a run."""

import os
import subprocess
import sys
from typing import Any

import pytest
import torch

import nfa
from nfa.measures.parameter_groups import norm
from nfa.seeding import generator_states, seed_generators
from tests.support.processes import words
from tests.support.refusals import Refused
from tests.support.stores import Store
from tests.support.workload_files import TINY, imports, train_lab, write_lab

MORE = """
import numpy


count = 0


def one_for_all():
    net = network(8, "relu")
    return supervised(lambda: net)


def counting():
    def net():
        global count
        count += 1
        return network(8 + count, "relu")
    return supervised(net)


def alternating():
    def net():
        global count
        count += 1
        return network(8, "relu" if count % 2 else "tanh")
    return supervised(net)


def own_generator():
    def net():
        made = network(8, "relu")
        made[0].weight.data = torch.rand(8, 6, generator=torch.Generator().manual_seed(torch.seed()))
        return made
    return supervised(net)


def a_module():
    return supervised(network(8, "relu"))


def batch_norm(examples_: int = 48):
    return supervised(lambda: drawing(8), examples(examples_, 0))


def without_gradients():
    torch.set_grad_enabled(False)
    return make()


def words_of(sparse: bool = True):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.hidden, self.out = nn.Embedding(9, 4, sparse=sparse), nn.Linear(4, 4), nn.Linear(4, 3)

        def forward(self, tokens):
            return self.out(torch.tanh(self.hidden(self.table(tokens).mean(dim=1))))

    tokens = torch.arange(120).view(24, 5) % 9
    data = TensorDataset(tokens, tokens[:, 0] % 3)
    return supervised(Net, data, val=data, test=None, metrics={})


def measured(name: str = "accuracy"):
    return supervised(lambda: network(8, "relu"), metrics={name: accuracy})


def without_names():
    return supervised(lambda: network(8, "relu"), metrics=[accuracy])


def in_numpy():
    return supervised(lambda: network(8, "relu"), metrics={"accuracy": lambda o, t: (o.argmax(1) == t).numpy()})


def two_outputs():
    return supervised(lambda: network(8, "relu"), loss=lambda outputs, targets: loss(outputs[0], targets))


NOISE = numpy.random.rand(48)


def drawn():
    x = torch.rand(48, 6) + torch.tensor(NOISE).float()[:, None]
    places = numpy.random.permutation(48)
    data = TensorDataset(x, (x[:, 0] > 1).long())
    return supervised(lambda: network(8, "relu"), torch.utils.data.Subset(data, places[:32]))


def reads_a_file():
    open("recordings.csv")


class Stream(torch.utils.data.IterableDataset):
    def __len__(self):
        return 9

    def __iter__(self):
        return iter(examples(9, 0))


def streamed():
    return supervised(lambda: network(8, "relu"), Stream())


def graph():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(6, 3)
            self.register_buffer("edges", torch.eye(6).to_sparse())

        def forward(self, x):
            return self.layer(torch.sparse.mm(self.edges, x.T).T)

    return supervised(Net)


def foreign_names():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.of = nn.ModuleDict({"<user, item>": nn.Linear(6, 8), "out": nn.Linear(8, 3)})

        def forward(self, x):
            return self.of["out"](torch.tanh(self.of["<user, item>"](x)))

    return supervised(Net)
"""


@pytest.fixture
def refused(lab: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Refused:
    write_lab(lab.folder, MORE)
    return Refused("train", monkeypatch, capsys)


def typed(name: str, **parameters: Any) -> list[str]:
    return words(**{**TINY, "workload": f"my_lab:{name}", **parameters})


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("one_for_all", "a model that is the same object at every call"),
        ("counting", "a model whose 0.weight differs at every call"),
        ("alternating", "a model whose answer differs at every call"),
        ("own_generator", "a model whose 0.weight differs at every call"),
        ("a_module", "model= that is a Sequential itself"),
        ("without_gradients", "batch_size=16 for 48 examples: a training step on 16 examples fails"),
        ("without_names", "metrics= that is a list"),
        ("streamed", "a Stream without a length or without items"),
        ("graph", "a model whose state has edges, which is a sparse tensor"),
        ("two_outputs", "which fails on its own examples ("),
        ("reads_a_file", "No such file or directory, 'recordings.csv' in "),
    ],
)
def test_it_is_refused_before_there_is_a_run(name: str, why: str, lab: Store, refused: Refused) -> None:
    try:
        assert why in refused(typed(name))
    finally:
        torch.set_grad_enabled(True)
    assert lab.runs() == []


def test_a_last_batch_that_the_model_cannot_learn_from_is_refused_with_a_size_that_works(
    lab: Store, refused: Refused
) -> None:
    said = refused(typed("batch_norm", workload_args="examples_=33"))
    assert "batch_size=16 for 33 examples: a training step on 1 example fails (ValueError: Expected more than 1" in said
    assert said.endswith("do: batch_size=15\n")
    assert lab.runs() == []
    assert train_lab(lab, "my_lab:batch_norm", workload_args="examples_=33", batch_size=15)


@pytest.mark.parametrize("parameters", [{"optimizer": "adam"}, {"optimizer": "all"}, {"momentum": 0.9}])
def test_sparse_gradients_are_for_plain_descent_only(parameters: dict[str, Any], lab: Store, refused: Refused) -> None:
    assert "for table.weight, whose gradient is sparse" in refused(typed("words_of", **parameters))
    assert lab.runs() == []
    assert train_lab(lab, "my_lab:words_of")


@pytest.mark.parametrize("name", ["loss", "..", "/accuracy", "a//b"])
def test_a_metric_has_a_name_that_a_series_can_have_and_not_that_of_the_loss(
    name: str, lab: Store, refused: Refused
) -> None:
    assert f"a metric named '{name}'" in refused(typed("measured", workload_args=f"name={name}"))
    assert lab.runs() == []


def test_data_that_a_function_draws_are_the_same_for_the_same_seed_and_move_no_generator(lab: Store) -> None:
    write_lab(lab.folder, MORE)
    run_id = train_lab(lab, "my_lab:drawn")
    with imports():
        seed_generators(5)
        states = generator_states()
        loaded = nfa.load_checkpoint(run_id, 3).workload
        assert repr(generator_states()) == repr(states)
    assert lab.json(run_id, "example_ids.json")["probe"] == list(loaded.ids("probe"))
    other = train_lab(lab, "my_lab:drawn", seed=2)
    digests = [lab.json(one, "config.json")["data"]["digest"] for one in (run_id, other)]
    assert digests[0] != digests[1]


def test_a_metric_in_numpy_is_one_of_each_example(lab: Store) -> None:
    write_lab(lab.folder, MORE)
    found, expected = (lab.metrics(train_lab(lab, f"my_lab:{name}")) for name in ("in_numpy", "measured"))
    assert found == expected


def test_the_command_that_shows_where_it_fails_shows_it(lab: Store, refused: Refused) -> None:
    said = refused(typed("two_outputs"))
    command = said.rpartition("to see the error: ")[2].strip().replace("python", sys.executable, 1)
    folders = os.pathsep.join(filter(None, sys.path))
    environment = {**os.environ, "PYTHONPATH": folders}
    ended = subprocess.run(command, shell=True, cwd=lab.folder, env=environment, capture_output=True, text=True)
    assert 'return supervised(lambda: network(8, "relu"), loss=lambda outputs, targets' in ended.stderr


def test_layers_whose_names_no_store_takes_have_their_series_in_the_reports(lab: Store) -> None:
    write_lab(lab.folder, MORE)
    run_id = train_lab(lab, "my_lab:foreign_names")
    assert "of._user_ item_/agop_nfm" in {key for key, _, _ in lab.metrics(run_id)}
    (found,) = lab.json(run_id, "results.json")["layer_correlations"].values()
    assert None not in found


def test_the_norm_of_complex_numbers_counts_both_of_their_parts() -> None:
    assert norm([torch.tensor([3 + 4j]), torch.tensor([12.0])]) == 13
