"""Which tests execute a line, and whether they fail once it is another one."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from types import MappingProxyType
from typing import Any

from benchmarks.mutations.drawing import Mutation
from benchmarks.mutations.marking import mark

PLUGINS = Path(__file__).parent / "plugins"
AT_ONCE = 2
BUDGET = 45.0  # seconds that a mutation's tests take: of its files, the quickest
LIMIT = 180.0  # seconds after which they count as hung, and the mutation as caught


def copy(tree: Path, folder: Path) -> Path:
    """A clone of what is committed in a tree, with the metadata by which MLflow finds the plugin."""
    subprocess.run(["git", "clone", "-q", str(tree), str(folder)], check=True)
    for metadata in tree.glob("*.egg-info"):
        shutil.copytree(metadata, folder / metadata.name)
    return folder


def pytest_on(
    copied: Path,
    words: Sequence[str],
    *,
    limit: float | None = None,
    environment: Mapping[str, str] = MappingProxyType({}),
) -> tuple[int | None, str]:
    """How pytest ends on a copy, and what it says; no code where it was killed, with all that it has started."""
    more = {"PYTHONPATH": f"{copied}{os.pathsep}{PLUGINS}", "OMP_NUM_THREADS": "1", **environment}
    command = [sys.executable, "-m", "pytest", "-q", f"--basetemp={copied}-files", *words]
    with (copied.parent / f"{copied.name}.out").open("w+", encoding="utf-8") as said:
        process = subprocess.Popen(
            command, cwd=copied, env={**os.environ, **more}, stdout=said, stderr=said, start_new_session=True
        )
        try:
            code: int | None = process.wait(limit)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            code = None
        said.seek(0)
        return code, said.read()


# ---- which tests


@dataclass(frozen=True)
class Coverage:
    """Tests that pass, with their seconds, and those that come to a mutation's line, by their places in that list."""

    tests: Sequence[tuple[str, float]]
    met: Sequence[Sequence[int]]

    def of(self, number: int) -> list[str]:
        """Tests that come to the line of a mutation: of the quickest files, as many as the budget allows."""
        files = defaultdict[str, list[tuple[str, float]]](list)
        for index in self.met[number]:
            files[self.tests[index][0].partition("::")[0]].append(self.tests[index])
        chosen: list[str] = []
        left = BUDGET
        for tests in sorted(files.values(), key=lambda tests: sum(seconds for _, seconds in tests)):
            left -= sum(seconds for _, seconds in tests)
            if chosen and left < 0:
                break
            chosen += [name for name, _ in tests]
        return chosen


def read(file: Path) -> Coverage:
    """As `cover` has stored it."""
    return Coverage(**json.loads(file.read_text(encoding="utf-8")))


def cover(tree: Path, mutations: Sequence[Mutation], folder: Path, tests: Sequence[str]) -> dict[str, Any]:
    """Run the tests of a tree whose lines are marked: a `Coverage`."""
    out = folder / "covered"
    out.mkdir()
    copied = copy(tree, folder / "tree")
    mark(copied, mutations, out)
    words = ["-n", str(AT_ONCE), "--dist", "loadfile", "-p", "covering", *tests]
    _, said = pytest_on(copied, words, environment={"COVERING_OUT": str(out)})
    print(said[-2000:])
    parts = [json.loads(part.read_text(encoding="utf-8")) for part in out.glob("*.json")]
    met = {line for file in out.glob("*.met") for line in file.read_text(encoding="utf-8").splitlines()}
    return _joined(parts, met, len(mutations))


def _joined(parts: Sequence[Mapping[str, Any]], lines: Collection[str], count: int) -> dict[str, Any]:
    """One coverage of what the workers and the marks have told."""
    told = {name: test for part in parts for name, test in part["tests"].items() if test["passed"]}
    places = {name: index for index, name in enumerate(told)}
    fixtures = {name: base for part in parts for name, base in part["fixtures"].items()}
    met = [set[int]() for _ in range(count)]
    for number, _, name in (line.partition("\t") for line in lines):
        base = fixtures.get(name)
        asks = [name] if base is None else [one for one in told if _asks(one, told[one], name, base)]
        met[int(number)] |= {places[one] for one in asks if one in places}
    return {
        "tests": [(name, round(test["seconds"], 3)) for name, test in told.items()],
        "met": [sorted(of) for of in met],
    }


def _asks(test: str, told: Mapping[str, Any], fixture: str, base: str) -> bool:
    """Whether a test asks for what is set up as "fixture NAME of …"."""
    return test.startswith(base) and fixture.split()[1] in told["fixtures"]


# ---- whether they fail


def attempts(tree: Path, mutations: Sequence[Mutation], covered: Coverage, folder: Path) -> list[dict[str, Any]]:
    """What has become of each, several at once, each in a copy of the tree."""
    free: SimpleQueue[Path] = SimpleQueue()
    for number in range(AT_ONCE):
        free.put(copy(tree, folder / f"tree-{number}"))

    def tried(numbered: tuple[int, Mutation]) -> dict[str, Any]:
        copied = free.get()
        try:
            row = {**vars(numbered[1]), **attempt(copied, numbered[1], covered, numbered[0])}
        finally:
            free.put(copied)
        print(f"{row['became']:12} {row['file']}: {row['line']}  →  {row['replacement']}", flush=True)
        return row

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(tried, enumerate(mutations)))


def attempt(copied: Path, mutation: Mutation, covered: Coverage, number: int) -> dict[str, Any]:
    """caught, survived, or missing where the line does not stand in the tree once."""
    places = mutation.places(copied)
    if len(places) != 1:
        return {"became": "missing", "file": "", "tests": 0, "by": ""}
    ((file, line),) = places
    name, whole = file.relative_to(copied).as_posix(), file.read_text(encoding="utf-8")
    tests = covered.of(number)
    if not tests:
        return {"became": "survived", "file": name, "tests": 0, "by": ""}
    lines = whole.splitlines(keepends=True)
    lines[line] = lines[line].replace(mutation.line, mutation.replacement)
    _write(file, "".join(lines), 2 * number)
    named = copied.parent / f"{copied.name}.tests"
    named.write_text("\n".join(tests), encoding="utf-8")
    code, said = pytest_on(copied, ["-n", "0", "-x", "-p", "in_order", f"@{named}"], limit=LIMIT)
    _write(file, whole, 2 * number + 1)
    if code not in (None, 0, 1, 2):
        raise RuntimeError(f"pytest ended with {code}:\n{said}")
    by = next((text for text in said.splitlines() if text.startswith(("FAILED", "ERROR"))), "")
    return {"became": "survived" if code == 0 else "caught", "file": name, "tests": len(tests), "by": by[:200]}


def _write(file: Path, text: str, number: int) -> None:
    """With a time of its own: Python takes compiled code for current that has the size and the second of its source."""
    file.write_text(text, encoding="utf-8")
    os.utime(file, (10**9 + number, 10**9 + number))
