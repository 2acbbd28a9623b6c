"""Fine-tunings that ended early go on to bitwise the same run, whatever ended them, whenever."""

import dataclasses
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from nfa.errors import Refusal
from nfa.registry.families.language.config import TrainLoraConfig
from nfa.registry.stopwatch import Stopwatch
from nfa.registry.training.start import train
from tests.support import lora_runs
from tests.support.analyses import undrawn
from tests.support.fault_injection import INT, KILL, TERM, During
from tests.support.fine_tunings import SIZES, STEPS, Place, factor_run, used_place, write_questions
from tests.support.processes import words
from tests.support.stores import Finished, Store, assert_same_run, used

DROPPING = {"dropout": 0.1, "seed": 3}  # global generators go on where they stopped
CODES = {TERM: 143, INT: 130, KILL: -signal.SIGKILL}


@dataclasses.dataclass(frozen=True)
class Whole:
    """Uninterrupted fine-tunings by the name of their start, and where their base and questions lie."""

    place: Place
    runs: dict[str, Finished]


@pytest.fixture(scope="module")
def whole(empty_store: Store, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    folder = tmp_path_factory.mktemp("ends")
    place, runs = Place.made(folder / "place"), {}
    for name, options in STARTS.items():
        store = empty_store.copy(folder / name)
        ended = place.launch(store, place.words(**options))
        assert ended.code == 0, ended.output
        runs[name] = Finished(store, store.runs()[0])
    return Whole(place, runs)


STARTS: dict[str, dict[str, Any]] = {"random": DROPPING, "pissa": {"init": "pissa"}}
STEP, SAVE, FINAL = "Optimizers.step", "save_state", "save_model"
ENDS = {
    "inside a step": ("random", "nfa.registry.training.optimizers", STEP, TERM, 5),
    "between two steps": ("random", "nfa.registry.training.loop", "Training._epoch", INT, 4),
    "inside an evaluation": ("pissa", "nfa.registry.families.language.scores", "answer_losses", TERM, 3),
    "inside a checkpoint": ("random", "nfa.registry.tracking", SAVE, KILL, 2),
    "after a checkpoint, far from the next": ("pissa", "nfa.registry.training.optimizers", STEP, KILL, 7),
    "inside the reports": ("random", "nfa.registry.families.language.report", FINAL, KILL, 1),
    "before the first checkpoint": ("pissa", "nfa.registry.tracking", "save_checkpoint", KILL, 1),
}


SLOW = ("inside an evaluation", "inside the reports", "before the first checkpoint")


@pytest.mark.parametrize(
    "moment", [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in ENDS]
)
def test_resumed_after_an_end_it_is_the_same_run(moment: str, fresh: Store, whole: Whole) -> None:
    start, module, name, act, number = ENDS[moment]
    ended = whole.place.launch(fresh, whole.place.words(**STARTS[start]), before=During(module, name, act, number))
    assert ended.code == CODES[act], ended.output
    assert "Traceback" not in ended.output
    (run_id,) = fresh.runs()
    if act is not KILL:
        assert fresh.tags(run_id)["nfa.state"] == "killed"
        assert f"continue with resume={run_id}" in ended.output
    resumed = whole.place.launch(fresh, words(resume=run_id))
    assert resumed.code == 0, resumed.output
    expected = whole.runs[start]
    assert_same_run(fresh, run_id, expected)
    for path in (
        f"training_log_{start}.csv",
        "arrays/eval_losses.npy",
        "arrays/eval_losses.json",
        "config.json",
        f"final_model_{start}/adapter_model.safetensors",
    ):
        assert fresh.artifact(run_id, path).read_bytes() == same_place(expected, path), path


def same_place(expected: Finished, path: str) -> bytes:
    return expected.store.artifact(expected.run_id, path).read_bytes()


def test_a_signal_inside_a_step_keeps_the_last_whole_one(fresh: Store, whole: Whole) -> None:
    place = whole.place
    ended = place.launch(
        fresh, place.words(**DROPPING), before=During("nfa.registry.training.loop", "Training._update", TERM, 6)
    )
    assert ended.code == 143, ended.output
    (run_id,) = fresh.runs()
    state = torch.load(fresh.artifact(run_id, "state/latest.pt"), weights_only=True)
    assert state["progress"]["epoch"] + state["progress"]["batch"] in (5, 6)
    assert all(".lora_" in name for name in state["model"]), "frozen weights are not stored again"


# ---- what a continued run may be asked for


def test_resume_with_anything_else_is_refused_and_the_run_can_still_be_continued(fresh: Store, tmp_path: Path) -> None:
    place = Place.made(tmp_path / "place")
    ended = place.launch(fresh, place.words(), before=During("nfa.registry.training.optimizers", STEP, TERM, 4))
    assert ended.code == 143, ended.output
    (run_id,) = fresh.runs()
    other = write_questions(tmp_path / "other.jsonl", 20)
    with pytest.MonkeyPatch.context() as patch, used(fresh, patch), used_place(place):
        assert_not_resumed(run_id, r"resume with rank=2 \(the run has 4\)", rank=2)
        assert_not_resumed(run_id, r"resume with init=pissa \(the run has random\)", init="pissa")
        assert_not_resumed(run_id, rf"resume with steps=9 \(the run has {STEPS}\)", steps=9)
        assert_not_resumed(run_id, "other.jsonl with digest", data=str(other))
        write_questions(tmp_path / "place" / "questions.jsonl", 21)
        assert_not_resumed(run_id, "questions.jsonl with digest")
        lora_runs.base_folder(tmp_path / "place" / "base", seed=1, **SIZES)
        moved = write_questions(tmp_path / "moved" / "questions.jsonl")
        assert_not_resumed(run_id, "base model .* with digest", data=str(moved))
        lora_runs.base_folder(tmp_path / "base", **SIZES)
        assert fresh.tags(run_id)["nfa.state"] == "killed"
        with undrawn():
            train(TrainLoraConfig(resume=run_id, data=str(moved), base_model=str(tmp_path / "base")), Stopwatch())
        assert fresh.tags(run_id)["nfa.state"] == "finished"


def assert_not_resumed(run_id: str, said: str, **asked: Any) -> None:
    with pytest.raises(Refusal, match=said):
        train(TrainLoraConfig(resume=run_id, **asked), Stopwatch())


def test_a_run_from_factors_goes_on_without_the_run_of_its_factors(fresh: Store, whole: Whole) -> None:
    place = whole.place
    with pytest.MonkeyPatch.context() as patch, used(fresh, patch), used_place(place):
        factors = factor_run(place)
    argv = place.words(init="svd", factors=factors[:12])
    ended = place.launch(fresh, argv, before=During("nfa.registry.training.optimizers", STEP, TERM, 4))
    assert ended.code == 143, ended.output
    (run_id,) = set(fresh.runs()) - {factors}
    before = fresh.json(run_id, "config.json")
    assert before["train"]["factors"] == before["factors"]["run_id"] == factors
    fresh.artifact(factors, "svd_factors_rank4.safetensors").unlink()
    ended = place.launch(fresh, words(resume=run_id))
    assert ended.code == 0, ended.output
    assert fresh.json(run_id, "config.json") == before
