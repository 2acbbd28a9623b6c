"""Parameters of a command that trains several times: with which seeds, and how many at a time."""

import dataclasses
from typing import Any

from nfa.errors import Refusal
from nfa.options import option
from nfa.registry.typed_values import seed_list


def seeds_option() -> Any:
    """Declare the parameter for the seeds of several trainings."""
    said = "train once with each of these seeds, such as 1-5 or 1,2,7, instead of seed; empty = once, with seed"
    return option("", said)


def workers_option() -> Any:
    """Declare the parameter for the processes that train at the same time."""
    said = "of several trainings, how many run at a time, each in a process of its own with its share of the CPU cores"
    return option(1, said, at_least=1, below=1025, free_on_resume=True)


def check_seeds(config: Any, *, others: bool = False) -> None:
    """Raise `Refusal` for seeds that are none, for seeds beside a seed, and for processes that would have no training.

    `others` says that the configuration asks for several trainings without seeds. Of a run that is continued, only its
    own parameters tell.
    """
    if config.resume:
        return
    own = next(item.default for item in dataclasses.fields(config) if item.name == "seed")
    if config.seeds and seed_list(config.seeds) and config.seed != own:
        got = f"seeds={config.seeds} with seed={config.seed}"
        raise Refusal(got, "one of them", "leave seed out, because every training has one of the seeds")
    check_workers(config.n_workers, several=others or bool(config.seeds))


def check_workers(n_workers: int, *, several: bool) -> None:
    """Raise `Refusal` for trainings at the same time where there is only one."""
    if n_workers > 1 and not several:
        got = f"n_workers={n_workers} for a single training"
        raise Refusal(got, "n_workers=1", "leave n_workers out, or train with several seeds: seeds=1-3")


def part_name(run_name: str, part: str) -> str:
    """Return the name of one of several trainings to which the user gave a name; empty if the user gave none."""
    return f"{run_name}, {part}" if run_name else ""


def of_seeds(config: Any) -> dict[str, Any]:
    """Return a training for each seed by its name; empty if the configuration asks for no seeds."""
    return {
        (name := f"seed {seed}"): dataclasses.replace(
            config, seed=seed, seeds="", n_workers=1, run_name=part_name(config.run_name, name)
        )
        for seed in (seed_list(config.seeds) if config.seeds else ())
    }
