"""LoRA factors of adapters, full fine-tunings, synthesised teachers and pairs of models: what a run holds."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from nfa import reference
from nfa.errors import Refusal
from nfa.registry import cli, tracking
from nfa.registry.families.language.base.models import find_base
from nfa.registry.families.language.teacher.config import LoraSvdConfig, SynthesizeTeacherConfig
from nfa.registry.families.language.teacher.lora_svd import lora_svd
from nfa.registry.families.language.teacher.synthesize_teacher import synthesize_teacher
from nfa.registry.families.language.teacher.updates import updates_of
from tests.support import lora_runs
from tests.support.analyses import undrawn
from tests.support.stores import Store

RANK, ALPHA = 4, 2.0

start = cli.starter("lora_svd")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NFA_CACHE", str(tmp_path / "cache"))


def asked(**options: Any) -> LoraSvdConfig:
    return LoraSvdConfig(**{"rank": RANK, "alpha": ALPHA, **options})


def made(**options: Any) -> str:
    with undrawn():
        return lora_svd(asked(**options)).run_id


def factors(store: Store, run_id: str, rank: int = RANK) -> dict[str, Tensor]:
    return load_file(store.artifact(run_id, f"svd_factors_rank{rank}.safetensors"))


def told(store: Store, run_id: str) -> dict[str, str]:
    with safe_open(store.artifact(run_id, f"svd_factors_rank{RANK}.safetensors"), "pt") as file:
        return {name: text for name, text in file.metadata().items() if name != "digest"}


def assert_nearest(store: Store, run_id: str, updates: dict[str, Tensor], *, rel: float = 1e-4) -> None:
    """Factors are balanced and give the nearest matrix of their rank; the analysis says what the reference says."""
    tensors = factors(store, run_id)
    analysis = store.json(run_id, f"svd_analysis_rank{RANK}.json")
    assert set(tensors) == {f"{name}.lora_{part}.weight" for name in updates for part in "AB"}
    for name, W in updates.items():
        a, b = (tensors[f"{name}.lora_{part}.weight"] for part in "AB")
        assert (a.shape, b.shape, a.dtype) == ((RANK, W.shape[1]), (W.shape[0], RANK), torch.float32)
        u, s, vh = reference.truncated_svd(W, RANK)
        nearest = (u * s) @ vh
        product = ALPHA / RANK * b.double() @ a.double()
        torch.testing.assert_close(product, nearest, atol=rel * float(s[0]), rtol=0)
        torch.testing.assert_close(b.T @ b, a @ a.T, atol=1e-4 * float(b.square().sum()), rtol=0)
        one = analysis["modules"][name]
        assert one["shape"] == list(W.shape)
        assert one["energy_ratio"] == pytest.approx(reference.energy_ratio(W, RANK), rel=rel)
        assert one["relative_error"] == pytest.approx(reference.truncation_error(W, product), rel=rel, abs=1e-6)
        assert one["norm"] == pytest.approx(float(W.norm()), rel=rel)
        assert set(one["energy_by_rank"]) == {str(r) for r in (4, 8, 16, 32) if r <= min(W.shape)}
        for rank, energy in one["energy_by_rank"].items():
            assert energy == pytest.approx(reference.energy_ratio(W, int(rank)), rel=rel)


def test_run_of_an_adapter_holds_factors_analysis_report_and_figure(store: Store, tmp_path: Path) -> None:
    source = lora_runs.adapter_run(rank=8, alpha=8)
    start(asked(run_name="svd", output_dir=str(tmp_path / "out")))
    run_id = store.named()["svd"]
    tags = store.tags(run_id)
    assert (tags["nfa.entrypoint"], tags["nfa.workload"], tags["nfa.state"]) == ("lora_svd", "lora", "finished")
    assert tags["nfa.source_run_ids"] == source.run_id
    kinds = {"config.json", "svd_factors_rank4.safetensors", "svd_analysis_rank4.json", "svd_report_rank4.txt"}
    pictures = {"plots/svd_analysis_rank4.png", "plots/svd_analysis_rank4.pdf"}
    for folder, series in ((store.artifact(run_id), {"series.npz", "plots/preview.png"}), (tmp_path / "out", set())):
        assert {str(path.relative_to(folder)) for path in folder.rglob("*.*")} == kinds | pictures | series
    assert_nearest(store, run_id, dict(source.updates))
    means = store.json(run_id, "svd_analysis_rank4.json")["means"]
    flops = float(told(store, run_id)["init_flops"])
    rows = {key: (step, value) for key, step, value in store.metrics(run_id)}
    assert rows == {
        "lora/energy_ratio": (0, pytest.approx(means["energy_ratio"])),
        "lora/relative_error": (0, pytest.approx(means["relative_error"])),
        "nfa/flops": (0, flops),
    }
    assert flops > 0
    assert told(store, run_id) == {
        "rank": "4", "alpha": "2", "base_name": "tiny", "base_digest": lora_runs.DIGEST,
        "source_run_id": source.run_id, "circular": "false", "init_flops": told(store, run_id)["init_flops"],
    }  # fmt: skip
    report = store.artifact(run_id, "svd_report_rank4.txt").read_text()
    assert "circular" not in report
    assert all(module in report for module in source.updates)


def test_update_of_a_residual_adapter_lacks_what_was_taken_out_of_the_base(store: Store) -> None:
    source = lora_runs.adapter_run(rank=4, alpha=8, residual=True)
    assert_nearest(store, made(), dict(source.updates))


def test_full_rank_of_an_adapter_gives_the_adapter_back(store: Store) -> None:
    lora_runs.adapter_run(rank=4)
    analysis = store.json(made(), "svd_analysis_rank4.json")
    assert analysis["means"]["relative_error"] < 1e-6
    assert analysis["means"]["energy_ratio"] == pytest.approx(1, abs=1e-12)


def test_full_fine_tuning_is_compared_with_its_base(store: Store, tmp_path: Path) -> None:
    base = lora_runs.base_folder(tmp_path / "base")
    source = lora_runs.full_run(base)
    run_id = made()
    assert_nearest(store, run_id, dict(source.updates))
    assert told(store, run_id)["base_digest"] == find_base(str(base)).digest
    base.rename(tmp_path / "moved")
    again = made(run_id=source.run_id, base_model=str(tmp_path / "moved"))
    assert all(torch.equal(one, factors(store, again)[name]) for name, one in factors(store, run_id).items())


def test_any_two_models_are_compared_in_their_targets(store: Store, tmp_path: Path) -> None:
    base = lora_runs.base_folder(tmp_path / "base")
    tuned = lora_runs.base_folder(tmp_path / "tuned", seed=1)
    run_id = made(teacher=str(tuned), base_model=str(base), targets="q_proj,down_proj")
    before, after = (load_file(folder / "model.safetensors") for folder in (base, tuned))
    names = [name for name in lora_runs.shapes() if name.endswith(("q_proj", "down_proj"))]
    updates = {name: (after[f"{name}.weight"] - before[f"{name}.weight"]).double() for name in names}
    assert_nearest(store, run_id, updates)
    assert "nfa.source_run_ids" not in store.tags(run_id)
    assert told(store, run_id)["circular"] == "false"


def test_layers_that_keep_their_weights_transposed_have_factors_for_their_own_direction(
    store: Store, tmp_path: Path
) -> None:
    """GPT-2's Conv1D has weight [i o]; an adapter on it has A [r i] and B [o r] all the same."""
    folders = [lora_runs.gpt2_folder(tmp_path / name, seed=seed) for seed, name in enumerate(("base", "tuned"))]
    run_id = made(teacher=str(folders[1]), base_model=str(folders[0]), targets="c_attn,c_fc")
    before, after = (load_file(folder / "model.safetensors") for folder in folders)
    names = {"transformer.h.0.attn.c_attn": (48, 16), "transformer.h.0.mlp.c_fc": (64, 16)}
    updates = {name: (after[f"{name}.weight"] - before[f"{name}.weight"]).double().T for name in names}
    assert {name: tuple(W.shape) for name, W in updates.items()} == names
    assert_nearest(store, run_id, updates)


