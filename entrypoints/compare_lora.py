"""Entry point `compare_lora`."""

from nfa.cli import main
from nfa.config import CompareLoraConfig
from nfa.ends import shielded


def start(config: CompareLoraConfig) -> None:
    """Compare stored fine-tunings."""
    with shielded():  # a module whose import was interrupted cannot be imported again, not even to say so
        from nfa.jobs.lora.compare_lora import compare_lora

    compare_lora(config)


if __name__ == "__main__":
    main("compare_lora", CompareLoraConfig, start)
