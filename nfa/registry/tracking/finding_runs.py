"""Find runs in the store: by id, as `latest`, by parent, or by tag."""

import mlflow
from mlflow.entities import Run, ViewType

from nfa.errors import Refusal
from nfa.registry.tracking.store import client, current_experiment


def find_run(text: str) -> Run:
    """Return the run that a full id, a unique prefix, or `latest` names; raise `Refusal` if there is none."""
    if text == "latest":
        return _latest()
    if not text.isalnum():
        got = f"run id {text!r}"
        raise Refusal(got, "a run id or its first letters and digits", "copy the id from the MLflow UI")
    experiments = [experiment.experiment_id for experiment in client().search_experiments(view_type=ViewType.ALL)]
    runs = client().search_runs(experiments, f"attributes.run_id LIKE '{text}%'", max_results=6)
    if len(runs) == 1:
        return runs[0]
    if not runs:
        where = mlflow.get_tracking_uri()
        got = f"run id {text!r}"
        raise Refusal(got, f"a run in {where}", "copy the id from the MLflow UI, or check MLFLOW_TRACKING_URI")
    shown = ", ".join(run.info.run_id[:12] for run in runs[:5])
    got = f"run id {text!r} (it matches several: {shown})"
    raise Refusal(got, "a prefix that matches one run", "type more of the id")


def _latest() -> Run:
    runs = client().search_runs(
        [current_experiment()],
        "tags.`nfa.workload` != '' AND tags.`nfa.trained` = 'true' AND tags.`mlflow.parentRunId` IS NULL",
        max_results=1,
        order_by=["attributes.start_time DESC"],
    )
    if not runs:
        raise Refusal("run id 'latest'", "an experiment with a training run", "train first: mlflow run . -e train")
    return runs[0]


def children(run_id: str, experiment: str) -> list[Run]:
    """Return the child runs of a parent, oldest first."""
    return list(
        client().search_runs(
            [experiment], f"tags.`mlflow.parentRunId` = '{run_id}'", order_by=["attributes.start_time ASC"]
        )
    )


def tagged(tag: str, value: str) -> list[Run]:
    """Return all runs of the store with this tag, newest first."""
    experiments = [experiment.experiment_id for experiment in client().search_experiments()]
    order = ["attributes.start_time DESC"]
    return list(client().search_runs(experiments, f"tags.`{tag}` = '{value}'", order_by=order))
