"""Run the entry point `report`."""

from nfa.registry.cli import main

if __name__ == "__main__":
    main("report")
