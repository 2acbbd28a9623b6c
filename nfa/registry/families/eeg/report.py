"""Reports and figures of trainings on EEG."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch.nn as nn
from torch import Tensor

from nfa.console import stage
from nfa.figures.training_analysis import Series
from nfa.measures.evaluation import record_outputs
from nfa.plain_text import csv_text
from nfa.registry import tracking
from nfa.registry.families.eeg.data import RATE
from nfa.registry.families.eeg.family import Decoders
from nfa.registry.families.eeg.figures.decoding import DRAWN, Window, decoding, decoding_over_seeds, envelopes
from nfa.registry.families.eeg.linear_baseline import Baseline
from nfa.registry.families.eeg.scores import Scores
from nfa.registry.families.eeg.workload import EEGDecoder
from nfa.registry.tracking import TrackedRun
from nfa.registry.training.over_seeds import last_values
from nfa.workload import Batch

if TYPE_CHECKING:
    from matplotlib.figure import Figure

QUANTILES = {"best": 1.0, "median": 0.5, "worst": 0.0}


def envelope_figure(workload: EEGDecoder, model: nn.Module, val: Scores, epoch: int, title: str) -> "Figure":
    """Draw the true and decoded envelope of the best, median and worst validation window; `title` is that of the run.
    """
    ranked = [place for place in val.r.argsort().tolist() if val.r[place] == val.r[place]]
    chosen = {name: ranked[round(share * (len(ranked) - 1))] for name, share in QUANTILES.items() if ranked}
    ids = [val.ids[place] for place in chosen.values()]
    recorded: list[tuple[Tensor, Batch]] = []
    batches = workload.batches("val", batch_size=len(QUANTILES), ids=ids)
    record_outputs(model, workload, batches, lambda *pair: recorded.append(pair))
    shown = []
    for outputs, batch in recorded:
        parts = val.data.part_of(ids)
        for row, ((name, place), part) in enumerate(zip(chosen.items(), parts, strict=True)):
            where = f"{part.subject}, {part.stimulus} at {(ids[row] - part.first) / RATE:.0f} s"
            true, decoded = (signal[row, :, 0].cpu().numpy() for signal in (batch.targets, outputs))
            shown.append(Window(f"{name} window: {where}", float(val.r[place]), true, decoded))
    return envelopes(shown, rate=RATE, title=f"{title}: validation, epoch {epoch}")


def report(run: TrackedRun, scores: Mapping[str, Scores], baseline: Baseline, epoch: int) -> None:
    """Write recordings.csv, results.json and the figure of the training, for the weights of `epoch`."""
    tracking.put_text(run.info, "recordings.csv", table(scores, baseline))
    tracking.put_json(run.info, "results.json", results(scores, baseline, epoch))
    series, stored = tracking.history(run.run_id, DRAWN), tracking.config(run.run_id)
    pairs = {
        name: (baseline.recordings["test"][name], r)
        for name, r in scores["test"].recordings().items()
        if name in baseline.recordings["test"]
    }
    family = Decoders()
    figure = decoding(series, pairs, best=epoch, title=family.title(stored), loss=family.loss(stored))
    tracking.save_picture(run, figure, "training")
    stage("figure", "plots/training.png and .pdf")


def report_seeds(parent: TrackedRun, series: Mapping[str, Series], seeds: Sequence[int], title: str) -> None:
    """Write results.json and the figure of means over seeds."""
    tracking.put_json(parent.info, "results.json", last_values(series, seeds))
    loss = Decoders().loss(tracking.config(parent.run_id))
    tracking.save_picture(parent, decoding_over_seeds(series, title=title, loss=loss), "training")
    stage("figure", "plots/training.png and .pdf")


def table(scores: Mapping[str, Scores], baseline: Baseline) -> str:
    """Return the content of recordings.csv: r of the model and of the linear baseline, empty if undefined."""
    header = ("split", "recording", "subject", "pearson", "baseline_pearson")
    rows = (
        (split, name, parts[0].subject, found.recordings().get(name, ""), baseline.recordings[split].get(name, ""))
        for split, found in scores.items()
        for name, parts in found.data.recordings(split).items()
    )
    return csv_text(header, rows)


def results(scores: Mapping[str, Scores], baseline: Baseline, epoch: int) -> dict[str, object]:
    """Return the content of results.json."""
    return {
        "epoch": epoch,
        "chosen_by": "largest val/pearson",
        "pearson": "mean over recordings of the mean r of non-overlapping windows",
        **{
            split: {
                "pearson": found.pearson,
                "baseline_pearson": baseline.pearson_of(split),
                "losses": {name: float(values.mean()) for name, values in found.losses.items()},
                "windows": len(found.ids),
                "windows_without_r": found.undefined,
                "recordings": found.recordings(),
                "subjects": found.subjects(),
                "baseline_recordings": baseline.recordings[split],
            }
            for split, found in scores.items()
        },
        "baseline": {"penalties": baseline.penalties, "windows_without_r": baseline.undefined},
    }


def tested(run_id: str) -> dict[str, float]:
    """Return r of each test recording that a run has logged; empty if it has none."""
    if not tracking.has_artifact(run_id, "results.json"):
        return {}
    found: dict[str, float] = tracking.get_json(run_id, "results.json").get("test", {}).get("recordings", {})
    return found


def said(test: Scores, baseline: Baseline, epoch: int) -> str:
    """Return the result in one line."""
    reached = {"r": test.pearson, "the linear baseline's": baseline.pearson_of("test")}
    values = ", ".join(f"{name} {'undefined' if value is None else f'{value:.4f}'}" for name, value in reached.items())
    left = f"; {test.undefined} of {len(test.ids)} windows have no r" if test.undefined else ""
    return f"{values} (best epoch {epoch}){left}"
