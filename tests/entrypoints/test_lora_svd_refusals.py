"""What lora_svd refuses, and that there is then no run."""

from pathlib import Path
from typing import Any

import pytest

from nfa.errors import Refusal
from nfa.registry import cli
from nfa.registry.families.language.teacher.config import LoraSvdConfig
from tests.support import lora_runs
from tests.support.refusals import Refused, assert_refused_before_anything_heavy
from tests.support.stores import Store

start = cli.starter("lora_svd")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NFA_CACHE", str(tmp_path / "cache"))


def asked(**options: Any) -> LoraSvdConfig:
    return LoraSvdConfig(**{"rank": 4, **options})


REFUSED = {
    "rank": ({"rank": 5}, "rank=5 for model.layers.0.self_attn.q_proj, whose update has at most rank 4"),
    "no rank": ({"rank": 0}, "rank=0\n  allowed: a whole number ≥ 1"),
    "checkpoint": ({"checkpoint": 7}, r"checkpoint=7 of run \w+\n  allowed: its checkpoints: 0, 10"),
    "two sources": ({"run_id": "abc", "teacher": "tiny"}, "run_id=abc with teacher=tiny"),
    "no base": ({"teacher": "tiny"}, "teacher=tiny without base_model"),
    "no targets": ({"teacher": "tiny", "base_model": "tiny", "targets": " ,"}, "targets=' ,'"),
    "alpha": ({"alpha": 0.0}, "alpha=0.0\n  allowed: a number > 0"),
    "run": ({"run_id": "nosuchrun"}, "run id 'nosuchrun'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_is_refused_before_there_is_a_run(case: str, store: Store) -> None:
    options, message = REFUSED[case]
    lora_runs.adapter_run(rank=4)
    with pytest.raises(Refusal, match=message):
        start(asked(**options))
    assert len(store.runs()) == 1


def test_base_that_is_not_the_run_s_is_refused(store: Store, tmp_path: Path) -> None:
    base, other = (lora_runs.base_folder(tmp_path / name, seed=seed) for seed, name in enumerate(("base", "other")))
    lora_runs.full_run(base)
    with pytest.raises(Refusal, match=r"other with digest \w{12} as the base of run(.|\n)*base with digest"):
        start(asked(base_model=str(other)))
    assert len(store.runs()) == 1


TEACHERS = {
    "fewer layers": ({"layers": 1}, r"targets without weights: model.layers.1.mlp.down_proj(.|\n)*no target: none"),
    "more layers": ({"layers": 3}, r"without weights: none; (.|\n)*no target: model.layers.2.mlp.down_proj"),
    "other shapes": ({"intermediate": 40}, r"gate_proj of \S*tuned with shape \[40, 32\]\n  allowed: shape \[48, 32\]"),
}


@pytest.mark.parametrize("case", TEACHERS)
def test_teacher_of_another_model_is_refused_with_both_lists(case: str, store: Store, tmp_path: Path) -> None:
    changed, message = TEACHERS[case]
    base, tuned = lora_runs.base_folder(tmp_path / "base"), lora_runs.base_folder(tmp_path / "tuned", **changed)
    with pytest.raises(Refusal, match=message):
        start(asked(teacher=str(tuned), base_model=str(base)))
    assert store.runs() == []


def test_unknown_targets_are_refused_with_those_that_there_are(store: Store, tmp_path: Path) -> None:
    base = lora_runs.base_folder(tmp_path / "base")
    with pytest.raises(Refusal, match=r"targets='query'(.|\n)*q_proj"):
        start(asked(teacher=str(base), base_model=str(base), targets="query"))
    assert store.runs() == []


def test_the_same_model_twice_has_no_update(store: Store, tmp_path: Path) -> None:
    base = lora_runs.base_folder(tmp_path / "base")
    with pytest.raises(Refusal, match="the update of every module is zero"):
        start(asked(teacher=str(base), base_model=str(base)))
    assert store.tags(store.runs()[-1])["nfa.state"] == "failed"


def test_checkpoint_of_a_teacher_is_refused(store: Store) -> None:
    from nfa.registry.families.language.teacher.config import SynthesizeTeacherConfig
    from nfa.registry.families.language.teacher.synthesize_teacher import synthesize_teacher
    from tests.support.analyses import undrawn

    lora_runs.adapter_run()
    with undrawn():
        teacher = synthesize_teacher(SynthesizeTeacherConfig(target_rank=8)).run_id
    with pytest.raises(Refusal, match=r"checkpoint=10 with run_id=\w+ \(a synthesised teacher\)"):
        start(asked(run_id=teacher, checkpoint=10))
    assert len(store.runs()) == 2


def test_parent_of_several_adapters_is_refused_with_their_names(store: Store) -> None:
    from nfa.registry import tracking

    children = [lora_runs.adapter_run(name=name).run_id for name in ("first", "second")]
    with tracking.open_run("lora_experiment", "lora", adopt=False) as parent:
        pass
    for child in children:
        store.change(
            "INSERT INTO tags (key, value, run_uuid) VALUES ('mlflow.parentRunId', ?, ?)", parent.run_id, child
        )
    with pytest.raises(Refusal, match=r"it stands for several(.|\n)*first(.|\n)*second"):
        start(asked(run_id=parent.run_id))


def test_refusals_are_one_message_in_a_process_that_has_loaded_nothing_heavy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (empty := tmp_path / "empty").mkdir()
    words = "--teacher nowhere/at/all --base_model tiny"
    assert_refused_before_anything_heavy("lora_svd", words, "teacher='nowhere/at/all'", empty)
    refused = Refused("lora_svd", monkeypatch, capsys)
    assert "teacher=tiny without base_model" in refused(["--teacher", "tiny"])
    assert "did you mean --rank?" in refused(["--rnk", "4"])
