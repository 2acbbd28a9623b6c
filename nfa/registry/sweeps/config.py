"""Parameters of the entry point that searches for parameters."""

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
GRID = 10**6  # points of a grid
OWN = ("seed", "resume", "run_name", "nproc")  # of a training, but decided by the study


@dataclass(frozen=True)
class TuneConfig:
    """Search for parameters that make a logged metric best: an Optuna study whose trials are tracked trainings."""

    workload: str = option("mlp", "what is trained: mlp, eeg, lora, a ready-made one (cnn, …), or your module:function")
    workload_args: str = option("", "arguments of the function that makes the workload: width=32,bias=true")
    objective: str = option("auto", f"metric keys, comma-separated; a glob = mean over its keys; auto = {OBJECTIVES}")
    direction: str = option("auto", "minimize or maximize, one for all or one each; auto = as the key says")
    reduction: str = option("last", "of a run's steps: last, best, or mean:K of the last K; one for all or one each")
    n_trials: int = option(20, "trials of the study in all, those of earlier starts included", at_least=1, below=10**5)
    timeout: float = option(0.0, "seconds after which no trial begins; 0 = no limit", at_least=0)
    space: str = option("", "what is searched: lr=log:1e-5:1,width=64:512/64,rank=4|8|16; empty = the workload's own")
    fixed: str = option("", "parameters of every training: epochs=2,width=32,schedule=0-5,10")
    constraint: str = option("", "what the best trial must keep: flow/grad_norm<10, comma-separated")
    sampler: str = option(
        "tpe", "where the next trial is: tree of Parzen estimators, Gaussian process, random, or every listed value",
        choices=("tpe", "gp", "random", "grid"),
    )  # fmt: skip
    pruner: str = option(
        "auto", "which trials end early; auto = median for one objective, none for several",
        choices=("none", "median", "hyperband"),
    )  # fmt: skip
    study_name: str = option("", "a study that exists is continued, or joined where it runs; empty = a new one")
    storage: str = option("", "database of the study; empty = optuna.db beside the tracking store; or postgresql://…")
    n_workers: int = option(1, "processes that run trials on this machine", at_least=1, below=1025)
    seeds: int = option(1, "trainings of every trial, with different seeds; the objective is their mean", at_least=1)
    seed: int = option(1717, "seed of the sampler, and the first of the trainings", at_least=0, below=2**62)
    enqueue: str = option("defaults", "points tried first: defaults, none, or lr=0.1,width=64;lr=0.01,width=256")
    confirm: int = option(
        5, "fresh seeds with which the best is trained again beside the defaults; 0 = not", at_least=0, below=1001
    )
    keep_checkpoints: str = option("ends", "of each trial: the first and last, or all", choices=("ends", "all"))
    run_name: str = option("", "name of the run in MLflow; empty = MLflow chooses one")

    def __post_init__(self) -> None:
        check_fields(self)
        for training in self.candidates:
            if getattr(training, "optimizer", "") == "all":
                raise Refusal("optimizer=all in a study", "one optimizer a trial", "space=optimizer=sgd|adam|muon,…")
        for logged in {tuple(self.family.metric_keys(training)) for training in self.candidates}:
            for key in self.keys:
                check_logged("objective", key, logged)
            for constraint in self.constraints:
                check_logged("constraint", constraint.key, logged)
        self._check_search()
        _ = self.points

    def _check_search(self) -> None:
        if self.storage and "://" not in self.storage:
            remedy = "leave storage out for a file beside the tracking store"
            raise Refusal(f"storage={self.storage}", STORAGES, remedy)
        if len(self.objectives) > 1 and self.pruner not in ("auto", "none"):
            got = f"pruner={self.pruner} with {len(self.objectives)} objectives"
            raise Refusal(got, "no pruner: no single value says which trial is behind", "pruner=none")
        if self.sampler == "grid":
            self._check_grid()

    def _check_grid(self) -> None:
        unlisted = [axis for axis in self.axes.values() if not axis.is_listed]
        if unlisted:
            remedy = f"list values, {unlisted[0].name}=A|B|C, or give a step, {unlisted[0].name}=LOW:HIGH/STEP"
            raise Refusal(f"sampler=grid with {written(unlisted[0])}", "axes with listed values", remedy)
        points = math.prod(axis.count for axis in self.axes.values())
        if points > GRID:
            got = f"sampler=grid with {points:,} points"
            raise Refusal(got, f"a grid of {GRID:,} points at most", "wider steps, fewer values, or sampler=random")

    @property
    def family(self) -> Family:
        """What is trained."""
        return family(self.workload)

    @property
    def training_type(self) -> type[Any]:
        """Of the parameters that trials have."""
        return self.family.searchable(self.workload_args)

    @cached_property
    def keys(self) -> list[str]:
        """Metric keys or globs of the objectives."""
        return split_keys(self.family.objective if self.objective == "auto" else self.objective)

    @cached_property
    def objectives(self) -> tuple[StudyObjective, ...]:
        """What is made best."""
        return parse_objectives(self.keys, self.direction, self.reduction)

    @cached_property
    def constraints(self) -> tuple[Constraint, ...]:
        """What the best trial must keep."""
        return parse_constraints(self.constraint)

    @cached_property
    def pruning(self) -> str:
        """The pruner, `auto` resolved."""
        if self.pruner != "auto":
            return self.pruner
        return "median" if len(self.objectives) == 1 else "none"

    @cached_property
    def axes(self) -> Space:
        """What is searched, by parameter."""
        space = parse_space(self.space or self.family.space, self.training_type)
        given = self._typed()
        both = [name for name in space if name in given]
        if self.space and both:
            got = f"{both[0]} in space and in fixed"
            raise Refusal(got, "a parameter in one of them", f"take {both[0]} out of one")
        for name in [*space, *given]:
            if name in OWN:
                raise Refusal(f"{name} in a study's trainings", "parameters of the training", _instead(name))
        axes = {name: axis for name, axis in space.items() if name not in given}
        if not axes:
            raise Refusal("a study without a searched parameter", "at least one", "space=lr=log:1e-4:1")
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
        """Parameters of every training: those given, and what the searched ones need to have an effect."""
        typed = self._typed()
        return {**self.family.needed(typed, self.axes), **typed}

    @cached_property
    def defaults(self) -> dict[str, Value]:
        """The searched parameters as a training without a study has them."""
        return self.family.unsearched(self.training_type, self._typed(), self.axes)

    @cached_property
    def points(self) -> list[dict[str, Value]]:
        """Points that are tried first."""
        return parse_points(self.enqueue, self.axes, self.training_type, self.defaults)

    def training(self, point: Mapping[str, Any], *, seed: int) -> Any:
        """The training at a point of the space; `Refusal` where there is none."""
        return self.training_type(**{**self.settings, **point, "seed": seed}).resolved()

    def trainings(self) -> tuple[Any, ...]:
        """Trainings that stand for the whole space."""
        return self.candidates

    @cached_property
    def candidates(self) -> tuple[Any, ...]:
        """Trainings at points that stand for the whole space; `Refusal` where one cannot be."""
        return tuple(self.training(point, seed=self.seed) for point in standing_for(self.axes))

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What makes two starts parts of the same study."""
        return {
            "workload": self.workload,
            **({"workload_args": self.workload_args} if self.workload_args else {}),
            "objective": [dataclasses.asdict(one) for one in self.objectives],
            "constraint": [str(one) for one in self.constraints],
            "space": [written(axis) for axis in self.axes.values()],
            "fixed": {name: value for name, value in self.settings.items() if name not in ("data_dir", "device")},
            "seeds": self.seeds,
            "seed": self.seed,
        }


def _instead(name: str) -> str:
    return "seed=N is the study's own" if name == "seed" else f"leave {name} out"


def check_storage(config: TuneConfig) -> None:
    """The folder of an SQLite file, or the driver of PostgreSQL; what a server says is known later."""
    text = config.storage
    if text.startswith("postgres"):
        check_extra("storage=postgresql://…", "postgresql")
    if text.startswith(SQLITE):
        folder = Path(text.removeprefix(SQLITE).partition("?")[0]).absolute().parent
        if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
            raise Refusal(f"storage={text} (no database file can be made in {folder})", STORAGES, f"make {folder}")
