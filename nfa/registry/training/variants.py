"""Several trainings of one configuration, each a child run of a common parent, which compares them."""

from collections.abc import Mapping
from typing import Any

from nfa.console import stage
from nfa.errors import NfaError
from nfa.registry import stored_runs, tracking
from nfa.registry.commands import command
from nfa.registry.descriptions import describe_end, table_of_children
from nfa.registry.families.protocol import Family, Ready
from nfa.registry.run_names import training_name
from nfa.registry.signals import Interrupted
from nfa.registry.stopwatch import Stopwatch
from nfa.registry.tracking import TrackedRun
from nfa.registry.training.config_json import write_config
from nfa.registry.training.tracked import train_one

PICTURES = ("optimizer_comparison",)


def train_each(
    parent: TrackedRun, family: Family, config: Any, variants: Mapping[str, Any], ready: Ready, clock: Stopwatch
) -> None:
    """Describe the parent, train all children and compare them; raise `NfaError` at the end if one has failed."""
    stored = family.training.stored(config, ready)
    write_config(parent, stored)
    parent.log_params({name: value for name, value in stored["train"].items() if name != "resume"})
    failures = train_children(parent, family, variants, ready, clock)
    with clock.section("comparison"):
        family.training.compare(parent)
        what, after = f"{family.subject(stored)}: {', '.join(variants)}", command("analyze", run_id=parent.run_id)
        describe_end(parent, what, table=table_of_children(parent), pictures=PICTURES, after=after)
    if failures:
        raise NfaError("\n".join(f"{name}: {reason}" for name, reason in failures.items()))


def train_children(
    parent: TrackedRun, family: Family, trainings: Mapping[str, Any], ready: Ready, clock: Stopwatch
) -> dict[str, str]:
    """Train or resume each child by name; a failure does not stop the others.

    Returns the reasons of failures by name.
    """
    existing = {
        run.data.tags.get("nfa.variant"): run
        for run in tracking.children(parent.run_id, parent.info.info.experiment_id)
    }
    failures = {}
    for name, training in trainings.items():
        found = existing.get(name)
        if found and found.data.tags.get("nfa.state") == "finished":
            stage("run", f"{name} has already finished")
            continue
        stage("training", name)
        child = _child(parent, family, name, training, found)
        try:
            with child, clock.part() as spent:
                run = child if stored_runs.has_begun(child.run_id) else None
                train_one(child, family, family.training.prepare(training, ready.data, run, ready.example_ids), spent)
        except NfaError as error:
            failures[name] = str(error)
        except Interrupted:
            stage("stopped", f"continue the unfinished trainings with resume={parent.run_id}")
            raise
        finally:
            if tracking.epochs(child.run_id):
                parent.tag({"nfa.trained": "true"})
    return failures


def _child(parent: TrackedRun, family: Family, variant: str, training: Any, found: Any) -> TrackedRun:
    """Return the run of a training: the one that was started before, or a new one."""
    if found:
        return stored_runs.take_up(found.info.run_id, parent=parent)
    name, tags = training.run_name or training_name(training), {"nfa.variant": variant}
    return tracking.open_run(family.entrypoint, family.name, name=name, parent=parent, tags=tags)
