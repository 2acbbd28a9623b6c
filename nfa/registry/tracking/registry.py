"""Checkpoints in MLflow's model registry."""

import re
from pathlib import Path

from mlflow.entities import Run
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from nfa.errors import Refusal
from nfa.registry.signals import shielded
from nfa.registry.tracking.store import client

MODELS = "models:/"
PATH, NUMBER = "nfa.checkpoint", "nfa.number"
_ADDRESS = re.compile(rf"{MODELS}([^/@]+)(?:@([^/@]+)|/([0-9]+))")


def register(name: str, run: Run, path: str, alias: str) -> str:
    """Register the checkpoint at `path` of a run as model `name` with this alias, and return its version.

    A checkpoint that is already registered keeps its version.
    """
    with shielded():
        versions = _versions(name)
        known = [one for one in versions if one.run_id == run.info.run_id and one.tags.get(PATH) == path]
        version = known[0] if known else _created(name, run, path)
        client().set_registered_model_alias(name, alias, version.version)
        return str(version.version)


def _versions(name: str) -> list[ModelVersion]:
    try:
        client().create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    return list(client().search_model_versions(f"name = '{name}'"))


def _created(name: str, run: Run, path: str) -> ModelVersion:
    number = re.sub(r"\D", "", Path(path).stem)
    source = f"{run.info.artifact_uri}/{path}"
    tags = {PATH: path, NUMBER: str(int(number))}
    return client().create_model_version(name, source, run.info.run_id, tags=tags, await_creation_for=0)


def registered(address: str, epoch: int | str | None) -> tuple[str, int]:
    """Return run id and epoch of "models:/NAME@ALIAS" or "models:/NAME/VERSION"; raise `Refusal` if it is unknown."""
    match = _ADDRESS.fullmatch(address)
    if match is None:
        raise Refusal(f"model {address!r}", f"{MODELS}NAME@ALIAS or {MODELS}NAME/VERSION", f"{MODELS}NAME@champion")
    name, alias, version = match.groups()
    try:
        found = client().get_model_version_by_alias(name, alias) if alias else client().get_model_version(name, version)
    except MlflowException as error:
        raise Refusal(f"model {address!r} ({error})", "a registered model", "see Models in the MLflow UI") from None
    number = found.tags.get(NUMBER, "")
    if not re.fullmatch("[0-9]{1,9}", number) or epoch not in (None, int(number)):
        got = f"model {address!r}" + (f" with epoch={epoch}" if epoch is not None else "")
        raise Refusal(got, "a registered checkpoint, without an epoch", "leave epoch out")
    return str(found.run_id), int(number)
