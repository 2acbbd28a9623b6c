"""Entry point `train_lora`."""

import time

from nfa.registry.cli import main
from nfa.registry.families.language import questions
from nfa.registry.families.language.config import TrainLoraConfig
from nfa.registry.signals import shielded


def start(config: TrainLoraConfig) -> None:
    """Read the questions while nothing heavy is loaded, then fine-tune one model."""
    data = None if config.resume else questions.load_files(config.data, config.val_data)
    started = time.perf_counter()
    with shielded():  # a module whose import was interrupted cannot be imported again, not even to say so
        from nfa.registry.families.language.train_lora import train_lora
        from nfa.registry.stopwatch import Stopwatch

    train_lora(config, Stopwatch({"import": time.perf_counter() - started}), data)


if __name__ == "__main__":
    main("train_lora", TrainLoraConfig, start)
