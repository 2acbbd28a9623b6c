"""Reports, figure and final model of one fine-tuning."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch.nn as nn
from torch import Tensor

from nfa import unfinished
from nfa.console import stage
from nfa.figures.training_analysis import Series
from nfa.plain_text import csv_text
from nfa.registry import tracking
from nfa.registry.families.language import adapters
from nfa.registry.families.language.base.model_names import KNOWN
from nfa.registry.families.language.base.models import BaseModel, load_tokenizer
from nfa.registry.families.language.base.quiet import quiet
from nfa.registry.families.language.compute import operations_by_step
from nfa.registry.families.language.family import LanguageModels
from nfa.registry.families.language.figures.fine_tuning import loss_curves
from nfa.registry.families.language.scores import AnswerScores
from nfa.registry.families.language.workload import LanguageModel
from nfa.registry.tracking import TrackedRun
from nfa.registry.training.over_seeds import last_values

HEADER = ("step", "epoch", "init_method", "loss", "learning_rate", "grad_norm", "eval_loss")
COLUMNS = {
    "loss": "train/step_loss",
    "learning_rate": "train/learning_rate",
    "grad_norm": "train/grad_norm",
    "eval_loss": "eval/loss",
}


def answers(run: TrackedRun, workload: LanguageModel, steps: Sequence[int], sums: Tensor) -> None:
    """arrays/eval_losses.npy [evaluations, questions], summed over each answer's tokens, and what its sides are."""
    lengths, starts = workload.questions.ids, workload.questions.starts
    tokens = [len(lengths[item]) - starts[item] for item in workload.ids("val")]
    tracking.put_array(run.info, "arrays/eval_losses.npy", sums.numpy())
    sides = {"steps": list(steps), "ids": list(workload.ids("val")), "tokens": tokens}
    tracking.put_json(run.info, "arrays/eval_losses.json", sides)


def stored_answers(run_id: str) -> dict[int, AnswerScores]:
    """Scores of the held-out questions by evaluation, as a finished run stored them."""
    from torch import from_numpy, tensor

    sides = tracking.get_json(run_id, "arrays/eval_losses.json")
    table = from_numpy(tracking.get_array(run_id, "arrays/eval_losses.npy"))
    with tracking.reading_of(run_id, "arrays/eval_losses.json"):
        tokens = tensor(sides["tokens"])
        return {step: AnswerScores(sides["ids"], table[row], tokens) for row, step in enumerate(sides["steps"])}


def report_seeds(parent: TrackedRun, series: Mapping[str, Series], seeds: Sequence[int], title: str) -> None:
    """Write results.json and the figure of means over seeds."""
    tracking.put_json(parent.info, "results.json", last_values(series, seeds))
    tracking.save_picture(parent, loss_curves(series, title=title), "loss_curves")
    stage("figure", "plots/loss_curves.png and .pdf")


def report(run: TrackedRun, workload: LanguageModel, series: Mapping[str, Series]) -> None:
    """Write training_log_{init}.csv, results.json and plots/loss_curves_{init}."""
    config = workload.config
    tracking.put_text(run.info, f"training_log_{config.init}.csv", table(workload, series))
    losses = series["eval/loss"]
    best = min(losses, key=lambda step: losses[step])
    found: dict[str, Any] = {
        "init": config.init,
        "start": config.start if config.init == "svd" else None,
        "steps": workload.steps,
        "initial_loss": losses[0],
        "final_loss": losses[workload.steps],
        "best_loss": losses[best],
        "best_step": best,
        "operations": operations_by_step(series)[workload.steps],
        "held_out": len(workload.ids("val")),
    }
    tracking.put_json(run.info, "results.json", found)
    title = LanguageModels().title(tracking.config(run.run_id))
    tracking.save_picture(run, loss_curves(series, title=title), f"loss_curves_{config.init}")
    stage("figure", f"plots/loss_curves_{config.init}.png and .pdf")


def table(workload: LanguageModel, series: Mapping[str, Series]) -> str:
    """Return the content of training_log_{init}.csv: one row per step; unmeasured values are empty."""
    steps, init = range(workload.steps + 1), workload.config.init
    measured = [series.get(key, {}) for key in COLUMNS.values()]
    return csv_text(
        HEADER,
        (
            (step, round(step / workload.steps_per_epoch, 4), init, *(of_key.get(step, "") for of_key in measured))
            for step in steps
        ),
    )


def save_model(run: TrackedRun, workload: LanguageModel, model: nn.Module) -> None:
    """final_model_{init}/: an adapter for the base as published, or the whole model, and its tokenizer."""
    init = workload.config.init
    with tempfile.TemporaryDirectory(dir=unfinished.place()) as scratch:
        folder = Path(scratch)
        if init == "full":
            with quiet():
                model.save_pretrained(folder)  # type: ignore[operator]
                load_tokenizer(workload.base.folder).save_pretrained(folder)
        else:
            initial = workload.initial if workload.config.residual else None
            adapter = adapters.over_pristine(adapters.read_adapter(model), initial)
            targets, base = workload.config.target_list, _findable(workload.base)
            adapters.save_adapter(folder, adapter, scaling=workload.scaling, targets=targets, base=base)
        for file in sorted(folder.iterdir()):
            tracking.put_file(run.info, f"final_model_{init}/{file.name}", file)
    stage("model", f"final_model_{init}/")


def _findable(base: BaseModel) -> str:
    """Return a name by which other programs can find the base model."""
    return str(base.folder) if base.name in KNOWN or Path(base.name).suffix == ".gguf" else base.name
