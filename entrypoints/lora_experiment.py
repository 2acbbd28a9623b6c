"""Run the entry point `lora_experiment`."""

from nfa.registry.cli import main

if __name__ == "__main__":
    main("lora_experiment")
