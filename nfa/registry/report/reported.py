"""The runs of a page: which they are, what sets them apart, and the last values that they have logged."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from nfa.bookkeeping import is_bookkeeping
from nfa.errors import NfaError, Refusal, headline
from nfa.levels import is_beside, value_key
from nfa.registry import tracking
from nfa.registry.results.reading import by_name
from nfa.registry.results.variants import is_of_family, seed_of, unit_of, variants
from nfa.registry.tracking import MeasuredRun

LARGEST = 3.4028234e38  # of float32; MLflow's SQL store keeps an infinite value as a larger number
SMALLEST = 1.1754944e-38  # of float32 with all its digits, apart from 0
How = tuple[tuple[str, str], ...]  # names and texts of what decides how a value is measured
Run = Any  # an MLflow Run; only nfa.registry.tracking knows the class


@dataclass(frozen=True)
class ReportedRun:
    """A run whose values are shown: its name, which is unique, and what distinguishes it apart from its seed.

    `agreed` has the places of holders, by key, that have measured in the same way as those of the other runs of its
    group.
    """

    measured: MeasuredRun
    name: str
    variant: str
    agreed: Mapping[str, int] = field(default_factory=dict)

    @property
    def run(self) -> Run:
        """The run itself."""
        return self.measured.run

    @property
    def id(self) -> str:
        """Its id."""
        return str(self.run.info.run_id)

    @property
    def tags(self) -> Mapping[str, str]:
        """Its tags."""
        found: Mapping[str, str] = self.run.data.tags
        return found

    @cached_property
    def seed(self) -> int | None:
        """Its seed, if it is known."""
        return seed_of(self.measured)

    @cached_property
    def unit(self) -> str:
        """What its steps count: epoch or step."""
        return unit_of(self.measured)

    @cached_property
    def parameters(self) -> Mapping[str, str]:
        """Its parameters, the resolved ones where these differ from what was typed."""
        return tracking.parameters(self.run)

    @cached_property
    def owners(self) -> Mapping[str, int]:
        """The place among its holders, by key, of the one that agrees with the group, or else of the first that has
        logged the value with a chance level, or else of the first that has logged it.
        """
        backwards = [*enumerate(holder.data.metrics for holder in self.measured.holders)][::-1]
        first = {key: place for place, metrics in backwards for key in metrics if self._is_value(key)}
        whole = {key: place for place, metrics in backwards for key in metrics if f"{key}_chance" in metrics}
        return {**first, **whole, **self.agreed}

    def _is_value(self, key: str) -> bool:
        """Return whether a key is that of a value, also of one with the name of an error or level beside nothing."""
        return not is_beside(key) or all(value_key(key) not in holder.data.metrics for holder in self.measured.holders)

    def in_order(self, key: str) -> list[int]:
        """Return the places of the holders that have logged a key, those with a chance level first."""
        metrics = [holder.data.metrics for holder in self.measured.holders]
        having = [place for place, of in enumerate(metrics) if key in of]
        return sorted(having, key=lambda place: f"{key}_chance" not in metrics[place])

    @cached_property
    def last(self) -> Mapping[str, tuple[int, float]]:
        """The last step and value by key, with what stands beside; values that are not finite are left out."""
        return {
            row.key: (row.step, row.value)
            for place, holder in enumerate(self.measured.holders)
            for row in tracking.latest_of(holder)
            if self._owner(row.key) == place and exists(row.value)
        }

    @cached_property
    def undefined(self) -> set[str]:
        """The keys whose last value is not finite, or cannot be held in single precision."""
        return {
            row.key
            for place, holder in enumerate(self.measured.holders)
            for row in tracking.latest_of(holder)
            if self._owner(row.key) == place and not exists(row.value)
        }

    def _owner(self, key: str) -> int | None:
        return self.owners.get(key, self.owners.get(value_key(key)))

    def holder_of(self, key: str) -> str:
        """Return the id of the run that has logged a key: the run itself or one of its analyses."""
        return str(self.measured.holders[self.owners.get(key, 0)].info.run_id)


@dataclass(frozen=True)
class Apart:
    """A key that the runs of a group have measured in different ways, so that there is no mean over them.

    Attributes:
        key: The metric key.
        ways: How it was measured, and the runs in which it was measured so.
    """

    key: str
    ways: Mapping[How, Sequence[ReportedRun]]


@dataclass(frozen=True)
class Reported:
    """All that a page is about.

    Attributes:
        named: The runs that the user has named.
        runs: The runs whose values are shown.
        parents: The runs between these two, and the named ones that are parents.
        comparisons: Comparisons of these runs.
        apart: What the runs of a group have measured in different ways, by the name of the group.
        files: JSON files that have been read, by the id of the run and the path; None where there is none.
        damaged: Why a file cannot be read, by the same.
    """

    named: Sequence[Run]
    runs: Sequence[ReportedRun]
    parents: Sequence[Run] = ()
    comparisons: Sequence[Run] = ()
    apart: Mapping[str, Sequence[Apart]] = field(default_factory=dict)
    files: dict[tuple[str, str], Mapping[str, Any] | None] = field(default_factory=dict)
    damaged: dict[tuple[str, str], str] = field(default_factory=dict)

    @cached_property
    def groups(self) -> Mapping[str, list[int]]:
        """The places of the runs of each variant, by the name of the group."""
        found: dict[str, list[int]] = {}
        for place, one in enumerate(self.runs):
            found.setdefault(one.variant, []).append(place)
        return {variant or self._only(places): places for variant, places in found.items()}

    @cached_property
    def labels(self) -> Mapping[str, str]:
        """What each run is called in sentences, by its id: its group, and its seed if the group has several runs."""
        found: dict[str, str] = {}
        for name, places in self.groups.items():
            for one in (self.runs[place] for place in places):
                alone = f"{name}, seed {one.seed}" if one.seed is not None else one.name
                found[one.id] = name if len(places) == 1 else alone
        return found

    def _only(self, places: Sequence[int]) -> str:
        return self.runs[places[0]].name if len(places) == 1 else "all runs"

    def without_mean(self, group: str) -> set[str]:
        """Return the keys that the runs of a group have measured in different ways."""
        return {one.key for one in self.apart.get(group, ())}

    @cached_property
    def keys(self) -> list[str]:
        """The keys of all values that tell of a model, in the order in which they are met."""
        return list(dict.fromkeys(key for one in self.runs for key in one.owners if not is_bookkeeping(key)))

    @property
    def analyses(self) -> Iterator[tuple[ReportedRun, Run]]:
        """Each analysis with the run whose values it has logged."""
        return ((one, holder) for one in self.runs for holder in one.measured.holders if tracking.is_analysis(holder))

    def config(self, run_id: str) -> Mapping[str, Any] | None:
        """Return the config.json of a run; None if it has none or it is damaged."""
        return self.json(run_id, "config.json")

    def json(self, run_id: str, path: str) -> Mapping[str, Any] | None:
        """Return a JSON file of a run; None if it has none, or if it cannot be read, which `damaged` then tells."""
        if (run_id, path) not in self.files:
            self.files[run_id, path] = self._read(run_id, path)
        return self.files[run_id, path]

    def _read(self, run_id: str, path: str) -> Mapping[str, Any] | None:
        try:
            content = tracking.get_json(run_id, path) if tracking.has_artifact(run_id, path) else None
        except (NfaError, *tracking.StoreError) as trouble:
            self.damaged[run_id, path] = headline(trouble)
            return None
        if content is not None and not isinstance(content, Mapping):
            self.damaged[run_id, path] = f"it is no object, but a {type(content).__name__}"
            return None
        return content


def find(run_ids: str) -> Reported:
    """Return what a page about these runs tells; raise `Refusal` if one does not exist."""
    named = tracking.named_runs(run_ids)
    found = by_name(tracking.measured(named))
    labels = variants(found)
    runs = [ReportedRun(one, name, labels[name]) for name, one in found.items()]
    parents, nested = _parents(named, {one.id for one in runs})
    compared = {run.info.run_id: run for run in [*nested, *tracking.comparisons([one.id for one in runs])]}
    return Reported(named, runs, parents, [*compared.values()])


def _parents(named: Sequence[Run], leaves: set[str]) -> tuple[list[Run], list[Run]]:
    """Return the parents at and below the named runs, and the comparisons that are named or below these."""
    plain = [run for run in named if not tracking.is_analysis(run)]
    compared = [run for run in named if tracking.is_analysis(run) and not tracking.is_report(run)]
    if {run.info.run_id for run in plain} <= leaves:
        return [], compared
    below = tracking.below(plain)
    every = {run.info.run_id: run for run in [*plain, *(child for of in below.values() for child in of)]}
    parents = [run for run_id, run in every.items() if run_id not in leaves and not tracking.is_analysis(run)]
    analyses = [run for parent in parents for run in below.get(parent.info.run_id, ()) if tracking.is_analysis(run)]
    return parents, [*compared, *(run for run in analyses if not tracking.is_report(run))]


def check(reported: Reported, run_ids: str) -> None:
    """Raise `Refusal` if no run has anything to show: neither a value nor a parameter."""
    if not any(one.owners or one.parameters for one in reported.runs) and not reported.parents:
        got = f"run_id={run_ids} (no metrics and no parameters)"
        raise Refusal(got, "runs that have logged something", "train first: mlflow run . -e train")


def exists(value: float) -> bool:
    """Return whether a value is finite, also as MLflow stores it, and can be held in single precision."""
    return math.isfinite(value) and (value == 0 or SMALLEST <= abs(value) <= LARGEST)


def is_training(run: Run) -> bool:
    """Return whether a run is a training of nfa, of which more is known than of others."""
    return is_of_family(run.data.tags)
