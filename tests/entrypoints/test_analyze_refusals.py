"""What `analyze` refuses: exit 2, one message that says what to do, and no run in the store."""

from pathlib import Path

import pytest

from nfa.errors import Refusal
from nfa.registry import cli
from nfa.registry.analyses.config import AnalyzeConfig
from tests.support.analyses import analysed
from tests.support.processes import run, words
from tests.support.refusals import Refused, assert_refused_before_anything_heavy
from tests.support.stores import Finished, wrapper_in

EARLY = {
    "one direction": ("--directions 1", "directions='1'", "auto, all, or a whole number ≥ 2", "directions=2"),
    "no direction": ("--directions 0", "directions='0'", "auto, all, or a whole number ≥ 2", "directions=2"),
    "negative": ("--directions -2", "directions='-2'", "auto, all, or a whole number ≥ 2", "directions=2"),
    "not whole": ("--directions 2.5", "directions='2.5'", "auto, all, or a whole number ≥ 2", "directions=2"),
    "words": ("--directions few", "directions='few'", "auto, all, or a whole number ≥ 2", "directions=2"),
    "empty": ("--directions=", "directions=''", "auto, all, or a whole number ≥ 2", "directions=2"),
    "jacobian": (
        "--directions 2 --centre jacobian",
        "centre=jacobian with directions=2",
        "directions=all, since",
        "directions=all",
    ),
    "root": ("--directions 3 --agop_power 0.5", "agop_power=0.5 with directions=3", "directions=all", "directions=all"),
    "relation": ("--relations agop_nfm,cka", "relations=cka", "agop_nfm, ", "choose some of these"),
    "no relation": ("--relations=", "relations=", "agop_nfm, ", "choose some of these"),
    "glob": ("--relations zz_*", "relations=zz_*", "globs, or all", "choose some of these"),
    "centre": ("--centre mean", "centre='mean'", "none, entry, jacobian", "centre="),
    "power": ("--agop_power 2", "agop_power='2'", "1, 0.5", "agop_power="),
    "positions": ("--positions all", "positions='all'", "each, sum", "positions="),
    "precision": ("--precision float16", "precision='float16'", "float32, bfloat16, float64", "precision="),
    "epochs": ("--epochs 1,x", "epochs '1,x' (at 'x')", "a-b/step", "0-20"),
    "backwards": ("--epochs 4-1", "epochs '4-1'", "a ≤ b", "correct '4-1'"),
    "batch": ("--batch_size 0", "batch_size=0", "a whole number ≥ 1", "1024"),
    "top": ("--top_k 0", "top_k=0", "a whole number ≥ 1", "10"),
    "processes": ("--nproc 0", "nproc=0", "a whole number ≥ 1", "1"),
    "examples": ("--max_samples -1", "max_samples=-1", "a whole number ≥ 0", "0"),
    "parameter": ("--epoch 3", "parameter 'epoch'", "run_id, epochs", "did you mean --epochs?"),
}


@pytest.mark.parametrize("case", EARLY)
def test_bad_words_are_refused_with_what_was_got_what_is_allowed_and_what_to_do(case: str) -> None:
    text, *parts = EARLY[case]
    with pytest.raises(Refusal) as refusal:
        cli.parse(AnalyzeConfig, text.split())
    assert refusal.value.exit_code == 2
    for part, line in zip(parts, str(refusal.value).splitlines(), strict=True):
        assert part in line


@pytest.mark.parametrize("case", ["one direction", "words", "jacobian", "relation", "backwards"])
def test_refusing_them_in_a_real_process_loads_neither_torch_nor_mlflow(case: str, tmp_path: Path) -> None:
    text, got, *_ = EARLY[case]
    assert_refused_before_anything_heavy("analyze", text, got, tmp_path)


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Refused:
    return Refused("analyze", monkeypatch, capsys)


