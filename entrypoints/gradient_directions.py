"""Run the entry point `gradient_directions`."""

from nfa.registry.cli import main

if __name__ == "__main__":
    main("gradient_directions")
