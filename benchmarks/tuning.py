"""Tuning studies: what they cost beside their trainings, two workers against one, and what sampler and pruner save."""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import optuna
import torch
from optuna.trial import TrialState, create_trial

from benchmarks.record import store
from nfa.measures.evaluation import evaluate_split
from nfa.registry.datasets import image_files, images, splits
from nfa.registry.datasets.images import ImageData
from nfa.registry.families.mlp.config import TrainConfig
from nfa.registry.families.mlp.workload import MLPClassifier
from nfa.registry.stopwatch import Stopwatch
from nfa.registry.sweeps import storage, trial_queue
from nfa.registry.sweeps.config import TuneConfig
from nfa.registry.sweeps.samplers import SeededBySlot, pruner, suggest
from nfa.registry.sweeps.search import tune
from nfa.registry.sweeps.space import Value
from nfa.registry.sweeps.trainings import Trainings
from nfa.registry.tracking import TrackedRun
from nfa.registry.training.loop import Training

SEEDS, EPOCHS = range(5), 20
SPACE = "lr=log:1e-5:1e-1,width=log:16:256,weight_decay=log:1e-6:1e-1"
SEARCH = TuneConfig(space=SPACE, fixed=f"optimizer=adam,depth=3,epochs={EPOCHS}", enqueue="none", n_trials=60)
SMALL = "epochs=10,width=64,depth=3,schedule=0,10"
TEN_SECONDS = "epochs=260,width=256,depth=3,schedule=0,260"  # about, with one thread


class Timed(Trainings):
    """Adds up how long the trainings themselves take."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []

    def train(self, run: TrackedRun, config: Any, clock: Stopwatch) -> None:
        started = time.perf_counter()
        super().train(run, config, clock)
        self.seconds.append(time.perf_counter() - started)


def overhead() -> dict[str, float]:
    """Seconds of a trial beside its training, from the trials' own begins and ends."""
    timed = Timed()
    config = TuneConfig(n_trials=12, confirm=0, pruner="none", fixed=SMALL, space="lr=log:1e-3:1", study_name="cost")
    tune(config, timed)
    begun, ended = _span("cost")
    trials = len(timed.seconds)
    whole = (ended - begun) / trials
    return {
        "s per trial": round(whole, 3),
        "of these, s for its training": round(sum(timed.seconds) / trials, 3),
        "of these, s for everything else": round(whole - sum(timed.seconds) / trials, 3),
    }


def _span(name: str) -> tuple[float, float]:
    """When the first trial of a study began and the last one ended."""
    study = optuna.load_study(study_name=name, storage=storage.open_storage(storage.address_of("")))
    trials = study.get_trials(deepcopy=False)
    starts = [trial.datetime_start.timestamp() for trial in trials if trial.datetime_start]
    ends = [trial.datetime_complete.timestamp() for trial in trials if trial.datetime_complete]
    return min(starts), max(ends)


def workers() -> dict[str, float]:
    """Seconds of eight trials of about ten seconds each with one thread, by one worker and by two."""
    seconds = {}
    for number in (1, 2):
        words = {
            "n_trials": 8, "n_workers": number, "confirm": 0, "pruner": "none", "fixed": TEN_SECONDS,
            "space": "lr=log:1e-2:1", "sampler": "random", "study_name": f"workers-{number}",
        }  # fmt: skip
        command = [sys.executable, "-m", "nfa", "tune"]
        command += [word for name, value in words.items() for word in (f"--{name}", str(value))]
        subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True)
        begun, ended = _span(f"workers-{number}")
        seconds[number] = ended - begun
    return {
        "8 trials, one worker, s": round(seconds[1], 1),
        "8 trials, two workers, s": round(seconds[2], 1),
        "times faster": round(seconds[1] / seconds[2], 2),
    }


# ---- what is found, and in how many epochs: training alone, without a store


@cache
def _digits() -> tuple[ImageData, dict[str, list[int]]]:
    data = images.load("digits", image_files.locate("digits", ""))
    return data, splits.decide(data.train_labels, data.test_labels, seed=1717, label_noise=0.0, classes=data.classes)


