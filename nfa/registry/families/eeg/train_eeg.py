"""Train a Conformer on EEG as a tracked run, in one process or several."""

import signal
from collections.abc import Mapping
from typing import Any

from nfa.console import stage
from nfa.errors import DivergedError, Refusal
from nfa.parallel import World
from nfa.registry import tracking
from nfa.registry.families.eeg import examples
from nfa.registry.families.eeg.config import TrainEEGConfig
from nfa.registry.families.eeg.data import RATE, SPLITS, EEGData
from nfa.registry.families.eeg.session import DecoderTraining, assist
from nfa.registry.families.eeg.workload import EEGDecoder
from nfa.registry.families.rebuild import check_same, recordings
from nfa.registry.launch import launch
from nfa.registry.machine import check_memory
from nfa.registry.stopwatch import Stopwatch
from nfa.registry.tracking import TrackedRun
from nfa.registry.training.settings import check_precision, taken_up
from nfa.registry.training.time_spent import timed
from nfa.workloads.devices import choose_device

HELD_OUT = {  # one, and several
    "time": ("part of a training recording", "parts of training recordings"),
    "recordings": ("whole recording of a training subject", "whole recordings of training subjects"),
    "subjects": ("recording of an unseen subject", "recordings of unseen subjects"),
}


def train_eeg(config: TrainEEGConfig, clock: Stopwatch) -> None:
    """Train, or continue the run `config.resume`; with nproc > 1 this process only starts the others and waits."""
    if config.nproc > 1 and not World.launched():
        launch("entrypoints.train_eeg", config.nproc)
        return
    world = World.joined()
    try:
        if world.rank:
            _assist(world)
        else:
            _lead(config, world, clock)
    finally:
        world.close()


def _assist(world: World) -> None:
    """Train in step with the first process, which alone listens to signals: where it ends, so does this one."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    told: tuple[TrainEEGConfig, dict[str, list[int]], Any] | None = world.broadcast(None)
    if told is None:
        return
    config, ids, state = told
    workload = EEGDecoder(config, recordings(config, config.data_dir), ids, choose_device(config.device))
    try:
        assist(workload, world, state)
    except DivergedError:
        return  # the first process says so
    except RuntimeError as error:
        if "onnection" not in str(error):  # closed: the first process has ended, and how it ended counts
            raise


def _lead(config: TrainEEGConfig, world: World, clock: Stopwatch) -> None:
    run = None
    if config.resume:
        run, config = taken_up(config)
    check_launch(config, world)
    workload = prepared(config, clock, run)
    with run or tracking.open_run("train_eeg", "eeg", name=config.run_name) as opened:
        train_one(opened, workload, clock, world)
    stage("done", opened.link)


def check_launch(config: TrainEEGConfig, world: World) -> None:
    """`Refusal` where a launcher has started another number of processes than `nproc` says."""
    if world.size != config.nproc:
        got = f"nproc={config.nproc} in {world.size} process{'es' if world.size > 1 else ''}"
        raise Refusal(got, "as many processes as nproc says", f"nproc={world.size}, or no launcher: nproc starts them")


def prepared(
    config: TrainEEGConfig, clock: Stopwatch, run: TrackedRun | None = None, data: EEGData | None = None
) -> EEGDecoder:
    """The workload on checked recordings (`data` where they are read already); `Refusal` for what cannot be trained."""
    config = config.resolved()
    device = choose_device(config.device)
    check_precision(config.precision, device)
    with clock.section("data"):
        data = data or recordings(config, config.data_dir)
    if run:
        check_same(data.name, data.digest(), tracking.config(run.run_id)["data"]["digest"])
    config.check_batches(len(data.recordings("train")))
    _say(data, config)
    stored = run and tracking.has_artifact(run.run_id, "example_ids.json")
    ids = tracking.example_ids(run.run_id) if run and stored else examples.decide(data, config)
    workload = EEGDecoder(config, data, ids, device)
    sizes = f"d_model={config.d_model} d_inner={config.d_inner} n_layers={config.n_layers}"
    check_memory(config.about_parameters, sizes, "a smaller width or fewer blocks")
    return workload


def _say(data: EEGData, config: TrainEEGConfig) -> None:
    """What there is to train on, and how val and test are held out."""
    train = sum(part.samples for part in data.of("train")) / RATE / 60
    minutes = f"{train:.1f}" if train < 10 else f"{train:.0f}"
    counts = " + ".join(str(len(data.recordings(split))) for split in SPLITS)
    subjects = len({part.subject for part in data.parts})
    whose = f"{counts} recordings (train + val + test) of {subjects} subjects, {data.channels} channels"
    stage("data", f"{data.name}: {whose}, {minutes} minutes to train on")
    held = ", ".join(f"{split} = {_held_out(data.held_out(split))}" for split in SPLITS[1:])
    stage("split", f"{held}; each recording is normalised by {data.normalised_by()}")
    short = sum(part.samples < config.window for part in data.parts)
    if short:
        lasting = f"{short} piece{'s' * (short > 1)} between gaps"
        stage("notice", f"{lasting}, shorter than a window of {config.window / RATE:g} s: no window lies there")
    if config.use_subjects and data.unseen_subjects():
        count = len(data.subjects)
        vector = f"the mean of the {count} trained ones" if count > 1 else f"that of {data.subjects[0]}"
        stage("notice", f"the subject vector of {', '.join(data.unseen_subjects())}, not in train, is {vector}")


def _held_out(counts: Mapping[str, int]) -> str:
    return " and ".join(f"{count} {HELD_OUT[what][count > 1]}" for what, count in counts.items())


def train_one(run: TrackedRun, workload: EEGDecoder, clock: Stopwatch, world: World | None = None) -> None:
    """Train, or go on training, in `run` up to the last epoch, and report."""
    job = DecoderTraining(run, workload, clock, world or World())
    try:
        job.describe()
        with timed(run, clock):
            job.restore()
            job.train()
            job.finish()
    finally:
        job.close()
