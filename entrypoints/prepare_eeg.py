"""Run the entry point `prepare_eeg`."""

from nfa.registry.cli import main

if __name__ == "__main__":
    main("prepare_eeg")
