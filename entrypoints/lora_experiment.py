"""Entry point `lora_experiment`."""

import time

from nfa.registry.cli import main
from nfa.registry.families.language import questions
from nfa.registry.families.language.experiment.config import LoraExperimentConfig
from nfa.registry.signals import shielded


def start(config: LoraExperimentConfig) -> None:
    """Read the questions while nothing heavy is loaded, then run the steps that are asked for."""
    data = questions.load_files(config.data, config.val_data)
    started = time.perf_counter()
    with shielded():  # a module whose import was interrupted cannot be imported again, not even to say so
        from nfa.registry.families.language.experiment.lora_experiment import lora_experiment
        from nfa.registry.stopwatch import Stopwatch

    lora_experiment(config, Stopwatch({"import": time.perf_counter() - started}), data)


if __name__ == "__main__":
    main("lora_experiment", LoraExperimentConfig, start)
