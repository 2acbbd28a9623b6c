"""Run the entry point `import_checkpoints`."""

from nfa.registry.cli import main

if __name__ == "__main__":
    main("import_checkpoints")
