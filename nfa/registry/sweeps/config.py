"""Parameters of the entry point `tune`."""

import dataclasses
import math
import os
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from nfa.errors import Refusal
from nfa.extras import check_extra
from nfa.options import check_fields, option
from nfa.registry.families.protocol import Family
from nfa.registry.families.registry import families, family
from nfa.registry.sweeps.objectives import (
    Constraint,
    StudyObjective,
    check_logged,
    parse_constraints,
    parse_objectives,
    split_keys,
)
from nfa.registry.sweeps.space import Space, Value, parse_points, parse_space, standing_for, written
from nfa.registry.typed_values import assignments, known, value_of

STORAGES = "sqlite:////FOLDER/FILE.db, or postgresql://USER@HOST/DATABASE with PGPASSWORD or ~/.pgpass"
SQLITE = "sqlite:///"
OBJECTIVES = ", ".join(dict.fromkeys(one.objective for one in families()))
GRID = 10**6  # most points of a grid
OWN = ("seed", "seeds", "n_workers", "resume", "run_name", "nproc")  # of a training, set by the study itself


@dataclass(frozen=True)
class TuneConfig:
    """Search for the parameters that optimise a logged metric: an Optuna study whose trials are tracked trainings."""

    workload: str = option("mlp", "what to train: mlp, eeg, lora, a ready-made one (cnn, …), or your module:function")
    workload_args: str = option("", "arguments of the workload's function, such as width=32,bias=true")
    objective: str = option(
        "auto", f"metric keys, comma-separated; a glob means the mean of its keys; auto = {OBJECTIVES}"
    )
    direction: str = option("auto", "minimize or maximize, one for all or one per objective; auto = by the key")
    reduction: str = option(
        "last", "value of a run: last, best, or mean:K of the last K; one for all or one per objective"
    )
    n_trials: int = option(20, "total number of trials, including those of earlier starts", at_least=1, below=10**5)
    timeout: float = option(0.0, "seconds after which no new trial starts; 0 = no limit", at_least=0)
    space: str = option("", "search space, such as lr=log:1e-5:1,width=64:512/64,rank=4|8|16; empty = the default")
    fixed: str = option("", "fixed parameters of every training, such as epochs=2,width=32,schedule=0-5,10")
    constraint: str = option("", "conditions on the best trial, such as flow/grad_norm<10; comma-separated")
    sampler: str = option(
        "tpe", "how the next trial is chosen: tree of Parzen estimators, Gaussian process, random, or a full grid",
        choices=("tpe", "gp", "random", "grid"),
    )  # fmt: skip
    pruner: str = option(
        "auto", "which trials are stopped early; auto = median for one objective, none for several",
        choices=("none", "median", "hyperband"),
    )  # fmt: skip
    study_name: str = option(
        "", "name of the study; an existing one is continued, or joined while it runs; empty = a new one"
    )
    storage: str = option("", "database address, such as postgresql://…; empty = optuna.db beside the tracking store")
    n_workers: int = option(1, "number of processes that run trials on this machine", at_least=1, below=1025)
    trial_seeds: int = option(1, "trainings per trial, with different seeds; the objective is their mean", at_least=1)
    seed: int = option(1717, "seed of the sampler, and first seed of the trainings", at_least=0, below=2**62)
    enqueue: str = option(
        "defaults", "points to try first: defaults, none, or a list such as lr=0.1,width=64;lr=0.01,width=256"
    )
    confirm: int = option(
        5, "fresh seeds with which the best trial and the defaults are trained again; 0 = none", at_least=0, below=1001
    )
    keep_checkpoints: str = option(
        "ends", "checkpoints kept of each trial: the first and last, or all", choices=("ends", "all")
    )
    run_name: str = option("", "name of the run in MLflow; empty = name of the study and what it searches")

    def __post_init__(self) -> None:
        check_fields(self)
        for training in self.candidates:
            if getattr(training, "optimizer", "") == "all":
                raise Refusal("optimizer=all in a study", "one optimizer per trial", "space=optimizer=sgd|adam|muon,…")
        for logged in {tuple(self.family.metric_keys(training)) for training in self.candidates}:
            for key in self.keys:
                check_logged("objective", key, logged)
            for constraint in self.constraints:
                check_logged("constraint", constraint.key, logged)
        self._check_search()
        _ = self.points

    def _check_search(self) -> None:
        if self.storage and "://" not in self.storage:
            remedy = "leave storage out to use a file beside the tracking store"
            raise Refusal(f"storage={self.storage}", STORAGES, remedy)
        if len(self.objectives) > 1 and self.pruner not in ("auto", "none"):
            got = f"pruner={self.pruner} with {len(self.objectives)} objectives"
            raise Refusal(got, "pruner=none, because several objectives do not rank the trials", "pruner=none")
        if self.sampler == "grid":
            self._check_grid()

    def _check_grid(self) -> None:
        unlisted = [axis for axis in self.axes.values() if not axis.is_listed]
        if unlisted:
            remedy = f"list the values, {unlisted[0].name}=A|B|C, or give a step, {unlisted[0].name}=LOW:HIGH/STEP"
            raise Refusal(f"sampler=grid with {written(unlisted[0])}", "axes with a finite number of values", remedy)
        points = math.prod(axis.count for axis in self.axes.values())
        if points > GRID:
            got = f"sampler=grid with {points:,} points"
            raise Refusal(got, f"a grid of {GRID:,} points at most", "wider steps, fewer values, or sampler=random")

    @property
    def family(self) -> Family:
        """The family of models that is trained."""
        return family(self.workload)

    @property
    def training_type(self) -> type[Any]:
        """The dataclass of the trials' parameters."""
        return self.family.searchable(self.workload_args)

    @cached_property
    def keys(self) -> list[str]:
        """The metric keys or globs of the objectives."""
        return split_keys(self.family.objective if self.objective == "auto" else self.objective)

    @cached_property
    def objectives(self) -> tuple[StudyObjective, ...]:
        """The objectives."""
        return parse_objectives(self.keys, self.direction, self.reduction)

    @cached_property
    def constraints(self) -> tuple[Constraint, ...]:
        """The constraints."""
        return parse_constraints(self.constraint)

    @cached_property
    def pruning(self) -> str:
        """The pruner, with `auto` resolved."""
        if self.pruner != "auto":
            return self.pruner
        return "median" if len(self.objectives) == 1 else "none"

    @cached_property
    def axes(self) -> Space:
        """The search space by parameter."""
        space = parse_space(self.space or self.family.space, self.training_type)
        given = self._typed()
        both = [name for name in space if name in given]
        if self.space and both:
            got = f"{both[0]} in space and in fixed"
            raise Refusal(got, "each parameter in one of them", f"remove {both[0]} from one of them")
        for name in [*space, *given]:
            if name in OWN:
                raise Refusal(f"{name} in a study's trainings", "parameters of the training", _instead(name))
        axes = {name: axis for name, axis in space.items() if name not in given}
        if not axes:
            raise Refusal("a study without searched parameters", "at least one", "space=lr=log:1e-4:1")
        return axes

    def _typed(self) -> dict[str, Value]:
        fields = {item.name: item for item in dataclasses.fields(self.training_type)}
        hints = typing.get_type_hints(self.training_type)
        found: dict[str, Value] = {}
        for name, text in assignments("fixed", self.fixed).items():
            known("fixed", name, fields)
            found[name] = value_of(fields[name], hints[name], text)
        return found

    @cached_property
    def settings(self) -> dict[str, Value]:
        """The fixed parameters of every training, and those that the searched ones need to have an effect."""
        typed = self._typed()
        return {**self.family.needed(typed, self.axes), **typed}

    @cached_property
    def defaults(self) -> dict[str, Value]:
        """The default values of the searched parameters."""
        return self.family.unsearched(self.training_type, self._typed(), self.axes)

    @cached_property
    def points(self) -> list[dict[str, Value]]:
        """The points that are tried first."""
        return parse_points(self.enqueue, self.axes, self.training_type, self.defaults)

    def training(self, point: Mapping[str, Any], *, seed: int) -> Any:
        """Return the training at a point of the space; raise `Refusal` if the point is not valid."""
        return self.training_type(**{**self.settings, **point, "seed": seed}).resolved()

    def trainings(self) -> tuple[Any, ...]:
        """Return trainings that represent the whole space."""
        return self.candidates

    @cached_property
    def candidates(self) -> tuple[Any, ...]:
        """Trainings at points that represent the whole space; raises `Refusal` if one of them is not valid."""
        return tuple(self.training(point, seed=self.seed) for point in standing_for(self.axes))

    @cached_property
    def identity(self) -> dict[str, Any]:
        """The settings in which two starts of the same study must agree."""
        return {
            "workload": self.workload,
            **({"workload_args": self.workload_args} if self.workload_args else {}),
            "objective": [dataclasses.asdict(one) for one in self.objectives],
            "constraint": [str(one) for one in self.constraints],
            "space": [written(axis) for axis in self.axes.values()],
            "fixed": {name: value for name, value in self.settings.items() if name not in ("data_dir", "device")},
            "trial_seeds": self.trial_seeds,
            "seed": self.seed,
        }


def _instead(name: str) -> str:
    own = {"seed": "seed", "seeds": "trial_seeds", "n_workers": "n_workers"}.get(name)
    return f"set it as the study's own parameter: {own}=N" if own else f"leave {name} out"


def check_storage(config: TuneConfig) -> None:
    """Check the folder of an SQLite file, or the driver of PostgreSQL; the server itself is checked later."""
    text = config.storage
    if text.startswith("postgres"):
        check_extra("storage=postgresql://…", "postgresql")
    if text.startswith(SQLITE):
        folder = Path(text.removeprefix(SQLITE).partition("?")[0]).absolute().parent
        if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
            raise Refusal(f"storage={text} (no database file can be created in {folder})", STORAGES, f"create {folder}")
