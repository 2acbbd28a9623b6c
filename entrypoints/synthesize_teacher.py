"""Run the entry point `synthesize_teacher`."""

from nfa.registry.cli import main

if __name__ == "__main__":
    main("synthesize_teacher")
