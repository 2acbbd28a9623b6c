"""Data of trainings, read once for all trainings of a process that use the same."""

from collections.abc import Hashable
from typing import Any

from nfa.registry.families.registry import family_of
from nfa.registry.stopwatch import Stopwatch


class SharedData:
    """Reads data when a training first needs them.

    Args:
        most: How many data sets are kept, the newest; None = all.
    """

    def __init__(self, most: int | None = None) -> None:
        self._most = most
        self._read: dict[Hashable, Any] = {}

    def of(self, config: Any, clock: Stopwatch) -> Any:
        """Return the data of a training, read once for all trainings with the same data parameters."""
        key, family = self._key(config), family_of(config)
        if key not in self._read:
            self.put(config, family.training.read(config, clock, family.look(config)))
        return self._read[key]

    def put(self, config: Any, data: Any) -> None:
        """Keep the data of a training, and forget older ones if there are too many."""
        self._read[self._key(config)] = data
        while self._most is not None and len(self._read) > self._most:
            del self._read[next(iter(self._read))]

    @staticmethod
    def _key(config: Any) -> Hashable:
        family = family_of(config)
        return (family.name, *(getattr(config, name) for name in family.data))
