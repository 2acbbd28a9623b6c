"""Code or data that are others than those a run was trained with are found out, though the names have stayed."""

from pathlib import Path

import pytest
import torch

import nfa
from nfa.errors import Refusal
from tests.support.refusals import Refused
from tests.support.stores import Finished
from tests.support.workload_files import LAB, write_lab

ANSWERS = "a model whose answers are not those stored with"
IDS, DATA = "examples of probe instead of those", "digest"
FIRST = "nn.Sequential(nn.Linear(6, width), ACT"
SWAPPED = """    class Swapped(nn.Sequential):
        def forward(self, x):
            return self[4](self[3](self[0](self[1](self[2](x)))))

    return Swapped(nn.Linear(6, width), ACT"""
CHANGES = {  # what is changed in the file, and what is said of it
    "another activation": ("nn.Linear(width, width), nn.ReLU()", "nn.Linear(width, width), nn.GELU()", ANSWERS),
    "another order of layers": (f"    return {FIRST}", SWAPPED, ANSWERS),
    "layers under other names": (FIRST, FIRST.replace("(nn.", "(nn.Identity(), nn."), "epoch_0003.safetensors"),
    "a scaled output": ("nn.Linear(width, 3))", "nn.Linear(width, 3), nn.Softmax(1))", ANSWERS),
    "other examples": ("manual_seed(seed)", "manual_seed(seed + 9)", IDS),
    "other labels": ("(x[:, 1] > 0)", "(x[:, 1] > 0.5)", IDS),
    "fewer examples": ("train or examples(48, 0)", "train or examples(40, 0)", "40 examples of train"),
    "another split": ('"val": examples(16, 1)', '"val": examples(16, 2)', DATA),
    "no test split": ('"test": examples(16, 2)', '"test": None', "0 examples of test"),
    "another shape": (
        "nn.Linear(width, 3))",
        "nn.Linear(width, 4))",
        "whose weights are not those of checkpoints/epoch_0003",
    ),
    "data of another type": ("return TensorDataset(x,", "return TensorDataset(x.double().float() * 1.5,", DATA),
}
HARMLESS = {
    "another initialisation": (f"return {FIRST}", f"torch.rand(7)\n    return {FIRST}"),
    "noise of rounding": ("nn.Linear(width, 3))", "nn.Linear(width, 3), nn.Threshold(-1e9, 0))"),
    "another loss": ('reduction="none")', 'reduction="none", label_smoothing=0.1)'),
    "a remark": ("import nfa\n", "import nfa  # the library\n"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_answers_otherwise_is_refused(name: str, trained: Finished) -> None:
    old, new, said = CHANGES[name]
    write_lab(trained.store.folder, old=old, new=new)
    with pytest.raises(Refusal, match=said):
        nfa.load_checkpoint(trained.run_id, 3, workload="my_lab:make")


@pytest.mark.parametrize("name", HARMLESS)
def test_what_answers_the_same_is_taken(name: str, trained: Finished) -> None:
    model = nfa.load_checkpoint(trained.run_id, 3).model
    old, new = HARMLESS[name]
    write_lab(trained.store.folder, old=old, new=new)
    again = nfa.load_checkpoint(trained.run_id, 3, workload="my_lab:make").model
    x = torch.ones(2, 6)
    assert torch.equal(again(x), model(x))


@pytest.mark.parametrize("door", ["analyze", "gradient_directions", "gradient_flow"])
def test_every_analysis_refuses_code_that_answers_otherwise(
    door: str, trained: Finished, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    old, new, _ = CHANGES["another activation"]
    write_lab(trained.store.folder, old=old, new=new)
    words = ["--run_id", trained.run_id, "--workload", "my_lab:make", "--epochs", "3"]
    said = Refused(door, monkeypatch, capsys)(words)
    assert ANSWERS in said
    assert "go back to the code with which the run was trained" in said


def test_arguments_that_are_named_have_to_answer_as_before(trained: Finished) -> None:
    def load(arguments: str) -> object:
        return nfa.load_checkpoint(trained.run_id, 3, workload="my_lab:make", workload_args=arguments)

    assert load("width=6,activation=relu")
    with pytest.raises(Refusal, match=ANSWERS):
        load("activation=tanh")
    with pytest.raises(Refusal, match=r"epoch_0003\.safetensors"):
        load("width=9")
    with pytest.raises(Refusal, match="did you mean width"):
        load("widht=6")


def test_another_function_that_answers_the_same_may_be_named(trained: Finished) -> None:
    Path("my_lab_2.py").write_text(LAB.replace("def make(", "def made("))
    Path("my_lab.py").unlink()
    assert nfa.load_checkpoint(trained.run_id, 3, workload="my_lab_2:made")


@pytest.mark.parametrize("name", ["another activation", "other examples", "fewer examples"])
def test_a_training_goes_on_with_no_code_that_answers_otherwise_and_is_left_as_it_was(
    name: str, trained: Finished, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trained.store.change("UPDATE tags SET value = 'killed' WHERE key = 'nfa.state'")
    before = trained.store.json(trained.run_id, "config.json"), trained.store.tags(trained.run_id)
    old, new, said = CHANGES[name]
    write_lab(trained.store.folder, old=old, new=new)
    assert said in Refused("train", monkeypatch, capsys)(["--resume", trained.run_id, "--workload", "my_lab:make"])
    assert (trained.store.json(trained.run_id, "config.json"), trained.store.tags(trained.run_id)) == before
