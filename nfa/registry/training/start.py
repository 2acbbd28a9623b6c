"""The start of every tracked training, in one process or several."""

import signal
from typing import Any

from nfa.console import stage
from nfa.errors import DivergedError, Refusal
from nfa.parallel import World
from nfa.registry import stored_runs, tracking
from nfa.registry.commands import command
from nfa.registry.descriptions import continued_by, describe_start
from nfa.registry.families.protocol import Family, Ready
from nfa.registry.families.registry import family_of
from nfa.registry.launch import launch
from nfa.registry.run_names import training_name
from nfa.registry.stopwatch import Stopwatch
from nfa.registry.tracking import TrackedRun
from nfa.registry.training.resume import taken_up
from nfa.registry.training.seeds import check_workers
from nfa.registry.training.time_spent import timed
from nfa.registry.training.tracked import train_one
from nfa.registry.training.variants import first_of, parts_of, train_each
from nfa.workloads.devices import choose_device


def train(config: Any, clock: Stopwatch, found: Any = None) -> None:
    """Start a training, or resume the run `config.resume`; with nproc > 1, start the processes and wait for them.

    `found` is what the family's `look` has returned.
    """
    family = family_of(config)
    if family.processes(config) > 1 and not World.launched():
        launch(family.entrypoint, family.processes(config))
        return
    world = World.joined()
    try:
        if world.rank:
            _assist(world)
        else:
            _lead(family, config, clock, found, world)
    finally:
        world.close()


def _assist(world: World) -> None:
    """Train together with the first process, which alone handles signals; this process ends when the first one ends."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    told: tuple[Any, Any] | None = world.broadcast(None)
    if told is None:
        return
    config, rest = told
    try:
        family_of(config).training.assist(config, rest, world)
    except DivergedError:
        return  # the first process reports it
    except RuntimeError as error:
        if "onnection" not in str(error):  # a closed connection: the first process has ended and reports why
            raise


def _lead(family: Family, config: Any, clock: Stopwatch, found: Any, world: World) -> None:
    run = None
    if config.resume:
        run, config = taken_up(config, family.entrypoint)
        family = family_of(config)
    check_launch(family.processes(config), world)
    parts = parts_of(config)
    check_workers(config.n_workers, several=bool(parts))
    ready = prepared(family, first_of(config), clock, run=run, found=found)
    family.training.check_layers([*map(first_of, family.variants(config).values())], lambda _: ready.data)
    run = run or tracking.open_run(
        family.entrypoint, family.name, name=config.run_name, otherwise=training_name(config)
    )
    with run as opened:
        if parts:
            again = continued_by(command(family.entrypoint, resume=opened.run_id))
            describe_start(opened, training_name(config), again)
            with timed(opened, clock, family=True):
                train_each(opened, config, ready, clock)
        else:
            train_one(opened, family, ready, clock, world)
    stage("next", command("analyze", run_id=opened.run_id))
    if parts:
        stage("compare", tracking.link_to_children(opened.info))
    stage("done", opened.link)


def check_launch(processes: int, world: World) -> None:
    """Raise `Refusal` if a launcher has started a different number of processes than nproc."""
    if world.size != processes:
        got = f"nproc={processes} in {world.size} process{'es' if world.size > 1 else ''}"
        remedy = f"nproc={world.size}, or no launcher, because nproc starts the processes"
        raise Refusal(got, "as many processes as nproc", remedy)


def prepared(
    family: Family, config: Any, clock: Stopwatch, *, run: TrackedRun | None = None, found: Any = None, data: Any = None
) -> Ready:
    """Read and check the data of a training, and print their description; raise `Refusal` if it cannot be trained."""
    choose_device(config.device)  # refused before data are read
    data = family.training.read(config, clock, found) if data is None else data
    ready = family.training.prepare(config, data, run if run and stored_runs.has_begun(run.run_id) else None)
    for title, text in family.training.lines(ready):
        stage(title, text)
    return ready
