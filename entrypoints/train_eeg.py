"""Entry point `train_eeg`."""

import time

from nfa.registry.cli import main
from nfa.registry.families.eeg.config import TrainEEGConfig
from nfa.registry.signals import shielded


def start(config: TrainEEGConfig) -> None:
    """Train, in one process or several."""
    started = time.perf_counter()
    with shielded():  # a module whose import was interrupted cannot be imported again, not even to say so
        from nfa.registry.families.eeg.train_eeg import train_eeg
        from nfa.registry.stopwatch import Stopwatch

    train_eeg(config, Stopwatch({"import": time.perf_counter() - started}))


if __name__ == "__main__":
    main("train_eeg", TrainEEGConfig, start)
