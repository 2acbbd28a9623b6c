"""Entry point `ablate_eeg`."""

from nfa.registry.cli import main
from nfa.registry.families.eeg.config import AblateEEGConfig
from nfa.registry.signals import shielded


def start(config: AblateEEGConfig) -> None:
    """Train every arm, then compare."""
    with shielded():  # a module whose import was interrupted cannot be imported again, not even to say so
        from nfa.registry.families.eeg.ablation import ablate_eeg

    ablate_eeg(config)


if __name__ == "__main__":
    main("ablate_eeg", AblateEEGConfig, start)
