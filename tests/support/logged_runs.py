"""Runs with values, made directly in the store: no training takes place."""

from collections.abc import Mapping

from mlflow.entities import Metric, Param, RunTag

from nfa.registry.tracking.store import client

TRAINED = {"nfa.entrypoint": "train", "nfa.workload": "mlp", "nfa.state": "finished", "nfa.trained": "true"}
Logged = Mapping[str, Mapping[int, float]]
_clock = iter(range(1, 10**9))


def logged(
    series: Logged, name: str = "a run", *, parent: str = "", tags: Mapping[str, str] = TRAINED, **params: object
) -> str:
    """The id of a new run with these series; each run starts after the one before."""
    nested = {"mlflow.parentRunId": parent} if parent else {}
    run = client().create_run("0", start_time=next(_clock), run_name=name, tags={**tags, **nested})
    rows = [Metric(key, value, 0, step) for key, of in series.items() for step, value in of.items()]
    texts = [Param(key, str(value)) for key, value in params.items()]
    for start in range(0, len(rows), 1000):
        client().log_batch(run.info.run_id, metrics=rows[start : start + 1000])
    client().log_batch(run.info.run_id, params=texts)
    return str(run.info.run_id)


def analysis(series: Logged, *sources: str, parent: str = "") -> str:
    """The id of a new analysis of runs: a child of the only one, or of none."""
    tags = {"nfa.entrypoint": "analyze", "nfa.workload": "mlp", "nfa.source_run_ids": ",".join(sources)}
    return logged(series, "an analysis", tags=tags, parent=parent or (sources[0] if len(sources) == 1 else ""))


def tagged(run_id: str, **tags: str) -> str:
    """The same run with more tags, whose names begin with nfa."""
    client().log_batch(run_id, tags=[RunTag(f"nfa.{key}", value) for key, value in tags.items()])
    return run_id
