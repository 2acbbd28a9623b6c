"""Entry point `train`."""

import time

from nfa.registry.cli import main
from nfa.registry.datasets import catalog
from nfa.registry.families.mlp.config import TrainConfig
from nfa.registry.signals import shielded


def start(config: TrainConfig) -> None:
    """Find the data while nothing heavy is loaded, then train."""
    files = None if config.resume else catalog.locate(config.dataset, config.data_dir)
    started = time.perf_counter()
    with shielded():  # a module whose import was interrupted cannot be imported again, not even to say so
        from nfa.registry.families.mlp.train import train
        from nfa.registry.stopwatch import Stopwatch

    train(config, files, Stopwatch({"import": time.perf_counter() - started}))


if __name__ == "__main__":
    main("train", TrainConfig, start)