def test_synthesised_teacher_is_taken_with_its_noise_and_said_to_be_circular(store: Store) -> None:
    lora_runs.adapter_run(rank=4)
    with undrawn():
        teacher = synthesize_teacher(SynthesizeTeacherConfig(target_rank=8, noise_scale=0.5)).run_id
    run_id = made(run_id=teacher)
    source = updates_of(teacher, "auto")
    updates = {name: source.read(name).double() for name in source.shapes}  # type: ignore[union-attr]
    assert_nearest(store, run_id, updates)
    assert told(store, run_id)["circular"] == "true"
    assert "circular" in store.artifact(run_id, "svd_report_rank4.txt").read_text()
    assert store.json(run_id, "svd_analysis_rank4.json")["modules"]["model.layers.0.mlp.up_proj"]["numerical_rank"] > 8


@pytest.mark.usefixtures("store")
def test_titles_say_what_was_trained_on_what_without_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[str] = []
    monkeypatch.setattr(tracking, "save_picture", lambda _, figure, *__: drawn.append(figure.get_suptitle()))
    lora_runs.adapter_run(rank=4)
    teacher = synthesize_teacher(SynthesizeTeacherConfig(target_rank=8)).run_id
    lora_svd(asked(run_id=teacher))
    trained = "tiny on arithmetic, LoRA of rank 4, init=random, step 10"
    first, second = (" ".join(title.split()) for title in drawn)
    assert first == f"{trained}: 4 triplets kept, 8 in the teacher"
    assert second == f"teacher made from {trained}: {len(lora_runs.shapes())} modules"


