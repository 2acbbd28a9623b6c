"""`train` of a workload that is named: what is refused before there is a run, and what is trained."""

from pathlib import Path
from typing import Any

import pytest
import torch

from nfa.errors import DivergedError
from nfa.registry.families.by_name import TrainAnyConfig, training_of
from nfa.registry.training.muon import Muon
from tests.support.processes import words
from tests.support.refusals import Refused, assert_refused_before_anything_heavy
from tests.support.stores import Store
from tests.support.workload_files import TINY, train_lab, write_lab

MORE = """

def plain(net, **more):
    return supervised(lambda: net() if callable(net) else net, **more)


def raises():
    raise RuntimeError("no data today")


def exits():
    raise SystemExit(3)


def nothing():
    pass


def generates():
    yield make()


def a_class():
    return nfa.Supervised


def wrong_option():
    return nfa.Supervised(modell=None)


def no_model():
    return plain(lambda: 5)


def model_fails():
    def broken():
        raise ValueError("no such checkpoint")
    return supervised(broken)


def wrong_shape():
    return plain(lambda: nn.Linear(7, 3))


def frozen():
    return plain(lambda: nn.Linear(6, 3).requires_grad_(False))


def no_weights():
    return plain(lambda: nn.Identity())


def reduced():
    return supervised(lambda: network(8, "relu"), loss=nn.CrossEntropyLoss())


def coupled():
    return plain(lambda: nn.Sequential(nn.Linear(6, 3), nn.Softmax(dim=0)))


def reduced_metric():
    return supervised(lambda: network(8, "relu"), metrics={"accuracy": lambda o, t: accuracy(o, t).mean()})


def broken_metric():
    return supervised(lambda: network(8, "relu"), metrics={"accuracy": lambda o, t: o.nothing})


def no_validation():
    return supervised(lambda: network(8, "relu"), val=[])


def no_training():
    return nfa.Supervised(model=lambda: network(8, "relu"), loss=loss, train=[], val=examples(8, 1))


def stream():
    return nfa.Supervised(model=lambda: network(8, "relu"), loss=loss, train=iter([]), val=examples(8, 1))


def not_finite():
    missing = TensorDataset(torch.full((9, 6), torch.nan), torch.zeros(9).long())
    return supervised(lambda: network(8, "relu"), train=missing)


def without_test():
    return supervised(lambda: network(8, "relu"), test=None)


def regression():
    def data(seed):
        x = examples(40, seed).tensors[0]
        return TensorDataset(x, x[:, :2].sin())
    net = lambda: nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 2))
    squared = lambda outputs, targets: (outputs - targets).square().mean(dim=1)
    return nfa.Supervised(model=net, loss=squared, train=data(0), val=data(1))


def undefined_metric():
    some = lambda outputs, targets: torch.full((len(outputs),), torch.nan)
    return supervised(lambda: network(8, "relu"), metrics={"some": some, "accuracy": accuracy})


def readout_only():
    return plain(lambda: nn.Linear(6, 3))


def unseen():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(3))
        def forward(self, x):
            return x[:, :3] * self.scale
    return plain(lambda: Scaled())


class Words(nn.Module):
    def __init__(self):
        super().__init__()
        self.words, self.norm = nn.Embedding(9, 6), nn.LayerNorm(6)
        self.conv, self.hidden = nn.Conv1d(6, 6, 3, padding=1), nn.Linear(6, 8)
        self.readout = nn.Linear(8, 3)

    def forward(self, x):
        h = self.conv(self.norm(self.words(x)).mT).relu().mean(dim=2)
        return self.readout(self.hidden(h).relu())


def words():
    def data(seed):
        x = torch.randint(1, 9, (40, 5), generator=torch.Generator().manual_seed(seed))
        return TensorDataset(x, x[:, 0] % 3)
    return nfa.Supervised(model=Words, loss=loss, train=data(0), val=data(1), present=lambda x: torch.ones_like(x) > 0)


def images():
    def data(seed):
        x = torch.randn(24, 1, 5, 5, generator=torch.Generator().manual_seed(seed))
        return TensorDataset(x, (x.sum(dim=(1, 2, 3)) > 0).long())
    net = lambda: nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(36, 2))
    return nfa.Supervised(model=net, loss=loss, train=data(0), val=data(1))


def options(width: int = 8, lr: float = 0.5, epochs: int = 7, seed: int = 3, **options):
    assert options in ({}, {"extra": "yes"}), options
    return supervised(lambda: network(width + seed, "relu"))


def needs(width: int):
    return make(width)
"""


