"""Run the entry point `train_lora`."""

from nfa.registry.cli import main

if __name__ == "__main__":
    main("train_lora")
