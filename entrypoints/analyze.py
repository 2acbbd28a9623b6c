"""Run the entry point `analyze`."""

from nfa.registry.cli import main

if __name__ == "__main__":
    main("analyze")