@pytest.fixture(autouse=True)
def _more(lab: Store) -> None:
    write_lab(lab.folder, MORE)


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Refused:
    return Refused("train", monkeypatch, capsys)


def tiny(name: str, **parameters: Any) -> list[str]:
    return words(**{**TINY, "workload": f"my_lab:{name}", **parameters})


# ---- refused


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("raises", "fails (RuntimeError: no data today)"),
        ("exits", "fails (SystemExit: 3)"),
        ("nothing", "returns a NoneType"),
        ("generates", "returns a generator"),
        ("a_class", "returns a "),
        ("wrong_option", "unexpected keyword argument 'modell'"),
        ("no_model", "model= that returns a int"),
        ("model_fails", "fails on its own examples (ValueError: no such checkpoint)"),
        ("wrong_shape", "mat1 and mat2 shapes cannot be multiplied"),
        ("frozen", "a model without trainable parameters"),
        ("no_weights", "a model without trainable parameters"),
        ("reduced", "reduction"),
        ("coupled", "depend on the others in the batch"),
        ("reduced_metric", "metric 'accuracy' of shape"),
        ("broken_metric", "fails on its own examples (AttributeError"),
        ("no_validation", "a dataset without examples"),
        ("no_training", "a dataset without examples"),
        ("stream", "without a length"),
        ("not_finite", "not finite"),
        ("needs", "without width"),
        ("absent", "defines no function absent"),
    ],
)
def test_a_function_that_gives_no_workload_is_refused_before_there_is_a_run(
    name: str, why: str, lab: Store, refused: Refused
) -> None:
    assert why in refused(tiny(name))
    assert lab.runs() == []


@pytest.mark.parametrize("name", ["readout_only", "images", "unseen"])
@pytest.mark.parametrize("optimizer", ["muon", "all"])
def test_muon_of_a_model_without_a_hidden_matrix_is_refused_before_there_is_a_run(
    name: str, optimizer: str, lab: Store, refused: Refused
) -> None:
    assert "with a model that has none" in refused(tiny(name, optimizer=optimizer))
    assert lab.runs() == []


@pytest.mark.parametrize(
    ("parameters", "why"),
    [
        ({"depth": 3}, "depth=3 with workload=my_lab:make"),
        ({"dataset": "svhn"}, "leave dataset out, because it is a parameter of workload=mlp"),
        ({"workload_args": "widht=3"}, "did you mean width"),
        ({"workload_args": "width=3", "width": 4}, "width in one of them"),
        ({"workload_args": "width=x"}, "a value of type int"),
        ({"workload": "mlp", "workload_args": "width=3"}, "workload_args for a workload of your own"),
        ({"workload": "eeg"}, "workload=eeg"),
        ({"workload": "custom"}, "workload=custom"),
        ({"workload": "watched"}, "workload=watched"),
        ({"max_samples": 49}, "0 to 48 training examples"),
        ({"optimizer": "sdg"}, "optimizer=sgd"),
        ({"resume": "nothing", "workload": "my_lab:make"}, "nothing"),
    ],
)
def test_parameters_that_do_not_fit_are_refused_before_there_is_a_run(
    parameters: dict[str, Any], why: str, lab: Store, refused: Refused
) -> None:
    assert why in refused(tiny("make", **parameters))
    assert lab.runs() == []


@pytest.mark.parametrize(
    ("words", "got"),
    [
        ("--workload my_lab:absent", "workload=my_lab:absent"),
        ("--workload absent:make", "workload=absent:make"),
        ("--workload os:system", "workload=os:system"),
    ],
)
def test_names_are_refused_before_anything_heavy(words: str, got: str, tmp_path: Path) -> None:
    folder = tmp_path / "empty"
    folder.mkdir()
    assert_refused_before_anything_heavy("train", words, got, folder)


# ---- parameters of the MLP, and arguments of the function


def test_every_default_may_be_typed() -> None:
    defaults = {name: value for name, value in vars(TrainAnyConfig()).items() if name != "workload"}
    assert training_of(TrainAnyConfig(workload="my_lab:make", **defaults)).workload_args == ""


