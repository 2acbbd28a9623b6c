"""The series of a run with its name, and what distinguishes it from the other runs of a table."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from nfa.figures.training_analysis import Series
from nfa.levels import is_beside, value_key
from nfa.plain_text import natural
from nfa.relations import RELATIONS

SPLITS = ("train", "val", "test", "eval", "nfa")  # first parts of keys that are logged between checkpoints too


class RunRow(NamedTuple):
    """A value of a run at a step; `relation` is the whole key where the value does not belong to a site."""

    run: str
    name: str
    variant: str
    seed: int | None
    key: str
    site: str
    relation: str
    step: int
    value: float
    se: float | None = None
    chance: float | None = None
    shared: float | None = None


@dataclass(frozen=True)
class RunSeries:
    """The series of a run by metric key with what stands beside them, the unit of their steps, and what its loss is.

    Runs of equal `variant` differ only in their seed.
    """

    run: str
    name: str
    variant: str
    seed: int | None
    unit: str
    series: Mapping[str, Series]
    loss: str = ""

    @property
    def keys(self) -> list[str]:
        """The keys of its values, in natural order."""
        return sorted((key for key in self.series if not is_beside(key)), key=natural)

    def checkpoints(self, key: str = "") -> set[int]:
        """Return the steps, of one series or of all, that have more than losses and scores; all if there are none.

        Losses and scores are logged between checkpoints too.
        """
        measured = {step for one in self.keys if one.partition("/")[0] not in SPLITS for step in self.series[one]}
        steps = {step for one in self.keys if one == key or not key for step in self.series[one]}
        return steps & measured or steps

    def rows(self) -> Iterator[RunRow]:
        """Yield a row for each value."""
        for key in self.keys:
            site, _, relation = key.rpartition("/")
            place = (site, relation) if relation in RELATIONS else ("", key)
            levels = [self.series.get(f"{key}{suffix}", {}) for suffix in ("_se", "_chance", "_shared")]
            for step, value in sorted(self.series[key].items()):
                beside = (level.get(step) for level in levels)
                yield RunRow(self.run, self.name, self.variant, self.seed, key, *place, step, value, *beside)

    def best(self, key: str, *, most: bool) -> int | None:
        """Return the checkpoint at which a series is lowest, or with `most` highest; None without the series."""
        steps = sorted(self.checkpoints(key))
        return (max if most else min)(steps, key=lambda step: self.series[key][step], default=None)

    def only(self, *, keys: Collection[str] | None = None, step: int | None = None) -> "RunSeries":
        """Return the series of some keys, or the values of a step."""
        series = {key: of for key, of in self.series.items() if keys is None or value_key(key) in keys}
        if step is not None:
            series = {key: {step: of[step]} for key, of in series.items() if step in of}
        return replace(self, series=series)
