"""Run the entry point `train`."""

from nfa.registry.cli import main

if __name__ == "__main__":
    main("train")
