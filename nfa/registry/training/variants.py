"""Several trainings that one configuration asks for: below a common parent, and for several seeds of several optimizers
in a group of each optimizer.
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from itertools import chain, zip_longest
from typing import Any

from nfa.console import stage
from nfa.errors import NfaError
from nfa.registry.commands import command
from nfa.registry.descriptions import describe_end, describe_start, over_several, table_of_children
from nfa.registry.families.protocol import Family, Ready
from nfa.registry.families.registry import family_of
from nfa.registry.run_names import training_name
from nfa.registry.stopwatch import Stopwatch
from nfa.registry.tracking import TrackedRun
from nfa.registry.training import over_seeds
from nfa.registry.training.children import Job, Trainer, child_of, opened_child, train_all, variants_below
from nfa.registry.training.comparison import log_comparison, log_headline
from nfa.registry.training.config_json import write_config
from nfa.registry.training.seeds import of_seeds
from nfa.registry.training.time_spent import timed
from nfa.registry.typed_values import seed_list

PICTURES = ("optimizer_comparison", "training_analysis", "training", "loss_curves")


class TrainingsFailed(NfaError):
    """Some of several trainings have failed."""

    def __init__(self, reasons: Mapping[str, str]) -> None:
        super().__init__("\n".join(f"{name}: {reason}" for name, reason in reasons.items()))


def parts_of(config: Any) -> dict[str, Any]:
    """Return what a configuration asks for, by name: trainings, or groups of them; empty = it is a single training."""
    return family_of(config).variants(config) or of_seeds(config)


def first_of(config: Any) -> Any:
    """Return the first single training that a configuration asks for."""
    return next((first_of(part) for part in parts_of(config).values()), config)


def train_each(parent: TrackedRun, config: Any, ready: Ready, clock: Stopwatch) -> None:
    """Describe the parent, train everything below it and compare it; raise `NfaError` at the end if a part has failed.

    `ready` is the first single training.
    """
    family, failures = family_of(config), dict[str, str]()
    _describe(parent, family, config, ready)
    trainer = Trainer()
    trainer.data.put(first_of(config), ready.data)
    with clock.part(), ExitStack() as groups:
        jobs = [_jobs(parent, name, part, ready, failures, groups) for name, part in parts_of(config).items()]
        by_turns = [job for job in chain.from_iterable(zip_longest(*jobs)) if job]  # to compare groups early
        failures |= train_all(by_turns, trainer, config.n_workers)
    _conclude(parent, family, config, failures, clock)


def _jobs(
    parent: TrackedRun, name: str, config: Any, ready: Ready, failures: Mapping[str, str], groups: ExitStack
) -> list[Job]:
    """Return a training as a job, or open a group and return its trainings; none if it has finished."""
    below = parts_of(config)
    if not below:
        return [Job(name, name, config, (parent.run_id,))]
    run = _group(parent, name, config)
    if run is None:
        return []
    groups.enter_context(_grouped(run, name, config, ready, failures))
    above = run.run_id, parent.run_id
    return [Job(f"{name}, {variant}", variant, training, above) for variant, training in below.items()]


def _group(parent: TrackedRun, name: str, config: Any) -> TrackedRun | None:
    """Return the run of a group, a new one or one to be continued; None if it has finished."""
    found = child_of(parent, name)
    if found and found.data.tags.get("nfa.state") == "finished":
        stage("run", f"{name} has already finished")
        return None
    return opened_child(parent, name, config, found)


@contextmanager
def _grouped(run: TrackedRun, name: str, config: Any, ready: Ready, failures: Mapping[str, str]) -> Iterator[None]:
    """Open a group for its trainings, and compare them at the end; the run has failed if one of them has."""
    clock, family = Stopwatch(), family_of(config)
    with suppress(TrainingsFailed), run, timed(run, clock, family=True):
        _describe(run, family, config, ready)
        describe_start(run, training_name(config), "its parent continues it.")
        with clock.part():
            yield
        own = {training: failures[training] for training in failures if training.startswith(f"{name}, ")}
        _conclude(run, family, config, own, clock)


def _describe(run: TrackedRun, family: Family, config: Any, ready: Ready) -> None:
    stored = family.training.stored(config.resolved(), ready)
    write_config(run, stored)
    apart = ("resume", "seed") if config.seeds else ("resume",)
    if config.seeds and not family.variants(config):
        run.tag({"nfa.seeds": ",".join(map(str, seed_list(config.seeds)))})
    run.log_params({name: value for name, value in stored["train"].items() if name not in apart})


def _describe_end(run: TrackedRun, config: Any, failures: Mapping[str, str]) -> None:
    failed = [f"{name} has failed: {reason.splitlines()[0]}" for name, reason in failures.items()]
    again = command(family_of(config).entrypoint, resume=run.run_id)
    after = again if failures else command("analyze", run_id=run.run_id)
    results = failed or over_several(run)  # means end where the first seed has failed, and would be taken for the last
    table = table_of_children(run)
    describe_end(run, training_name(config), results=results, table=table, pictures=PICTURES, after=after)


def _conclude(run: TrackedRun, family: Family, config: Any, failures: Mapping[str, str], clock: Stopwatch) -> None:
    with clock.section("comparison"):
        if family.variants(config):
            family.training.compare(run)
            log_comparison(run, family, {name: [run_id] for name, run_id in variants_below(run).items()})
        else:
            over_seeds.report(run, family, seed_list(config.seeds))
            log_headline(run, family)
        _describe_end(run, config, failures)
    if failures:
        raise TrainingsFailed(failures)
