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


def subject_of(run_ids: Sequence[str]) -> str:
    """Return what several stored runs trained on what, each once."""
    sources = [tracking.find_run(run_id) for run_id in run_ids]
    subjects = (family_of_run(one.data.tags).subject(tracking.config(one.info.run_id)) for one in sources)
    found = [*dict.fromkeys(filter(None, subjects))]
    more = f" and {len(found) - MOST_SUBJECTS} more" if len(found) > MOST_SUBJECTS else ""
    return "; ".join(found[:MOST_SUBJECTS]) + more


def loss_of(run_ids: Sequence[str]) -> str:
    """Return which losses stored runs log as <split>/loss, each once; empty if one is not known."""
    sources = [tracking.find_run(run_id) for run_id in run_ids]
    losses = [family_of_run(one.data.tags).loss(tracking.config(one.info.run_id)) for one in sources]
    return ", ".join(dict.fromkeys(losses)) if all(losses) else ""
