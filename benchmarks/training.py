"""Tracked training against a bare PyTorch loop on Fashion-MNIST, 784-1024×5-10; and what a checkpoint costs."""

import dataclasses
import os
import statistics
import tempfile
import time
from pathlib import Path

import torch
import torch.nn.functional as F

from benchmarks.baselines import train_epoch, validate
from benchmarks.record import store
from nfa.registry import tracking
from nfa.registry.datasets import image_files, images, splits
from nfa.registry.families.mlp.config import TrainConfig
from nfa.registry.families.mlp.session import stored_config
from nfa.registry.families.mlp.workload import MLPClassifier
from nfa.registry.families.stored import config_digest
from nfa.registry.stopwatch import Stopwatch
from nfa.registry.training.loop import Training
from nfa.registry.training.start import train

AT_ONCE = 2048  # examples of an evaluation
TIMED = 1
# Checkpoints only before and after the timed epochs, with next to no analysis.
CONFIG = TrainConfig(dataset="fashion-mnist", epochs=TIMED + 2, schedule="0", max_samples=16, run_name="benchmark")


def tracked_seconds() -> float:
    """Seconds of an epoch inside a real run, from the times at which it logged val/loss."""
    train(CONFIG, Stopwatch(), None)
    run = tracking.find_run("latest")
    logged = {item.step: item.timestamp for item in tracking.metric_rows(run.info.run_id, "val/loss")}
    return (logged[TIMED + 1] - logged[1]) / 1000 / TIMED


def bare_seconds(workload: MLPClassifier) -> float:
    """Seconds of an epoch and a validation of the bare loop."""
    model = workload.model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    tensors = {}
    for split in ("train", "val"):
        batch = next(workload.batches(split, batch_size=len(workload.ids(split))))
        tensors[split] = (batch.inputs, F.one_hot(batch.targets).float())
    seconds = []
    for _ in range(TIMED + 1):
        start = time.perf_counter()
        train_epoch(model, optimizer, *tensors["train"], CONFIG.batch_size)
        validate(model, *tensors["val"], AT_ONCE)
        seconds.append(time.perf_counter() - start)
    return sum(seconds[1:]) / TIMED


def checkpoint_seconds(workload: MLPClassifier, repeats: int = 11) -> float:
    """Median seconds to store weights, LoggedModel, 18 metrics and the training state of one checkpoint."""
    model = workload.model()
    training = Training(workload, model, workload.optimizers(model), batch_size=128, seed=0)
    stored = stored_config("train", dataclasses.asdict(workload.config), workload.data)
    seconds = []
    with tracking.open_run("train", "mlp", name="checkpoints") as run:
        for epoch in range(repeats):
            start = time.perf_counter()
            model_id = tracking.save_checkpoint(
                run, model, epoch=epoch, step=epoch, config_digest=config_digest(stored)
            )
            run.metrics.log({f"layer_{index}/value": 0.5 for index in range(18)}, epoch, model_id)
            run.metrics.flush()
            tracking.save_state(run, training.state(reported=True))
            seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def main() -> None:
    """Time, compare and record."""
    data = images.load("fashion-mnist", image_files.locate("fashion-mnist"))
    ids = splits.decide(data.train_labels, data.test_labels, seed=1717, label_noise=0, classes=10)
    workload = MLPClassifier(CONFIG, data, ids)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{Path(folder, 'mlflow.db')}"
        os.chdir(folder)
        pairs = [(tracked_seconds(), bare_seconds(workload)) for _ in range(3)]
        checkpoint = checkpoint_seconds(workload)
        os.chdir("/")
    store(
        "training",
        "Tracked training on Fashion-MNIST, 784-1024×5-10, SGD",
        {
            "bare PyTorch loop, s per epoch": round(statistics.median(bare for _, bare in pairs), 2),
            "tracked run, s per epoch": round(statistics.median(tracked for tracked, _ in pairs), 2),
            "tracked / bare": round(statistics.median(tracked / bare for tracked, bare in pairs), 3),
            "storing one checkpoint and its metrics, without the analysis, s": round(checkpoint, 3),
        },
        [
            "Both use the same tensors in memory and the same validation pass. The timed epochs have no checkpoint. "
            "The two ways run in turn, three times. Each value is a median, and the ratio is the median of the three "
            "ratios, so it is not the quotient of the two medians above it. Where the two lie on different sides of 1, "
            "the rounds differ by more than the two ways do."
        ],
    )


if __name__ == "__main__":
    main()
