"""Resume a stored training in its run and with its own parameters."""

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from nfa.console import stage
from nfa.errors import Refusal
from nfa.registry import stored_runs, tracking
from nfa.registry.families.protocol import NamedWorkload
from nfa.registry.families.registry import families, family
from nfa.registry.families.stored import made_again
from nfa.registry.tracking import TrackedRun
from nfa.registry.training.config_json import environment

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Config = TypeVar("Config", bound="DataclassInstance")


def taken_up(asked: Any, entrypoint: str) -> tuple[TrackedRun, Any]:
    """Reopen the run `asked.resume`; return it with the configuration for continuing.

    Raises `Refusal` if other parameters were given, or if a file that resuming needs is damaged.
    """
    run = tracking.reopen_run(asked.resume)
    stored = tracking.config(run.run_id)
    with tracking.reading_of(run.run_id, "config.json"):
        config = config_to_resume(asked, stored, entrypoint)
    stored_runs.check_whole(run.run_id)
    return run, config


def config_to_resume(asked: Any, stored: Mapping[str, Any], entrypoint: str) -> Any:
    """Return the stored configuration with the values of `asked` that may change; raise `Refusal` for other changes.

    `mlflow run` passes every default, so a value equal to the default counts as not given.
    """
    if stored["entrypoint"] != entrypoint:
        made_by, resumable = stored["entrypoint"], [one.entrypoint for one in families()]
        remedy = f"start {made_by} again" if made_by not in resumable else f"-e {made_by} -P resume={asked.resume}"
        raise Refusal(f"resume={asked.resume} (made by {made_by})", f"a run made by {entrypoint}", remedy)
    made_by = family(stored["workload"])
    made_by.code(stored, NamedWorkload(getattr(asked, "workload", "")))
    config = changed_by_user(asked, made_again(made_by.config, stored["train"]))
    now = environment()
    for name, value in stored["environment"].items():
        if now[name] != value:
            stage("notice", f"{name} is {now[name]} but was {value}, so the weights may not be bitwise the same")
    return config


def changed_by_user(asked: "DataclassInstance", before: Config) -> Config:
    """Return `before` with the values of `asked` that may change; raise `Refusal` if `asked` differs otherwise."""
    changes, differing = {}, []
    for item in dataclasses.fields(asked):
        wanted, had = getattr(asked, item.name), getattr(before, item.name, item.default)
        if wanted in (item.default, had) or item.name == "run_name":  # a run keeps its name
            continue
        if item.metadata["free_on_resume"]:
            changes[item.name] = wanted
        else:
            differing.append(f"{item.name}={wanted} (the run has {had})")
    if differing:
        remedy = "leave these out to continue the run, or start a new run without resume"
        raise Refusal(f"resume with {', '.join(differing)}", "the run's own parameters", remedy)
    return dataclasses.replace(before, **changes)
