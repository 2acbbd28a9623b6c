"""Which lines of the package each test executes, also in the processes that it starts.

Every interpreter of an environment of its own calls `begin` when it starts. Each process leaves a file of lines at its
end; a killed one leaves none.
"""

import atexit
import json
import os
import sys
import uuid
from collections import defaultdict
from pathlib import Path
from typing import Any

import coverage

OUT, TREE, TEST = "COVERING_OUT", "COVERING_TREE", "COVERING_TEST"  # TEST: what is executed now, for child processes


class Process:
    """What this process has executed so far, and how its tests have ended."""

    def __init__(self) -> None:
        self.tests: dict[str, dict[str, Any]] = {}
        self.fixtures: dict[str, str] = {}  # their names by what they are called here
        self.saved = False
        self._coverage = coverage.Coverage(
            data_file=None, config_file=False, include=[os.path.join(os.environ[TREE], "nfa", "*")]
        )
        self._coverage.set_option("run:disable_warnings", ["no-data-collected"])
        self._coverage.start()

    def stop(self) -> None:
        self._coverage.stop()

    def switch(self, name: str) -> None:
        os.environ[TEST] = name
        if sys.gettrace() is None:  # a test has taken it away
            self._coverage.stop()
            self._coverage.start()
        self._coverage.switch_context(name)

    def save(self) -> None:
        if not self.saved:
            self.saved = True
            self._coverage.stop()
            found = {"lines": self._lines(), "tests": self.tests, "fixtures": self.fixtures}
            (Path(os.environ[OUT]) / f"{uuid.uuid4().hex}.json").write_text(json.dumps(found), encoding="utf-8")

    def _lines(self) -> dict[str, dict[str, list[int]]]:
        """By what they are executed for, and file."""
        data, found = self._coverage.get_data(), defaultdict[str, dict[str, list[int]]](lambda: defaultdict(list))
        for file in data.measured_files():
            for line, names in data.contexts_by_lineno(file).items():
                for name in {name or os.environ.get(TEST, "") for name in names} - {""}:
                    found[name][os.path.relpath(file, os.environ[TREE])].append(line)
        return found


HERE: list[Process] = []  # this one


def begin() -> None:
    """From now on; an interpreter may read the line that calls this twice."""
    if HERE:
        return
    HERE.append(Process())
    os.register_at_fork(after_in_child=_anew)
    atexit.register(_save)
    leave = os._exit

    def save_and_leave(code: int) -> Any:
        try:
            _save()
        finally:
            leave(code)

    os._exit = save_and_leave  # type: ignore[assignment]


def _anew() -> None:
    HERE[0].stop()
    HERE[0] = Process()


def _save() -> None:
    HERE[0].save()