def curve(config: TrainConfig, after: Callable[[int, float], None]) -> float:
    """Validation loss at the end; `after(epoch, loss)` hears of every epoch."""
    data, ids = _digits()
    workload = MLPClassifier(config, data, ids, torch.device("cpu"))
    model = workload.model()
    optimizer = workload.optimizers(model)
    training = Training(workload, model, optimizer, batch_size=config.batch_size, seed=config.seed)
    reached = [0.0]

    def report(epoch: int) -> None:
        if epoch:
            reached[0] = evaluate_split(model, workload, "val")["val/loss"]
            after(epoch, reached[0])

    training.run(config.epochs, report)
    return reached[0]


def searched(sampler: str, pruning: str, trials: int, seed: int) -> tuple[list[float], int]:
    """Values of the finished trials, in order, and the epochs that all took."""
    study = optuna.create_study(sampler=SeededBySlot(sampler, seed), pruner=pruner(pruning))
    for slot in range(trials):
        study.add_trial(create_trial(state=TrialState.WAITING, user_attrs={trial_queue.SLOT: slot}))
    spent = [0]

    def objective(trial: optuna.Trial) -> float:
        point: dict[str, Value] = dict(suggest(trial, SEARCH.axes))
        config = SEARCH.training(point, seed=1717)
        assert isinstance(config, TrainConfig)

        def after(epoch: int, loss: float) -> None:
            spent[0] += 1
            trial.report(loss, epoch)
            if epoch < config.epochs and trial.should_prune():
                raise optuna.TrialPruned

        return curve(config, after)

    study.optimize(objective, n_trials=trials)
    finished = study.get_trials(states=(TrialState.COMPLETE,))
    return [trial.value for trial in finished if trial.value is not None], spent[0]


def found() -> dict[str, Any]:
    """TPE after 30 trials against random search after 60; the median pruner against none, on the same points."""
    random = [searched("random", "none", 60, seed) for seed in SEEDS]
    pruned = [searched("random", "median", 60, seed) for seed in SEEDS]
    tpe = [searched("tpe", "none", 30, seed) for seed in SEEDS]
    tpe_pruned = [searched("tpe", "median", 30, seed) for seed in SEEDS]
    best = {name: [min(values) for values, _ in runs] for name, runs in
            {"random": random, "pruned": pruned, "tpe": tpe, "tpe_pruned": tpe_pruned}.items()}  # fmt: skip

    def saved(with_pruner: list[tuple[list[float], int]], without: list[tuple[list[float], int]]) -> float:
        return 1 - sum(spent for _, spent in with_pruner) / sum(spent for _, spent in without)

    return {
        "random, best of 60, median over 5 seeds": float(f"{statistics.median(best['random']):.4g}"),
        "TPE, best of 30, each seed": " ".join(f"{value:.4g}" for value in best["tpe"]),
        "TPE, best of 30, median": float(f"{statistics.median(best['tpe']):.4g}"),
        "seeds whose TPE is at or below random's median": sum(
            value <= statistics.median(best["random"]) for value in best["tpe"]
        ),
        "random, median pruner: epochs saved": f"{saved(pruned, random):.0%}",
        "random, best with the pruner no worse, of 5 seeds": sum(
            one <= other for one, other in zip(best["pruned"], best["random"], strict=True)
        ),
        "TPE, median pruner: epochs saved": f"{saved(tpe_pruned, tpe):.0%}",
        "TPE, best of 30 with the pruner, median": float(f"{statistics.median(best['tpe_pruned']):.4g}"),
    }


def main() -> None:
    """Measure and record."""
    storage.quiet()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{Path(folder, 'mlflow.db')}"
        os.chdir(folder)
        values = {**overhead(), **workers()}
        os.chdir("/")
    store(
        "tuning",
        "Tuning studies on digits: cost of a trial, two workers, TPE against random search, the median pruner",
        {**values, **found()},
        [
            f"Cost: 12 trials, {SMALL}; a trial includes its tracked run, the database and the sampler.",
            f"Workers: {TEN_SECONDS}, one thread each, timed from the beginning of the first trial to the end of "
            "the last one.",
            f"Samplers: validation loss of an MLP over {SPACE}, Adam, depth 3, {EPOCHS} epochs.",
            "The pruner sees the same random points as the search without it.",
        ],
    )


if __name__ == "__main__":
    main()
