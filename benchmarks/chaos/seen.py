"""What rounds show, and what there is to compare it with."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Content:
    """What a finished run holds."""

    weights: Mapping[str, str]
    series: Sequence[tuple[object, ...]]


@dataclass(frozen=True)
class Clean:
    """What commands leave that nothing disturbs: finished runs by name, files, and lines in the terminal."""

    runs: Mapping[str, Content]
    tree: Collection[str]
    lines: int


NOTHING = Clean({}, (), 1)


@dataclass
class Seen:
    """What was seen in one round or in several."""

    codes: Counter[str] = field(default_factory=Counter)
    duplicates: list[str] = field(default_factory=list)
    litter: list[str] = field(default_factory=list)
    leaks: list[str] = field(default_factory=list)
    equal: int = 0  # trainings with the weights of undisturbed ones,
    trained: int = 0  # of so many that had to finish
    seconds: list[float] = field(default_factory=list)  # from a signal to the end, where that is limited
    faults: list[str] = field(default_factory=list)

    def add(self, other: "Seen") -> None:
        """What another round has shown."""
        self.codes += other.codes
        self.duplicates += other.duplicates
        self.litter += other.litter
        self.leaks += other.leaks
        self.equal += other.equal
        self.trained += other.trained
        self.seconds += other.seconds
        self.faults += other.faults

    @property
    def summary(self) -> str:
        """For a person who waits."""
        codes = ", ".join(f"{code} × {count}" for code, count in sorted(self.codes.items()))
        others = {"duplicates": self.duplicates, "litter": self.litter, "leaks": self.leaks}
        counts = [f"{len(found)} {kind}" for kind, found in others.items() if found]
        return "; ".join([f"exit codes {codes}", *counts, *self.faults])

    @property
    def good(self) -> bool:
        """Whether nothing was seen that should not be."""
        return not (self.duplicates or self.litter or self.leaks or self.faults) and self.equal == self.trained
