"""What distinguishes runs from each other apart from their seed."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from nfa.errors import Refusal
from nfa.registry.analyses.seed_groups import groups
from nfa.registry.families.registry import family_of_run
from nfa.registry.tracking import MeasuredRun, parameters

WORKLOAD = "nfa.workload"


def variants(found: Mapping[str, MeasuredRun]) -> dict[str, str]:
    """Return the variant of each run by name; runs of equal variant differ only in their seed.

    It is the variant in which a parent trained these runs and no others, or else the parameters that set them apart
    (empty if nothing does). Runs that are no trainings of nfa are variants of their own.
    """
    configs = {name: _config(one) for name, one in found.items() if is_of_family(one.run.data.tags)}
    grouped = groups(configs)
    called = {label: _called(label, [found[name].variant for name in members]) for label, members in grouped.items()}
    unique = {label: word if [*called.values()].count(word) == 1 else label for label, word in called.items()}
    labels = {name: unique[label] for label, members in grouped.items() for name in members}
    return {name: labels.get(name, name if len(found) > 1 else "") for name in found}


def _called(label: str, tags: Sequence[str]) -> str:
    """Return the tag that all runs of a group have, or else its label."""
    (tag, *others) = set(tags)
    return tag if tag and not others else "" if label == "all" else label


def _config(one: MeasuredRun) -> dict[str, Any]:
    """Return the parameters of a training as its config.json has them, but as texts; MLflow lists them with the run."""
    tags, known = one.run.data.tags, parameters(one.run)
    names = {item.name for item in dataclasses.fields(family_of_run(tags).config)}
    train = {name: text for name, text in known.items() if name in names}
    return {"workload": tags[WORKLOAD], "entrypoint": tags.get("nfa.entrypoint"), "train": train}


def is_of_family(tags: Mapping[str, str]) -> bool:
    """Return whether a run is of a workload that nfa knows; a run of others may have a tag of the same name."""
    try:
        return WORKLOAD in tags and bool(family_of_run(tags))
    except Refusal:
        return False


def loss_of(one: MeasuredRun) -> str:
    """Return the name of a training's loss; empty if it is not known."""
    tags = one.run.data.tags
    return family_of_run(tags).loss(_config(one)) if is_of_family(tags) else ""


def seed_of(one: MeasuredRun) -> int | None:
    """Return the seed of a training."""
    text = parameters(one.run).get("seed", "")
    return int(text) if text.isdecimal() else None


def unit_of(one: MeasuredRun) -> str:
    """Return what the steps of a run count: "epoch" or "step"."""
    tags = one.run.data.tags
    return family_of_run(tags).unit if is_of_family(tags) else "step"
