"""Descriptions of runs, which MLflow's UI shows as Markdown."""

from nfa.content import json_digest
from nfa.masking import masked
from nfa.registry.tracking.runs import TAG_LENGTH, TrackedRun
from nfa.registry.tracking.store import client

NOTE = "mlflow.note.content"
OURS = "nfa.note"  # digest of the description that we wrote last


def put_note(run: TrackedRun, text: str) -> None:
    """Write a run's description, unless a user has written or changed it."""
    tags, text = client().get_run(run.run_id).data.tags, masked(text)[:TAG_LENGTH]
    if NOTE not in tags or json_digest(tags[NOTE]) == tags.get(OURS):
        run.tag({NOTE: text, OURS: json_digest(text)})
