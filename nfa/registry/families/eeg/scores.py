"""Losses and correlations of windows, and their means over recordings and subjects."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn as nn
from torch import Tensor

from nfa.measures.evaluation import record_outputs
from nfa.parallel import World
from nfa.registry.families.eeg.data import EEGData
from nfa.registry.families.eeg.workload import EEGDecoder
from nfa.workload import Batch

BATCH = 64


@dataclass(frozen=True)
class Scores:
    """Losses by name and Pearson's r (NaN if undefined) of each window, in the order of `ids`."""

    data: EEGData
    ids: Sequence[int]
    losses: Mapping[str, Tensor]
    r: Tensor

    @property
    def undefined(self) -> int:
        """Windows without an r."""
        return int(self.r.isnan().sum())

    def recordings(self) -> dict[str, float]:
        """Mean r over the windows of each recording; a recording without a defined one is left out."""
        return _means([part.recording for part in self.data.part_of(self.ids)], self.r.tolist())

    def subjects(self) -> dict[str, float]:
        """Mean over a subject's recordings."""
        of, found = {part.recording: part.subject for part in self.data.part_of(self.ids)}, self.recordings()
        return _means([of[recording] for recording in found], found.values())

    @property
    def pearson(self) -> float | None:
        """Mean over recordings; None if no window has an r."""
        values = self.recordings().values()
        return sum(values) / len(values) if values else None

    def series(self, split: str) -> dict[str, float]:
        """Metrics by key: "val/loss", "val/loss_mse", "val/loss_pearson", "val/pearson", "val/undefined_windows"."""
        found = {f"{split}/{name}": float(values.mean()) for name, values in self.losses.items()}
        if self.pearson is not None:
            found[f"{split}/pearson"] = self.pearson
        return {**found, f"{split}/undefined_windows": float(self.undefined)}


def _means(names: Iterable[str], values: Iterable[float]) -> dict[str, float]:
    """Return the mean of the defined values of each name."""
    found: dict[str, list[float]] = {}
    for name, r in zip(names, values, strict=True):
        if r == r:
            found.setdefault(name, []).append(r)
    return {name: sum(values) / len(values) for name, values in found.items()}


def score(
    workload: EEGDecoder, model: nn.Module, split: str, ids: Sequence[int], world: World | None = None
) -> Scores | None:
    """Scores of the windows `ids`, shared between processes; None in all but the first."""
    world = world or World()
    recorded: dict[str, list[Tensor]] = {"loss": [], **{name: [] for name in ("loss_mse", "loss_pearson")}, "r": []}

    def record(outputs: Tensor, batch: Batch) -> None:
        recorded["loss"].append(workload.losses(outputs, batch).double().cpu())
        for name, values in workload.metrics(outputs, batch).items():
            recorded[name].append(values.double().cpu())
        recorded["r"].append(workload.correlations(outputs, batch).cpu())

    mine = world.shard(list(ids))
    record_outputs(model, workload, workload.batches(split, batch_size=BATCH, ids=mine), record)
    empty = torch.zeros(0, dtype=torch.float64)
    parts = world.gather({name: torch.cat([empty, *values]) for name, values in recorded.items()})
    if world.rank:
        return None
    joined = {name: torch.cat([part[name] for part in parts]) for name in recorded}
    return Scores(workload.data, list(ids), {name: joined[name] for name in recorded if name != "r"}, joined["r"])
