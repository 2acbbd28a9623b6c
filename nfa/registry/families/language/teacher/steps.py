"""What steps of an experiment with low-rank updates share: the run, its description and its end."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nfa.console import stage
from nfa.registry import tracking
from nfa.registry.analyses.output_folders import copied_into
from nfa.registry.families.language.teacher.updates import UpdateSource
from nfa.registry.tracking import TrackedRun
from nfa.registry.training.config_json import run_config, write_config

SPACE = 8 * 2**20  # reports and figures
FLOAT = 4  # bytes


def open_step(entrypoint: str, title: str, source: UpdateSource, name: str, parent: TrackedRun | None) -> TrackedRun:
    """Open a run for the step, in the experiment of the parent or source, by default named "title of <source>"."""
    otherwise = f"{title} of {source.run.info.run_name if source.run else Path(source.label).name}"
    tags = {"nfa.source_run_ids": source.run_id} if source.run else {}
    experiment = source.run.info.experiment_id if source.run else ""
    return tracking.open_run(
        entrypoint, "lora", name=name, otherwise=otherwise, parent=parent, tags=tags, experiment=experiment
    )


def step_config(entrypoint: str, config: Any, sources: Sequence[str]) -> dict[str, Any]:
    """Return the content of a step's config.json: its entry point, parameters and source runs."""
    fields = {"workload": "lora", entrypoint: dataclasses.asdict(config), "sources": list(sources)}
    return run_config(entrypoint, fields)


def describe_step(run: TrackedRun, config: Any, source: UpdateSource, extra: Mapping[str, Any]) -> None:
    """Parameters, and config.json, of a step."""
    entrypoint = run.info.data.tags["nfa.entrypoint"]
    run.log_params(dataclasses.asdict(config))
    content = {
        **step_config(entrypoint, config, [source.run_id] if source.run else []),
        "source": {
            "label": source.label,
            "what": source.what,
            "checkpoint": source.checkpoint,
            "circular": source.circular,
        },
        "base": {"name": source.base_name, "digest": source.base_digest},
        "modules": list(source.shapes),
        **extra,
    }
    write_config(run, content)


def check_room(run: TrackedRun, source: UpdateSource, rank: int) -> None:
    """Raise `Refusal` if factors of this rank cannot be stored."""
    largest = sum(FLOAT * rank * (o + i + 1) for o, i in source.shapes.values())
    tracking.check_space(run.info, total=largest + SPACE, largest=largest)


def end_step(run: TrackedRun, folder: Path | None, parent: TrackedRun | None, after: str) -> TrackedRun:
    """Copy the files if configured, and print the next command and the link unless the parent does."""
    copied_into(folder, run)
    if parent is None:
        stage("next", after)
        stage("done", run.link)
    return run
