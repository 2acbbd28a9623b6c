"""The runs that are analysed, and earlier analyses of the same kind."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mlflow.entities import Run

from nfa.bookkeeping import SECONDS
from nfa.errors import Refusal
from nfa.registry.tracking.artifacts import get_json, has_artifact
from nfa.registry.tracking.checkpoints import epochs, owners_below
from nfa.registry.tracking.finding_runs import find_run
from nfa.registry.tracking.metrics import histories
from nfa.registry.tracking.store import client, reaching_store

DIGEST = "nfa.analysis_digest"
GENERAL = ("entrypoint", "nfa_version", "sources")  # keys of an analysis' config.json beside its parameters
DONE = SECONDS  # logged last at a checkpoint, so it marks finished checkpoints


def find_sources(text: str) -> list[Run]:
    """Return the runs with checkpoints that a comma-separated `run_id` names; a parent stands for those below it."""
    with reaching_store():
        found = [run for part in text.split(",") for run in _sources(part.strip())]
    return list({run.info.run_id: run for run in found}.values())


def _sources(text: str) -> Sequence[Run]:
    run = find_run(text)
    if _is_trained(run):
        return [run]
    owners = [child for child in owners_below(run) if _is_trained(child)]
    if owners:
        return owners
    if analysed := run.data.tags.get("nfa.source_run_ids"):
        raise Refusal(f"run_id={text} (an analysis)", "training runs", f"run_id={analysed}")
    got = f"run_id={text} (it has no checkpoints)"
    raise Refusal(got, "a run with checkpoints, or a parent of such runs", "train first")


def _is_trained(run: Run) -> bool:
    """Return whether a run is a training of nfa with checkpoints."""
    return "nfa.workload" in run.data.tags and bool(epochs(run.info.run_id))


@dataclass(frozen=True)
class Earlier:
    """Results of earlier analyses, finished or not: values and run id by checkpoint, and their description."""

    values: dict[int, dict[str, float]]
    runs: dict[int, str]
    described: dict[str, Any]


def find_earlier(digest: str, entrypoint: str) -> Earlier:
    """Return the checkpoints that analyses with this digest have finished."""
    everywhere = [experiment.experiment_id for experiment in client().search_experiments()]
    values: dict[int, dict[str, float]] = {}
    runs: dict[int, str] = {}
    described: dict[str, Any] = {}
    analyses = client().search_runs(everywhere, f"tags.`{DIGEST}` = '{digest}'")
    for run_id, series in histories(run.info.run_id for run in analyses).items():
        if DONE not in series or not has_artifact(run_id, "config.json"):
            continue
        content = get_json(run_id, "config.json")
        described = {key: value for key, value in content.items() if key not in (*GENERAL, entrypoint)}
        done = series.pop(DONE)
        for epoch in done:
            found = {key: of_key[epoch] for key, of_key in series.items() if epoch in of_key}
            values[epoch] = {**found, DONE: done[epoch]}  # last, because copies are written in this order
            runs[epoch] = run_id
    return Earlier(values, runs, described)
