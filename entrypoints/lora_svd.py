"""Entry point `lora_svd`."""

from nfa.registry.cli import main
from nfa.registry.families.language.teacher.config import LoraSvdConfig
from nfa.registry.signals import shielded


def start(config: LoraSvdConfig) -> None:
    """Turn the update into LoRA factors."""
    with shielded():  # a module whose import was interrupted cannot be imported again, not even to say so
        from nfa.registry.families.language.teacher.lora_svd import lora_svd

    lora_svd(config)


if __name__ == "__main__":
    main("lora_svd", LoraSvdConfig, start)
