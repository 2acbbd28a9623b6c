"""Run the entry point `tune`."""

from nfa.registry.cli import main

if __name__ == "__main__":
    main("tune")
