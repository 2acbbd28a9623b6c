"""Run the entry point `lora_svd`."""

from nfa.registry.cli import main

if __name__ == "__main__":
    main("lora_svd")
