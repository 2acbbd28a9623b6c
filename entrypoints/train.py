"""Entry point `train`."""

import time

from nfa.cli import main
from nfa.config import TrainConfig
from nfa.data import catalog


def start(config: TrainConfig) -> None:
    """Find the data while nothing heavy is loaded, then train."""
    files = None if config.resume else catalog.locate(config.dataset, config.data_dir)
    started = time.perf_counter()
    from nfa.jobs.train import train
    from nfa.timing import Stopwatch

    train(config, files, Stopwatch({"import": time.perf_counter() - started}))


if __name__ == "__main__":
    main("train", TrainConfig, start)
