"""Refuses commands one after the other in one process: `python -m` with a JSON list of lists of words on its input.

Prints, for each, the exit code, the heavy packages that are loaded by then, and what was said.
"""

import contextlib
import io
import json
import runpy
import sys

HEAVY = {"torch", "mlflow", "numpy", "sklearn", "matplotlib", "scipy"}


def refused(argv: list[str]) -> tuple[object, list[str], str]:
    """How the entry point that the first word names ends."""
    said, code = io.StringIO(), None
    sys.argv = argv
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
        try:
            runpy.run_module(f"entrypoints.{argv[0]}", run_name="__main__")
        except SystemExit as ended:
            code = ended.code
    return code, sorted(HEAVY & {name.partition(".")[0] for name in sys.modules}), said.getvalue()


if __name__ == "__main__":
    json.dump([refused(argv) for argv in json.load(sys.stdin)], sys.stdout)
