"""Runs found in the store: by id, as `latest`, below a parent, by a tag."""

import mlflow
from mlflow.entities import Run, ViewType

from nfa.errors import Refusal
from nfa.registry.tracking.store import client, current_experiment


def find_run(text: str) -> Run:
    """The run that a full id, a unique prefix in the whole store, or `latest` names; `Refusal` otherwise."""
    if text == "latest":
        return _latest()
    if not text.isalnum():
        got = f"run id {text!r}"
        raise Refusal(got, "a run id or its beginning, letters and digits", "copy the id from the MLflow UI")
    experiments = [experiment.experiment_id for experiment in client().search_experiments(view_type=ViewType.ALL)]
    runs = client().search_runs(experiments, f"attributes.run_id LIKE '{text}%'", max_results=6)
    if len(runs) == 1:
        return runs[0]
    if not runs:
        where = mlflow.get_tracking_uri()
        got = f"run id {text!r}"
        raise Refusal(got, f"a run in {where}", "copy the id from the MLflow UI, or check MLFLOW_TRACKING_URI")
    shown = ", ".join(run.info.run_id[:12] for run in runs[:5])
    raise Refusal(f"run id {text!r} (it fits several: {shown})", "a prefix that fits one run", "type more of the id")


def _latest() -> Run:
    runs = client().search_runs(
        [current_experiment()],
        "tags.`nfa.workload` != '' AND tags.`nfa.trained` = 'true' AND tags.`mlflow.parentRunId` IS NULL",
        max_results=1,
        order_by=["attributes.start_time DESC"],
    )
    if not runs:
        raise Refusal("run id 'latest'", "an experiment with a trained run", "train one first: mlflow run . -e train")
    return runs[0]


def children(run_id: str, experiment: str) -> list[Run]:
    """Nested runs of a parent, oldest first."""
    return list(
        client().search_runs(
            [experiment], f"tags.`mlflow.parentRunId` = '{run_id}'", order_by=["attributes.start_time ASC"]
        )
    )


def tagged(tag: str, value: str) -> list[Run]:
    """Runs of the whole store with a tag, newest first."""
    experiments = [experiment.experiment_id for experiment in client().search_experiments()]
    order = ["attributes.start_time DESC"]
    return list(client().search_runs(experiments, f"tags.`{tag}` = '{value}'", order_by=order))
