"""Commands, as the user types them."""

import os
import shlex
import sys
from pathlib import Path

from nfa.console import stage


def typed_command(name: str) -> str:
    """Return the command that started this process: nfa NAME, python -m nfa NAME, or python -m entrypoints.NAME."""
    program = {"nfa": "nfa ", "__main__": "python -m nfa "}
    return program.get(Path(sys.argv[0]).stem, "python -m entrypoints.") + name


def command(name: str, **parameters: str) -> str:
    """Return a command of an entry point with parameters, spelled as the one that started this process.

    `mlflow run` tells the programs that it starts the folder where it was typed.
    """
    if "NFA_CALLER_DIR" in os.environ:
        return " ".join([f"mlflow run . -e {name}", *(f"-P {key}={shlex.quote(of)}" for key, of in parameters.items())])
    return " ".join([typed_command(name), *(f"--{key} {shlex.quote(of)}" for key, of in parameters.items())])


def say_next(name: str, **parameters: str) -> None:
    """Print the command that is useful after this one."""
    stage("next", command(name, **parameters))