def test_zero_modules_have_zero_factors_and_are_left_out_of_the_means(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    zero = list(lora_runs.shapes())[2]
    lora_runs.adapter_run(rank=8, zero=[zero])
    run_id = made()
    analysis = store.json(run_id, "svd_analysis_rank4.json")
    assert analysis["zero_modules"] == [zero]
    assert not {"energy_ratio", "relative_error", "stable_rank"} & set(analysis["modules"][zero])
    others = [one["energy_ratio"] for name, one in analysis["modules"].items() if name != zero]
    assert analysis["means"]["energy_ratio"] == pytest.approx(sum(others) / len(others))
    assert not factors(store, run_id)[f"{zero}.lora_B.weight"].any()
    assert "1 modules have a zero update" in capsys.readouterr().out


def test_modules_of_lower_rank_are_told(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    source = lora_runs.adapter_run(rank=4)

    def lower(tensors: dict[str, torch.Tensor]) -> None:
        name = next(name for name in tensors if "lora_B" in name)
        tensors[name][:, 1:] = tensors[name][:, :1].clone()

    store.change_tensors(source.run_id, "checkpoints/step_000010.safetensors", lower)
    made()
    assert "1 modules have an update of rank below 4" in capsys.readouterr().out


def test_as_a_step_it_is_a_child_of_the_experiment(store: Store) -> None:
    source = lora_runs.adapter_run()
    with tracking.open_run("lora_experiment", "lora") as parent, undrawn():
        child = lora_svd(asked(run_id=source.run_id), parent)
    assert store.tags(child.run_id)["mlflow.parentRunId"] == parent.run_id


def test_the_same_model_twice_has_no_update(store: Store, tmp_path: Path) -> None:
    base = lora_runs.base_folder(tmp_path / "base")
    with pytest.raises(Refusal, match="the update of every module is zero"):
        start(LoraSvdConfig(rank=4, teacher=str(base), base_model=str(base)))
    assert store.tags(store.runs()[-1])["nfa.state"] == "failed"
