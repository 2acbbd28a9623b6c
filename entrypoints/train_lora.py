"""Entry point `train_lora`."""

import time

from nfa.cli import main
from nfa.config import TrainLoraConfig
from nfa.ends import shielded


def start(config: TrainLoraConfig) -> None:
    """Fine-tune one model."""
    started = time.perf_counter()
    with shielded():  # a module whose import was interrupted cannot be imported again, not even to say so
        from nfa.jobs.lora.train_lora import train_lora
        from nfa.timing import Stopwatch

    train_lora(config, Stopwatch({"import": time.perf_counter() - started}))


if __name__ == "__main__":
    main("train_lora", TrainLoraConfig, start)
