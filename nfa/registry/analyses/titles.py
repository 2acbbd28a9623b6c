"""Titles of figures: what the analysed runs trained on what, because names of runs may be random words."""

from collections.abc import Sequence
from typing import Any

from nfa.registry import tracking
from nfa.registry.families.registry import family_of_run

MOST_SUBJECTS = 3  # in a title


def title_of(source: Any) -> str:
    """Return what a stored run trained on what and how; its name if it does not store that."""
    title = family_of_run(source.data.tags).title(tracking.config(source.info.run_id))
    return title or str(source.info.run_name)


def loss_of(run_id: str) -> str:
    """Return the name of a stored run's loss; empty if it is not known."""
    return family_of_run(tracking.find_run(run_id).data.tags).loss(tracking.config(run_id))


def losses_of(run_ids: Sequence[str]) -> str:
    """Return the names of the losses of stored runs, each once; empty if one is not known."""
    losses = [loss_of(run_id) for run_id in run_ids]
    return ", ".join(dict.fromkeys(losses)) if all(losses) else ""


def subject_of(run_ids: Sequence[str]) -> str:
    """Return what several stored runs trained on what, each once, and how, as far as they have it in common."""
    runs = [(family_of_run(run.data.tags), tracking.config(run.info.run_id)) for run in map(tracking.find_run, run_ids)]
    subjects = [(of.subject(stored), of.title(stored)) for of, stored in runs]
    found = list(dict.fromkeys(subject for subject, _ in subjects if subject))
    if len(found) != 1 or not all(subject for subject, _ in subjects):
        more = f" and {len(found) - MOST_SUBJECTS} more" if len(found) > MOST_SUBJECTS else ""
        return "; ".join(found[:MOST_SUBJECTS]) + more
    hows = [title.removeprefix(subject).removeprefix(", ").split(", ") for subject, title in subjects]
    common = [word for word in hows[0] if word and all(word in how for how in hows)]
    seeds = list(dict.fromkeys(word for how in hows for word in how if word.startswith("seed ")))
    several = [f"{len(seeds)} seeds"] if len(seeds) > 1 else []
    return ", ".join([*found, *common, *several])
