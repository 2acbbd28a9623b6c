"""Run the entry point `gradient_flow`."""

from nfa.registry.cli import main

if __name__ == "__main__":
    main("gradient_flow")
