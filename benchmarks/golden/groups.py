"""All that is played, the longest groups first."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.golden import materials
from benchmarks.golden.masks import ROOT
from benchmarks.golden.plays import Group, Step

Words = Mapping[str, Any]
TINY: Words = {"width": 8, "depth": 2, "epochs": 4, "schedule": "0-2,4", "batch_size": 64, "device": "cpu"}
LONG: Words = {**TINY, "optimizer": "adam", "lr": 0.01, "epochs": 120, "schedule": "0,5,60,120"}
EEG: Words = {
    "subjects": 2, "stimuli": 2, "seconds": 40, "channels": 3, "window_seconds": 2.0, "d_model": 8, "d_inner": 8,
    "n_layers": 1, "n_head": 2, "conv_kernel_size": 3, "epochs": 3, "eval_every": 2, "histograms_every": 2,
    "schedule": "0,2", "batch_size": 6, "windows_per_recording": 4, "device": "cpu",
}  # fmt: skip
ABLATION: Words = {**EEG, "epochs": 2, "seeds": "1,2", "switches": "gradient_scale", "histograms_every": 0}
QUESTIONS = f"{materials.GIVEN}/questions.jsonl"
LORA: Words = {
    "data": QUESTIONS, "rank": 4, "alpha": 6.0, "lr": 0.02, "batch_size": 2, "accumulation": 2, "max_length": 70,
    "device": "cpu",
}  # fmt: skip
TUNED: Words = {**LORA, "schedule": "0,2", "eval_every": 3, "steps": 6, "seed": 3}
NAMED = ("train", "train_eeg", "train_lora", "import_checkpoints", "prepare_eeg")
SEARCH: Words = {"study_name": "s", "n_trials": 5, "seed": 7}


def step(name: str, /, killed_at: str = "", unsaid: bool = False, **words: Any) -> Step:
    """Of an entry point, the first word of the name; trainings are named, as MLflow would draw a name for them."""
    entrypoint = name.split()[0]
    if entrypoint in NAMED and not {"resume", "help"} & words.keys():
        words = {**words, "run_name": name}
    return Step(name, f"entrypoints.{entrypoint}", words, killed_at, unsaid)


def assignments(words: Words) -> str:
    """For `fixed` of tune."""
    return ",".join(f"{name}={value}" for name, value in words.items() if name not in ("device", "data"))


CLASSIFIER = Group(
    "classifier",
    [
        step("train sgd", **TINY),
        step("train ghm", **TINY, optimizer="adam", lr=0.01, weighting="ghm", loss="cross-entropy", ghm_bins=5),
        step("train muon", **TINY, optimizer="muon", label_noise=0.3),
        step("analyze one", run_id="{train sgd}", relations="all", output_dir="copied"),
        step("analyze two", run_id="{train sgd},{train ghm}", nproc=2, epochs="0,4"),
        step("analyze options", run_id="{train muon}", centre="jacobian", agop_power=0.5, directions="all",
             positions="sum", precision="float64", max_samples=200, sites="layer_1"),
        step("analyze random", run_id="{train muon}", centre="entry", directions=3, max_samples=200, epochs="4"),
        step("gradient_directions one", run_id="{train sgd}", epochs="0,4", n=24),
        step("gradient_directions two", run_id="{train sgd},{train ghm}", epochs="all", n=24, unit="batch",
             batch_size=4, loss="plain"),
        step("gradient_flow one", run_id="{train sgd}"),
        step("gradient_flow two", run_id="{train sgd},{train ghm}", n=32),
    ],
)  # fmt: skip
MORE = Group(
    "more trainings",
    [
        step("train all", **TINY, optimizer="all"),
        step("train bfloat16", **TINY, precision="bfloat16", optimizer="adam"),
        step("train killed", **LONG, killed_at="artifacts/checkpoints/epoch_0005.safetensors"),
        step("train resumed", unsaid=True, resume="{train killed}"),
        step("train refused", **{**TINY, "epochs": 0}),
        step("import_checkpoints", folder=materials.GIVEN, device="cpu"),
        step("analyze imported", run_id="{import_checkpoints}"),
        step("analyze all", run_id="{train all}", epochs="4"),
        step("demo", epochs=2, width=8, depth=2, output_dir="out"),
    ],
    materials.old_networks,
)  # fmt: skip
DECODER = Group(
    "decoder",
    [
        step("prepare_eeg", source=materials.GIVEN, target="prepared", eeg_rate=250, envelope_rate=128, highpass=0.5),
        step("prepare_eeg fif", source=f"{materials.GIVEN}/fif", target="prepared-fif", envelope_rate=128),
        step("train_eeg", **EEG),
        step("train_eeg prepared", **{**EEG, "data_dir": "prepared", "preset": "v1", "optimizer": "sgd", "lr": 0.01}),
        step("train_eeg killed", **{**EEG, "epochs": 30, "schedule": "0,2,20"},
             killed_at="artifacts/checkpoints/epoch_0002.safetensors"),
        step("train_eeg resumed", unsaid=True, resume="{train_eeg killed}"),
        step("analyze", run_id="{train_eeg}", max_samples=6, relations="all"),
        step("gradient_directions", run_id="{train_eeg}", epochs="all", n=8),
        step("gradient_flow", run_id="{train_eeg}", n=6),
        step("ablate_eeg", **ABLATION),
    ],
    materials.recordings,
)  # fmt: skip
LANGUAGE = Group(
    "language model",
    [
        step("train_lora", **TUNED),
        step("synthesize_teacher", run_id="{train_lora}", target_rank=8),
        step("lora_svd", run_id="{synthesize_teacher}", rank=4, output_dir="copied"),
        step("train_lora svd", **TUNED, init="svd", start="warm", factors="{lora_svd}"),
        step("train_lora pissa", **TUNED, init="pissa"),
        step("train_lora full", **{**TUNED, "lr": 0.002}, init="full"),
        step("compare_lora", run_id="{train_lora},{train_lora svd},{train_lora pissa}"),
        step("analyze", run_id="{train_lora}", max_samples=4, epochs="0,6"),
        step("gradient_directions", run_id="{train_lora}", epochs="all", n=6),
        step("gradient_flow", run_id="{train_lora}", n=6),
        step("lora_experiment", **LORA, train_steps=3, target_rank=8, seeds="1,2"),
    ],
    materials.questions,
)  # fmt: skip
TUNING = Group(
    "tuning",
    [
        step("tune", **SEARCH, fixed=assignments(TINY), space="lr=log:1e-4:1,optimizer=sgd|adam", confirm=2,
             pruner="median", sampler="random"),
        step("tune eeg", **{**SEARCH, "study_name": "e", "n_trials": 2}, workload="eeg", confirm=1,
             fixed=assignments({**EEG, "histograms_every": 0}), space="lr=log:1e-3:1e-2,gradient_scale=1:4"),
        step("tune lora", **{**SEARCH, "study_name": "l", "n_trials": 2}, workload="lora", confirm=0,
             fixed="max_items=24,eval_items=4,batch_size=2,accumulation=2",
             space="rank=2|4,lr=log:1e-3:1e-2,init=random|pissa"),
    ],
)  # fmt: skip
WORKERS = Group(
    "two workers",
    [
        step("tune", **SEARCH, n_workers=2, fixed=assignments(TINY), space="lr=log:1e-4:1", confirm=0, pruner="none",
             sampler="random"),
    ],
    loose=True,
)  # fmt: skip
WATCHED = Group("watched", [Step("loops", "benchmarks.golden.watched")])
NAMES = sorted(path.stem for path in (ROOT / "entrypoints").glob("[!_]*.py"))
HELP = Group("help", [step(f"{name} help", help="") for name in NAMES])
GROUPS: Sequence[Group] = (LANGUAGE, MORE, DECODER, CLASSIFIER, TUNING, HELP, WORKERS, WATCHED)
SOME = ("train sgd", "train ghm", "analyze one", "gradient_flow two")
QUICK = dataclasses.replace(CLASSIFIER, steps=[one for one in CLASSIFIER.steps if one.name in SOME])