def test_a_parameter_that_is_an_argument_of_the_function_is_that_argument_and_said(
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = training_of(TrainAnyConfig(workload="my_lab:make", width=32, workload_args="activation=tanh"))
    assert found.workload_args == "width=32,activation=tanh"
    assert "width=32 is passed to my_lab:make" in capsys.readouterr().out


def test_where_a_default_of_the_mlp_may_have_been_typed_the_function_s_own_is_said(
    capsys: pytest.CaptureFixture[str],
) -> None:
    mlp = TrainAnyConfig().width
    assert training_of(TrainAnyConfig(workload="my_lab:make", width=mlp)).workload_args == ""
    said = capsys.readouterr().out
    assert f"width=6: the default of my_lab:make is used; for the MLP's default: workload_args=width={mlp}" in said


def test_arguments_called_as_parameters_of_the_training_are_the_function_s_own(lab: Store) -> None:
    run_id = train_lab(lab, "my_lab:options", workload_args="lr=0.25,epochs=9,seed=5,extra=yes", lr=0.125, seed=4)
    train = lab.json(run_id, "config.json")["train"]
    assert train["workload_args"] == "lr=0.25,epochs=9,seed=5,extra=yes"
    assert (train["lr"], train["epochs"], train["seed"]) == (0.125, 3, 4)
    (first, *_) = lab.checkpoints(run_id).values()
    assert len(first["0.bias"]) == 8 + 5


def test_the_seed_of_the_training_is_the_function_s_argument_of_that_name(lab: Store) -> None:
    run_id = train_lab(lab, "my_lab:options", seed=6)
    (first, *_) = lab.checkpoints(run_id).values()
    assert len(first["0.bias"]) == 8 + 6


# ---- trained


def logged(store: Store, run_id: str) -> set[str]:
    return {key for key, _, _ in store.metrics(run_id)}


def test_arguments_are_among_the_run_s_params(lab: Store) -> None:
    run_id = train_lab(lab, workload_args="width=5,activation=tanh")
    params = lab.params(run_id)
    assert params["width"] == "5"
    assert params["activation"] == "tanh"
    assert params["workload"] == "my_lab:make"
    assert lab.tags(run_id)["nfa.workload"] == "my_lab:make"


def test_regression_without_classes_and_without_a_test_split_is_trained(lab: Store) -> None:
    run_id = train_lab(lab, "my_lab:regression")
    assert {"val/loss", "train/loss", "0/agop_nfm"} <= logged(lab, run_id)
    assert not [key for key in logged(lab, run_id) if key.startswith("test/")]
    assert lab.json(run_id, "example_ids.json")["probe"] == [*range(40)]


def test_an_undefined_metric_is_absent(lab: Store) -> None:
    found = logged(lab, train_lab(lab, "my_lab:undefined_metric"))
    assert {"val/accuracy", "train/accuracy", "test/accuracy"} <= found
    assert not [key for key in found if key.endswith("/some")]


@pytest.mark.parametrize("name", ["unseen", "readout_only"])
def test_a_model_of_which_little_is_seen_is_trained_and_says_so(
    name: str, lab: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    run_id = train_lab(lab, f"my_lab:{name}")
    said = "watching no weight" if name == "unseen" else "watching 21 of 21 weights"
    assert said in capsys.readouterr().out
    assert said in lab.tags(run_id)["nfa.coverage"]
    assert {"val/loss", "train/loss"} <= logged(lab, run_id)
    assert len(lab.checkpoints(run_id)) == 4


def test_a_learning_rate_that_diverges_is_said(lab: Store) -> None:
    with pytest.raises(DivergedError, match="Try a smaller learning rate than lr=1e"):
        train_lab(lab, "my_lab:regression", lr=1e30, epochs=9)
    (run_id,) = lab.runs()
    assert lab.tags(run_id)["nfa.state"] == "failed"


def test_muon_moves_matrices_of_hidden_layers_and_adam_all_else(lab: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    moved: dict[str, set[tuple[int, ...]]] = {}
    for optimizer in (Muon, torch.optim.Adam):

        def step(self: Any, *_: Any, name: str = optimizer.__name__, was: Any = optimizer.step) -> Any:
            moved[name] = {tuple(one.shape) for group in self.param_groups for one in group["params"]}
            return was(self)

        monkeypatch.setattr(optimizer, "step", step)
    train_lab(lab, "my_lab:words", optimizer="muon", epochs=1)
    assert moved["Muon"] == {(8, 6)}
    assert moved["Adam"] == {(9, 6), (6,), (6, 6, 3), (8,), (3, 8), (3,)}


def test_all_optimizers_are_trained_below_a_parent(lab: Store) -> None:
    parent = train_lab(lab, optimizer="all")
    children = [run_id for run_id in lab.runs() if run_id != parent]
    assert {lab.tags(run_id)["nfa.variant"] for run_id in children} == {"sgd", "adam", "muon"}
    assert {lab.tags(run_id)["nfa.workload"] for run_id in lab.runs()} == {"my_lab:make"}
    assert len({frozenset(lab.json(run_id, "example_ids.json")["train"]) for run_id in children}) == 1
