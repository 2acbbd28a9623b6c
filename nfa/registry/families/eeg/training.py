"""Trainings of decoders: recordings, workloads and sessions."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from nfa.figures.training_analysis import Series
from nfa.parallel import World
from nfa.registry import stored_runs, tracking
from nfa.registry.families.eeg import report
from nfa.registry.families.eeg.config import RATE, TrainEEGConfig
from nfa.registry.families.eeg.data import SPLITS, EEGData
from nfa.registry.families.eeg.session import DecoderSession, evaluate, evaluated_epochs, stored_config, training_of
from nfa.registry.families.eeg.workload import EEGDecoder, read
from nfa.registry.families.protocol import FamilyTraining, Ids, Ready, StoredTraining
from nfa.registry.families.stored import check_same
from nfa.registry.stopwatch import Stopwatch
from nfa.registry.tracking import TrackedRun
from nfa.seeding import generator
from nfa.workloads.devices import check_precision, choose_device

HELD_OUT = {  # singular and plural
    "time": ("part of a training recording", "parts of training recordings"),
    "recordings": ("whole recording of a training subject", "whole recordings of training subjects"),
    "subjects": ("recording of an unseen subject", "recordings of unseen subjects"),
}


class DecoderTraining(FamilyTraining):
    """Trainings of Conformers on recordings of EEG."""

    def read(self, config: TrainEEGConfig, clock: Stopwatch, found: Any = None) -> EEGData:  # noqa: ARG002
        with clock.section("data"):
            return read(config)

    def prepare(
        self, config: TrainEEGConfig, data: EEGData, run: TrackedRun | None = None, ids: Ids | None = None
    ) -> Ready:
        config = config.resolved()
        device = choose_device(config.device)
        check_precision(config.precision, device)
        if run:
            check_same(data.name, data.digest(), tracking.config(run.run_id)["data"]["digest"])
        config.check_batches(len(data.recordings("train")))
        ids = stored_runs.example_ids(run.run_id) if run else ids or decide(data, config)
        config.check_memory()
        return Ready(config, EEGDecoder(config, data, ids, device), data, ids)

    def lines(self, ready: Ready) -> Iterator[tuple[str, str]]:
        data, config = ready.data, ready.config
        train = sum(part.samples for part in data.of("train")) / RATE / 60
        minutes = f"{train:.1f}" if train < 10 else f"{train:.0f}"
        counts = " + ".join(str(len(data.recordings(split))) for split in SPLITS)
        subjects = len({part.subject for part in data.parts})
        whose = f"{counts} recordings (train + val + test) of {subjects} subjects, {data.channels} channels"
        yield "data", f"{data.name}: {whose}, {minutes} minutes to train on"
        held = ", ".join(f"{split} = {_held_out(data.held_out(split))}" for split in SPLITS[1:])
        yield "split", f"{held}; each recording is normalised by {data.normalised_by()}"
        short = sum(part.samples < config.window for part in data.parts)
        if short:
            lasting = f"{short} piece{'s' * (short > 1)} between gaps"
            yield "notice", f"{lasting}, shorter than a window of {config.window / RATE:g} s: no window lies there"
        if config.use_subjects and data.unseen_subjects():
            count = len(data.subjects)
            vector = f"the mean of the {count} trained ones" if count > 1 else f"that of {data.subjects[0]}"
            yield "notice", f"the subject vector of {', '.join(data.unseen_subjects())}, not in train, is {vector}"

    def stored(self, config: TrainEEGConfig, ready: Ready) -> dict[str, Any]:
        return stored_config(config, ready.data)

    def session(self, run: TrackedRun, ready: Ready, clock: Stopwatch, world: World) -> DecoderSession:
        return DecoderSession(run, ready, clock, world)

    def assist(self, config: TrainEEGConfig, told: Any, world: World) -> None:
        """Train and evaluate this process's part of every batch, together with the first process, which tracks."""
        ids, state = told
        workload = EEGDecoder(config, read(config), ids, choose_device(config.device))
        training, _ = training_of(workload, world)
        if state is not None:
            training.restore(state)
        evaluated = evaluated_epochs(workload)

        def after_epoch(epoch: int) -> None:
            if epoch in evaluated:
                evaluate(workload, training.model, world)

        training.run(int(workload.config.epochs), after_epoch)

    def report_seeds(self, parent: TrackedRun, series: Mapping[str, Series], seeds: Sequence[int], title: str) -> None:
        report.report_seeds(parent, series, seeds, title)

    def rebuild(self, run: StoredTraining) -> EEGDecoder:
        train = TrainEEGConfig(**run.config["train"])
        data = read(train, run.data_dir)
        check_same(data.name, data.digest(), run.config["data"]["digest"])
        return EEGDecoder(train, data, run.example_ids, run.device)


def decide(data: EEGData, config: TrainEEGConfig) -> dict[str, list[int]]:
    """Return the content of a run's example_ids.json: all non-overlapping windows of each split.

    "probe" holds the windows of the train part in random order. Training itself draws new windows in every epoch, which
    may start anywhere in the train part.
    """
    ids = {split: data.ids(split, config.window) for split in SPLITS}
    order = torch.randperm(len(ids["train"]), generator=generator(config.seed, "probe")).tolist()
    return {**ids, "probe": [ids["train"][place] for place in order]}


def _held_out(counts: Mapping[str, int]) -> str:
    return " and ".join(f"{count} {HELD_OUT[what][count > 1]}" for what, count in counts.items())
