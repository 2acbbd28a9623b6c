"""Run the entry point `demo`."""

from nfa.registry.cli import main

if __name__ == "__main__":
    main("demo")
