"""Entry point `compare_lora`."""

from nfa.registry.cli import main
from nfa.registry.families.language.config import CompareLoraConfig
from nfa.registry.signals import shielded


def start(config: CompareLoraConfig) -> None:
    """Compare stored fine-tunings."""
    with shielded():  # a module whose import was interrupted cannot be imported again, not even to say so
        from nfa.registry.families.language.comparison.compare_lora import compare_lora

    compare_lora(config)


if __name__ == "__main__":
    main("compare_lora", CompareLoraConfig, start)
