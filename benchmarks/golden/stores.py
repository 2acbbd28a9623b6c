"""A tracking store read with MLflow's client: names of its runs that are the same at every play, and all of a run."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import LoggedModel, Metric, Run

from benchmarks.golden.files import tree
from benchmarks.golden.masks import DIGESTS, MASK, PARAMS, TAGS, Masks, masked

Kinds = dict[str, dict[str, str]]
PARENT, NAME, SOURCES = "mlflow.parentRunId", "mlflow.runName", "nfa.source_run_ids"


class Reader:
    """The store in a folder."""

    def __init__(self, folder: Path) -> None:
        self.client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
        self.names: dict[str, str] = {}

    def runs(self) -> list[Run]:
        """All runs, those of each experiment oldest first."""
        found = self.client.search_experiments(order_by=["experiment_id"])
        return list(
            self.client.search_runs([one.experiment_id for one in found], max_results=5000, order_by=["start_time"])
        )

    def name(self, step: str) -> None:
        """Name the runs that a step has made: the one above by the step, and the others by where they are below it."""
        new = {run.info.run_id: run for run in self.runs() if run.info.run_id not in self.names}
        tops = [run for run in new.values() if PARENT not in run.data.tags]
        for run in sorted(new.values(), key=lambda run: len(_chain(run, new))):
            below = [one.data.tags[NAME] for one in _chain(run, new) if len(tops) > 1 or one not in tops]
            name = "/".join([step, *below]) if len(new) > 1 else step
            taken = sum(other == name or other.startswith(f"{name} #") for other in self.names.values())
            self.names[run.info.run_id] = f"{name} #{taken + 1}" if taken else name

    def record(self, run: Run, masks: Masks) -> Kinds:
        """All that the store knows of a run."""
        artifacts = Path(run.info.artifact_uri.removeprefix("file://"))
        return {
            "run": {"status": run.info.status, "stage": run.info.lifecycle_stage},
            "params": {key: masks.text(value) for key, value in run.data.params.items() if not PARAMS.match(key)},
            "tags": dict(_tags(run, masks)),
            "metrics": {key: _rows(key, self._history(run, key)) for key in run.data.metrics},
            "artifacts": tree(artifacts, masks),
            "inputs": dict(_inputs(run, masks)),
            "models": self._models(run, masks),
        }

    def _history(self, run: Run, key: str) -> Sequence[Metric]:
        return list(self.client.get_metric_history(run.info.run_id, key))

    def _models(self, run: Run, masks: Masks) -> dict[str, str]:
        steps = {output.model_id: output.step for output in run.outputs.model_outputs} if run.outputs else {}
        models = [self.client.get_logged_model(model_id) for model_id in steps]
        found: dict[str, str] = {}
        for model in sorted(models, key=lambda model: (steps[model.model_id], model.name)):
            name = f"{model.name} at {steps[model.model_id]}"
            found[name + " again" * (name in found)] = masks.text(_model(model))
        return found

    def registered(self, masks: Masks) -> dict[str, str]:
        """Registered models with their versions and aliases."""
        found = {}
        for model in self.client.search_registered_models():
            aliases = {f"@{alias}": version for alias, version in model.aliases.items()}
            for version in self.client.search_model_versions(f"name = '{model.name}'"):
                names = sorted(alias for alias, number in aliases.items() if int(number) == int(version.version))
                told = f"{masks.text(version.run_id or '')} {sorted(version.tags.items())} {names}"
                found[f"{masks.text(model.name)}/{version.version}"] = masks.text(told)
        return found


def _chain(run: Run, new: Mapping[str, Run]) -> list[Run]:
    """The new runs from the topmost down to this one."""
    parent = run.data.tags.get(PARENT, "")
    return [*(_chain(new[parent], new) if parent in new else []), run]


def _tags(run: Run, masks: Masks) -> Iterator[tuple[str, str]]:
    for key, value in run.data.tags.items():
        if TAGS.match(key):
            continue
        random_name = key == NAME and PARENT not in run.data.tags and _is_drawn(value)
        yield key, MASK if random_name else masks.text(value)


def _is_drawn(name: str) -> bool:
    """Whether MLflow has made up a name: two words and a number."""
    words = name.split("-")
    return len(words) == 3 and words[0].isalpha() and words[1].isalpha() and words[2].isdigit()


def _rows(key: str, history: Sequence[Metric]) -> str:
    rows = sorted((metric.step, repr(metric.value)) for metric in history)
    return " ".join(f"{step}:{MASK if masked(key) else value}" for step, value in rows)


def _inputs(run: Run, masks: Masks) -> Iterator[tuple[str, str]]:
    for one in run.inputs.dataset_inputs if run.inputs else ():
        tags = sorted((tag.key, tag.value) for tag in one.tags)
        data = one.dataset
        yield f"{data.name} {tags}", masks.text(f"{data.digest} {data.source_type} {data.source} {data.profile}")


def _model(model: LoggedModel) -> str:
    told = [f"type={model.model_type}", f"status={model.status}"]
    told += [f"tag {key}={value}" for key, value in sorted(model.tags.items()) if not key.startswith("mlflow.")]
    told += [f"param {key}={value}" for key, value in sorted((model.params or {}).items()) if key not in DIGESTS]
    metrics = sorted((metric.key, metric.step, repr(metric.value)) for metric in model.metrics or ())
    told += [f"metric {key}:{step}={MASK if masked(key) else value}" for key, step, value in metrics]
    return " ".join(told)