LATE = {
    "unknown site": ("--sites conv*,layer_0", "sites=conv*", "layer_0, layer_1, layer_2", "name some, by globs"),
    "missing epoch": ("--epochs 0-4", "epochs=0-4 (there is no 3)", "the run's checkpoints: 0, 1, 2, 4", "epochs=all"),
    "epochs beyond": ("--epochs 2,99", "epochs=2,99 (there is no 99)", "checkpoints: 0, 1, 2, 4", "epochs=all"),
    "examples": ("--max_samples 1150", "max_samples=1150", "0 (all) to 1,149 examples", "max_samples=0"),
    "device": ("--device gpu", "device='gpu'", "auto, cpu", "device=auto"),
    "unknown run": ("--run_id zzz", "run id 'zzz'", "a run in sqlite:", "copy the id from the MLflow UI"),
    "no id": ("--run_id=", "run id ''", "a run id or its first letters", "copy the id"),
    "not an id": ("--run_id a/b", "run id 'a/b'", "letters and digits", "copy the id"),
    "exponent": (
        "--directions 2 --relations g_vs_h,agop_nfm_exponent",
        "relations=agop_nfm_exponent (it needs directions=all)",
        "relations available here",
        "leave it out",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", LATE)
def test_what_the_run_does_not_have_is_refused_and_no_run_is_made(
    case: str, refused: Refused, changeable: Finished
) -> None:
    text, *parts = LATE[case]
    lines = refused(text.split()).splitlines()
    for part, line in zip(parts, lines, strict=True):
        assert part in line
    assert changeable.store.runs() == [changeable.run_id]


def test_an_analysis_s_own_id_is_refused(refused: Refused, changeable: Finished) -> None:
    made = analysed(changeable.store, max_samples=9)
    said = refused(words(run_id=made))
    assert f"run_id={made} (an analysis)" in said
    assert f"do: run_id={changeable.run_id}" in said


def test_init_removed_by_name_without_epoch_0_is_refused(refused: Refused, changeable: Finished) -> None:
    changeable.store.artifact(changeable.run_id, "checkpoints/epoch_0000.safetensors").unlink()
    said = refused(words(relations="agop_nfm_init_removed"))
    assert "relations=agop_nfm_init_removed (there is no checkpoint 0)" in said
    assert changeable.store.runs() == [changeable.run_id]


def test_output_dir_that_cannot_be_written_is_refused_before_any_work(
    refused: Refused, changeable: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr("nfa.registry.analyses.alignment.AlignmentOfRun", None)
    for folder in ("file", "file/below"):
        said = refused(words(output_dir=tmp_path / folder))
        assert f"output_dir={tmp_path / folder}" in said
        assert "a folder that can be written" in said
    assert changeable.store.runs() == [changeable.run_id]
    assert (tmp_path / "file").read_text() == ""


def test_data_that_are_not_the_run_s_are_refused(
    refused: Refused, changeable: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nfa.registry.datasets.images.ImageData.digest", lambda _: "0" * 64)
    said = refused([])
    assert "digits with digest 000000000000" in said
    assert "use the data the run was trained on" in said
    assert changeable.store.runs() == [changeable.run_id]


def test_more_processes_than_examples_are_refused(refused: Refused, changeable: Finished) -> None:
    """By the first process as a launcher starts it."""
    refused.monkeypatch.setattr("nfa.registry.analyses.alignment.World.launched", lambda: True)
    refused.monkeypatch.setattr("nfa.registry.analyses.alignment.World.joined", lambda: Alone())
    said = refused(words(nproc=3, max_samples=2))
    assert "nproc=3 for 2 examples" in said
    assert "do: nproc=1" in said
    assert changeable.store.runs() == [changeable.run_id]


class Alone:
    """The first of three processes whose others hear nothing."""

    rank, size = 0, 3

    def broadcast(self, item: object) -> object:
        return item

    def close(self) -> None:
        pass


def test_a_refusal_under_mlflow_run_marks_its_run_failed(changeable: Finished) -> None:
    wrapper = wrapper_in(changeable.store)
    env = {"MLFLOW_RUN_ID": wrapper, "MLFLOW_EXPERIMENT_ID": "0"}
    ended = run(changeable.store, words(sites="conv"), entrypoint="analyze", **env)
    assert ended.code == 2
    assert changeable.store.tags(wrapper)["nfa.state"] == "failed"
    assert "sites=conv" in changeable.store.tags(wrapper)["nfa.error"]
    assert changeable.store.status(wrapper) == "FAILED"
    assert changeable.store.runs() == [changeable.run_id, wrapper]
