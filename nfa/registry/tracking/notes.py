"""Descriptions of runs, which MLflow's UI shows as Markdown, and the link to a report at their end."""

import re

from mlflow.entities import Run, RunTag

from nfa.content import json_digest
from nfa.masking import masked
from nfa.registry.tracking.runs import TAG_LENGTH, TrackedRun
from nfa.registry.tracking.store import client

NOTE = "mlflow.note.content"
OURS = "nfa.note"  # digest of the description that we wrote last, without a link
REPORT = "nfa.report"  # id of the newest report of a run
PAGE = "report.html"
_LINK = re.compile(r"\n*Report: \[[^\n]*\]\(#/experiments/\w+/runs/\w+/artifacts/report\.html\)")


def put_note(run: TrackedRun, text: str) -> None:
    """Write a run's description, unless a user has written or changed it; a link to a report stays at its end."""
    tags, text = client().get_run(run.run_id).data.tags, masked(text)[:TAG_LENGTH]
    link, written = _LINK.search(tags.get(NOTE, "")), _LINK.sub("", tags.get(NOTE, ""))
    if NOTE not in tags or json_digest(written) == tags.get(OURS) or (link and not written):
        run.tag({NOTE: text + (link[0] if link else ""), OURS: json_digest(text)})


def link_report(run_id: str, report: Run) -> None:
    """Link a report in a run's description, in place of an earlier one, and tag the run with its id.

    What the user or the run itself has written stays as it is.
    """
    note = client().get_run(run_id).data.tags.get(NOTE, "")
    where = f"#/experiments/{report.info.experiment_id}/runs/{report.info.run_id}/artifacts/{PAGE}"
    name = re.sub(r"([\\`*_~<>|])", r"\\\1", re.sub(r"[\[\]\s]+", " ", report.info.run_name))  # no Markdown
    link = f"Report: [{name}]({where})"
    found = _LINK.search(note)
    if found:
        new = note[: found.start()] + ("\n\n" if found.start() else "") + link + note[found.end() :]
    else:
        new = f"{note}\n\n{link}" if note else link
    client().log_batch(run_id, tags=[RunTag(NOTE, new), RunTag(REPORT, report.info.run_id)])
