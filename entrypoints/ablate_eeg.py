"""Entry point `ablate_eeg`."""

from nfa.cli import main
from nfa.config import AblateEEGConfig
from nfa.ends import shielded


def start(config: AblateEEGConfig) -> None:
    """Train every arm, then compare."""
    with shielded():  # a module whose import was interrupted cannot be imported again, not even to say so
        from nfa.jobs.eeg.ablate_eeg import ablate_eeg

    ablate_eeg(config)


if __name__ == "__main__":
    main("ablate_eeg", AblateEEGConfig, start)
