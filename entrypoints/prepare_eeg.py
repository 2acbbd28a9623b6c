"""Entry point `prepare_eeg`."""

from nfa.cli import main
from nfa.config.eeg_preparation import PrepareEEGConfig
from nfa.data import eeg_recordings
from nfa.ends import shielded


def start(config: PrepareEEGConfig) -> None:
    """Find the recordings while nothing heavy is loaded, then prepare them."""
    eeg_recordings.chosen(config)
    with shielded():  # a module whose import was interrupted cannot be imported again, not even to say so
        from nfa.jobs.eeg.prepare_eeg import prepare_eeg

    prepare_eeg(config)


if __name__ == "__main__":
    main("prepare_eeg", PrepareEEGConfig, start)
