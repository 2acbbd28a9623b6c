"""Entry point `train`."""

import time

from nfa.cli import main
from nfa.config import TrainConfig
from nfa.data import catalog
from nfa.ends import shielded


def start(config: TrainConfig) -> None:
    """Find the data while nothing heavy is loaded, then train."""
    files = None if config.resume else catalog.locate(config.dataset, config.data_dir)
    started = time.perf_counter()
    with shielded():  # a module whose import was interrupted cannot be imported again, not even to say so
        from nfa.jobs.classifier.train import train
        from nfa.timing import Stopwatch

    train(config, files, Stopwatch({"import": time.perf_counter() - started}))


if __name__ == "__main__":
    main("train", TrainConfig, start)
