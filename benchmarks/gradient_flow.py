"""Gradient flow of ten checkpoints, against one epoch of the training that made them."""

import os
import tempfile
import time
from pathlib import Path

from benchmarks.record import in_turn, ratio, store
from nfa.measures.mean_gradient import mean_gradient
from nfa.measures.parameter_groups import relative_changes, root_mean_squares
from nfa.parallel import World
from nfa.registry.families.eeg.config import TrainEEGConfig
from nfa.registry.families.eeg.session import training_of
from nfa.registry.families.eeg.training import decide
from nfa.registry.families.eeg.workload import EEGDecoder, read

CHECKPOINTS, WINDOWS, BATCH, ROUNDS = 10, 64, 16, 3
SETTINGS = {"subjects": 64, "stimuli": 8, "seconds": 20, "batch_size": 64, "windows_per_recording": 1, "epochs": 1}


def main() -> None:
    """Time and record."""
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["NFA_CACHE"] = str(Path(scratch))
        config = TrainEEGConfig(**SETTINGS, window_seconds=4.0)  # type: ignore[arg-type]
        data = read(config)
        workload = EEGDecoder(config, data, decide(data, config))
        training, _ = training_of(workload, World())
        start = {name: weight.clone() for name, weight in training.model.state_dict().items()}
        groups, ids = workload.groups(training.model).names, workload.ids("probe")[:WINDOWS]

        def epoch() -> None:
            training._epoch(lambda: None)

        def flow() -> None:
            for _ in range(CHECKPOINTS):
                weights = {name: weight.clone() for name, weight in training.model.state_dict().items()}
                training.model.load_state_dict(weights)
                batches = workload.batches("train", batch_size=BATCH, ids=ids)
                root_mean_squares(groups, mean_gradient(workload, training.model, batches))
                relative_changes(groups, start, weights)

        seconds = in_turn({"epoch": epoch, "flow": flow}, rounds=ROUNDS)
        began = time.perf_counter()
        flow()
        one = (time.perf_counter() - began) / CHECKPOINTS
    results = {
        "windows of an epoch": len(workload.draw(0)),
        "one epoch of training, s": round(sorted(seconds["epoch"])[ROUNDS // 2], 1),
        f"gradient flow of {CHECKPOINTS} checkpoints, {WINDOWS} windows, s": round(
            sorted(seconds["flow"])[ROUNDS // 2], 1
        ),
        "gradient flow / epoch": round(ratio(seconds["flow"], seconds["epoch"]), 2),
        "one checkpoint, s": round(one, 2),
    }
    notes = [
        "The 512 recordings are simulated, as many as the published data set (SparrKULee) has, and an epoch takes one "
        "window of each. The model is the tiny Conformer. Times do not include loading data and logging, which both "
        "need alike.",
    ]
    store("gradient_flow", "Gradient flow through training", results, notes)


if __name__ == "__main__":
    main()
