"""Entry point `prepare_eeg`."""

from nfa.registry.cli import main
from nfa.registry.families.eeg.preparation import recordings
from nfa.registry.families.eeg.preparation.config import PrepareEEGConfig
from nfa.registry.signals import shielded


def start(config: PrepareEEGConfig) -> None:
    """Find the recordings while nothing heavy is loaded, then prepare them."""
    recordings.chosen(config)
    with shielded():  # a module whose import was interrupted cannot be imported again, not even to say so
        from nfa.registry.families.eeg.preparation.prepare_eeg import prepare_eeg

    prepare_eeg(config)


if __name__ == "__main__":
    main("prepare_eeg", PrepareEEGConfig, start)
