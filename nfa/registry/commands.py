"""Commands, as the user types them."""

import os
import shlex
import sys
from pathlib import Path


def typed_command(name: str) -> str:
    """Return how this process's program starts NAME: nfa NAME, python -m nfa NAME, or python -m entrypoints.NAME.

    A program of the user's own and a notebook have the first.
    """
    program = Path(sys.argv[0])
    if program.parent.name == "entrypoints":
        return f"python -m entrypoints.{name}"
    return f"python -m nfa {name}" if program.stem == "__main__" else f"nfa {name}"


def command(name: str, **parameters: str) -> str:
    """Return a command of an entry point with parameters, spelled as the one that started this process.

    `mlflow run` tells the programs that it starts the folder where it was typed.
    """
    if "NFA_CALLER_DIR" in os.environ:
        return " ".join([f"mlflow run . -e {name}", *(f"-P {key}={shlex.quote(of)}" for key, of in parameters.items())])
    return " ".join([typed_command(name), *(f"--{key} {shlex.quote(of)}" for key, of in parameters.items())])
