"""Run the entry point `compare_lora`."""

from nfa.registry.cli import main

if __name__ == "__main__":
    main("compare_lora")
