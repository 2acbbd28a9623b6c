"""Run the entry point `ablate_eeg`."""

from nfa.registry.cli import main

if __name__ == "__main__":
    main("ablate_eeg")
