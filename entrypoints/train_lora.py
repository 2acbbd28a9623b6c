"""Entry point `train_lora`."""

import time

from nfa.cli import main
from nfa.config import TrainLoraConfig
from nfa.data import questions
from nfa.ends import shielded


def start(config: TrainLoraConfig) -> None:
    """Read the questions while nothing heavy is loaded, then fine-tune one model."""
    data = None if config.resume else questions.load_files(config.data, config.val_data)
    started = time.perf_counter()
    with shielded():  # a module whose import was interrupted cannot be imported again, not even to say so
        from nfa.jobs.lora.train_lora import train_lora
        from nfa.timing import Stopwatch

    train_lora(config, Stopwatch({"import": time.perf_counter() - started}), data)


if __name__ == "__main__":
    main("train_lora", TrainLoraConfig, start)
