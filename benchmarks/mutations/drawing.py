"""Mutations drawn with a seed, and found again in any tree by the text of their lines."""

import ast
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.mutations.operators import Change, changes

# A part of the house each, by the beginnings of its files' paths in nfa/; of every part as many are drawn.
PARTS = {
    "maths": ("maths/",),
    "observe": ("observe/",),
    "measures": ("measures/",),
    "studies": ("studies/",),
    "training": ("registry/training/",),
    "tracking": ("registry/tracking/",),
    "analyses": ("registry/analyses/", "analyses/"),
    "families": ("registry/families/",),
}


@dataclass(frozen=True)
class Mutation:
    """A line between the one before and the one behind it, all without their indentation, and what it becomes."""

    part: str
    before: str
    line: str
    behind: str
    replacement: str
    operator: str

    def places(self, tree: Path) -> list[tuple[Path, int]]:
        """Files of a tree, and lines counted from 0, where these three lines stand."""
        wanted = (self.before, self.line, self.behind)
        return [
            (file, index)
            for file in files(tree)
            if self.line in file.read_text(encoding="utf-8")
            for index, found in enumerate(_threes(file))
            if found == wanted
        ]


def files(tree: Path) -> list[Path]:
    """All code of the package."""
    return sorted((tree / "nfa").rglob("*.py"))


def _threes(file: Path) -> Iterator[tuple[str, str, str]]:
    lines = ["", *(line.strip() for line in file.read_text(encoding="utf-8").splitlines()), ""]
    return zip(lines, lines[1:], lines[2:], strict=False)


def draw(trees: Sequence[Path], seed: int, count: int) -> list[Mutation]:
    """Mutations of the first tree's code whose lines stand once in each of the trees, from all parts alike."""
    chance = random.Random(seed)
    left = {part: _candidates(trees[0], part, chance) for part in PARTS}
    found: list[Mutation] = []
    while len(found) < count:
        for part in PARTS:
            mutation = next(each for each in left[part] if all(len(each.places(tree)) == 1 for tree in trees))
            found = [*found, mutation][:count]
    return found


def _candidates(tree: Path, part: str, chance: random.Random) -> Iterator[Mutation]:
    """Of a part's lines, in random order, each with one of its changes."""
    beginnings = tuple(str(tree / "nfa" / beginning) for beginning in PARTS[part])
    found: dict[tuple[Path, int], list[Change]] = {}
    for file in (file for file in files(tree) if str(file).startswith(beginnings)):
        for change in changes(file.read_text(encoding="utf-8")):
            found.setdefault((file, change.line), []).append(change)
    order = list(found)
    chance.shuffle(order)
    for file, line in order:
        change = chance.choice(found[file, line])
        if _is_code(file.read_text(encoding="utf-8"), change):
            yield Mutation(part, *list(_threes(file))[line], change.text.strip(), change.operator)


def _is_code(source: str, change: Change) -> bool:
    """Whether it is still Python."""
    lines = source.splitlines()
    lines[change.line] = change.text
    try:
        ast.parse("\n".join(lines))
    except SyntaxError:
        return False
    return True
