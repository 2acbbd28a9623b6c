"""A teacher from a trained adapter: what its run holds, and that its noise comes back."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from nfa import reference
from nfa.errors import Refusal
from nfa.registry import cli, tracking
from nfa.registry.families.language.teacher.config import SynthesizeTeacherConfig
from nfa.registry.families.language.teacher.synthesize_teacher import synthesize_teacher
from nfa.registry.families.language.teacher.updates import updates_of
from tests.support import lora_runs
from tests.support.analyses import undrawn
from tests.support.stores import Store

FILE = "synthesized_delta_rank12.safetensors"

start = cli.starter("synthesize_teacher")


def asked(**options: Any) -> SynthesizeTeacherConfig:
    return SynthesizeTeacherConfig(**{"target_rank": 12, **options})


def made(**options: Any) -> str:
    with undrawn():
        return synthesize_teacher(asked(**options)).run_id


def test_run_holds_triplets_reports_and_figures(store: Store, tmp_path: Path) -> None:
    source = lora_runs.adapter_run(rank=4, alpha=8)
    start(asked(run_name="teacher", output_dir=str(tmp_path / "out")))
    run_id = store.named()["teacher"]
    tags = store.tags(run_id)
    assert (tags["nfa.entrypoint"], tags["nfa.workload"], tags["nfa.state"]) == (
        "synthesize_teacher",
        "lora",
        "finished",
    )
    assert tags["nfa.source_run_ids"] == source.run_id
    names = {"config.json", "results.json", "synthesis_report.txt", FILE}
    pictures = {"plots/synthesis_plots.png", "plots/synthesis_plots.pdf"}
    for folder, preview in ((store.artifact(run_id), {"plots/preview.png"}), (tmp_path / "out", set())):
        assert {str(path.relative_to(folder)) for path in folder.rglob("*.*")} == names | pictures | preview
    report = store.artifact(run_id, "synthesis_report.txt").read_text()
    assert "circular" in report
    assert all(module in report for module in lora_runs.shapes())
    assert store.json(run_id, "config.json")["synthesize_teacher"]["rank"] == 4
    assert store.params(run_id)["rank"] == "4"


def test_kept_triplets_are_those_of_the_update_at_the_chosen_checkpoint(store: Store) -> None:
    source = lora_runs.adapter_run(steps=(0, 5, 10))
    tensors = load_file(store.artifact(made(checkpoint=5), FILE))
    results = store.json(store.runs()[-1], "results.json")["modules"]
    assert set(results) == set(source.updates)
    for module, update in source.updates.items():
        u, s, vh = (tensors[f"{module}.{part}"].double() for part in ("U", "S", "Vh"))
        _, expected, _ = reference.truncated_svd(update / 2, 4)  # B has grown half way
        torch.testing.assert_close(s[:4], expected, rtol=1e-6, atol=0)
        torch.testing.assert_close((u[:, :4] * s[:4]) @ vh[:4], update / 2, atol=1e-4, rtol=0)
        assert len(s) == 12
        assert results[module]["singular_values"] == pytest.approx(s.tolist())
        assert results[module]["singular_values_before"] == pytest.approx(expected.tolist())
        assert sum(results[module]["energy"].values()) == pytest.approx(1)


def test_what_is_stored_gives_the_same_teacher_again_noise_included(store: Store) -> None:
    lora_runs.adapter_run()
    run_id = made(noise_scale=0.5)
    module = next(iter(lora_runs.shapes()))
    first, again = (updates_of(run_id, "auto").read(module) for _ in range(2))
    assert isinstance(first, torch.Tensor)
    assert torch.equal(first, again)  # type: ignore[arg-type]
    with safe_open(store.artifact(run_id, FILE), "pt") as file:
        told = file.metadata()
        u, s, vh = (file.get_tensor(f"{module}.{part}") for part in ("U", "S", "Vh"))
    noise = first - (u * s) @ vh
    assert float(torch.linalg.matrix_norm(noise, 2)) == pytest.approx(0.5 * float(s[3]), rel=0.25)
    assert (told["base_digest"], told["circular"], told["noise_seed"]) == (lora_runs.DIGEST, "true", "1717")


def test_two_runs_with_one_seed_are_bitwise_the_same_and_another_seed_is_not(store: Store) -> None:
    lora_runs.adapter_run()
    files = [load_file(store.artifact(made(seed=seed), FILE)) for seed in (1, 1, 2)]
    assert all(torch.equal(tensor, files[1][name]) for name, tensor in files[0].items())
    assert any(not torch.equal(tensor, files[2][name]) for name, tensor in files[0].items())


def test_update_of_a_residual_adapter_lacks_what_was_taken_out_of_the_base(store: Store) -> None:
    source = lora_runs.adapter_run(residual=True)
    run_id = made()
    for module, one in store.json(run_id, "results.json")["modules"].items():
        _, s, _ = reference.truncated_svd(source.updates[module], 4)
        assert one["singular_values"][:4] == pytest.approx(s.tolist(), rel=1e-5)


def test_clamped_and_zero_modules_are_told(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    zero = next(iter(lora_runs.shapes()))
    lora_runs.adapter_run(zero=[zero])
    run_id = made(target_rank=20)
    said = capsys.readouterr().out
    assert "4 modules have fewer than 20 directions" in said
    assert "1 modules have a zero update" in said
    results = store.json(run_id, "results.json")["modules"]
    assert results[zero] | {"singular_values": 0, "singular_values_before": 0} == {
        "shape": [32, 32], "kept": 1, "added": 19, "clamped": False, "zero": True, "sigma": 0.0, "energy": {},
        "singular_values": 0, "singular_values_before": 0,
    }  # fmt: skip
    assert {name for name, one in results.items() if one["clamped"]} == {
        name for name in results if "k_proj" in name or "v_proj" in name
    }
    report = store.artifact(run_id, "synthesis_report.txt").read_text()
    assert f"zero: {zero}" in report


def test_as_a_step_it_is_a_child_of_the_experiment(store: Store) -> None:
    source = lora_runs.adapter_run()
    with tracking.open_run("lora_experiment", "lora") as parent, undrawn():
        child = synthesize_teacher(asked(run_id=source.run_id), parent)
    assert store.tags(child.run_id)["mlflow.parentRunId"] == parent.run_id


def test_weights_that_are_not_finite_are_refused(store: Store) -> None:
    source = lora_runs.adapter_run()
    path = "checkpoints/step_000010.safetensors"
    store.change_tensors(source.run_id, path, lambda tensors: next(iter(tensors.values()))[0, 0].fill_(torch.nan))
    with pytest.raises(Refusal, match=r"not finite"):
        start(asked())
    assert store.tags(store.runs()[-1])["nfa.state"] == "failed"


def test_adapter_that_has_learned_nothing_is_refused(store: Store) -> None:
    lora_runs.adapter_run(residual=True)
    with pytest.raises(Refusal, match="the update of every module is zero"):
        start(asked(checkpoint=0))
    assert store.tags(store.runs()[-1])["nfa.state"] == "failed"


def test_full_disk_is_refused(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    lora_runs.adapter_run()
    monkeypatch.setattr("nfa.registry.families.language.teacher.steps.SPACE", 2**60)
    with pytest.raises(Refusal, match="MB free at"):
        start(asked())
    assert store.tags(store.runs()[-1])["nfa.state"] == "failed"
