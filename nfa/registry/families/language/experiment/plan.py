"""The tasks of an experiment with low-rank updates, and which of them have been done before."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nfa import __version__
from nfa.content import json_digest
from nfa.errors import Refusal
from nfa.registry import tracking
from nfa.registry.families.language.comparison.arms import operations_of
from nfa.registry.families.language.config import TrainLoraConfig
from nfa.registry.families.language.experiment.config import LoraExperimentConfig
from nfa.registry.families.language.workload import LanguageModel

DIGEST = "nfa.step_digest"
NAMES_AND_PLACES = ("run_name", "output_dir", "resume", "device")  # decide no value
ENTRYPOINTS = {
    "base": "train_lora", "synthesize": "synthesize_teacher", "svd": "lora_svd", "svd-lora": "train_lora",
}  # fmt: skip
UNKNOWN = "0"  # for the id of a run that is still to be made


@dataclass(frozen=True)
class Task:
    """One run of the experiment; `done` and `begun` are ids of a finished and an unfinished run with these settings."""

    step: str
    name: str
    entrypoint: str
    config: Any
    digest: str
    done: str = ""
    begun: str = ""


class ExperimentPlan:
    """The tasks in order; configurations of later tasks hold run ids of earlier ones."""

    def __init__(self, config: LoraExperimentConfig, workload: LanguageModel, facts: Mapping[str, Any]) -> None:
        self.config, self.workload, self.facts = config, workload, facts
        self.runs: dict[str, str] = {}  # ids of finished runs by task name
        self._longer_steps: dict[tuple[str, str], int] = {}  # by the finished runs whose operations decide
        self.steps = [step for step in dataclasses.replace(config, steps="all").chosen_steps() if step != "compare"]

    def tasks(self) -> Iterator[Task]:
        """Yield every task, with what is known about it at that point."""
        seeds = self.config.seed_list()
        if self.config.mode == "full":
            yield self._task("base", "full teacher", self.config.training("full", seed=seeds[0]))
            yield self._task("svd", "svd of the teacher", self._svd("full teacher", seeds[0]))
        for seed in seeds:
            if self.config.mode == "simplified":
                yield self._training("base", "random", seed)
                source = self._id(f"random, seed {seed}")
                yield self._task("synthesize", f"teacher, seed {seed}", self.config.synthesis(source, seed=seed))
                yield self._task("svd", f"svd, seed {seed}", self._svd(f"teacher, seed {seed}", seed))
            else:
                yield self._training("svd-lora", "random", seed)
            for start in self.config.start_list():
                yield self._training("svd-lora", start, seed)
            if self.config.equal_compute and self._has_cost:
                yield self._longer(seed)

    @property
    def _has_cost(self) -> bool:
        return any(start.startswith("svd") for start in self.config.start_list())

    def _svd(self, source: str, seed: int) -> Any:
        return self.config.svd(self._id(source), seed=seed)

    def _id(self, name: str) -> str:
        return self.runs.get(name, UNKNOWN)

    def factors(self, seed: int) -> str:
        """Return the id of the factors that a seed starts from."""
        return self._id("svd of the teacher" if self.config.mode == "full" else f"svd, seed {seed}")

    def _training(self, step: str, start: str, seed: int) -> Task:
        factors = self.factors(seed) if start.startswith("svd") else ""
        return self._task(step, f"{start}, seed {seed}", self.config.training(start, seed=seed, factors=factors))

    def _longer(self, seed: int) -> Task:
        """Return the task of a random adapter that is trained with the compute of the others' start and training."""
        steps = self.longer_steps()
        name = f"random at equal compute, seed {seed}"
        return self._task("svd-lora", name, self.config.training("random", seed=seed, steps=steps))

    def longer_steps(self) -> int:
        """Return the steps in which a random adapter uses the compute of the first seed's start and training.

        If that is unknown, it is twice the number of steps. The number is the same for all seeds and sufficient for
        each, although the cost of a step depends on the lengths of its questions.
        """
        first = self.config.seed_list()[0]
        runs = self.factors(first), self._id(f"random, seed {first}")
        if runs not in self._longer_steps:
            self._longer_steps[runs] = self._steps_at_equal_cost(*runs)
        return self._longer_steps[runs]

    def _steps_at_equal_cost(self, factors: str, short: str) -> int:
        seeds = self.config.seed_list()
        known = UNKNOWN not in (factors, short)
        cost, own = (operations_of(factors), operations_of(short)) if known else (None, None)
        if not cost or not own:
            return 2 * self._random(seeds[0]).steps
        return max(_steps_for(self._random(seed), 1 + cost / own) for seed in seeds)

    def _random(self, seed: int) -> LanguageModel:
        return self.workload.variant(self.config.training("random", seed=seed))

    def _task(self, step: str, name: str, config: Any) -> Task:
        entrypoint = ENTRYPOINTS[step]
        digest = self._digest(entrypoint, config)
        done, begun = ("", "") if UNKNOWN in (_source(config),) else _before(digest, entrypoint)
        if done:
            self.runs[name] = done
        return Task(step, name, entrypoint, config, digest, done, begun)

    def _digest(self, entrypoint: str, config: Any) -> str:
        fields = {name: value for name, value in dataclasses.asdict(config).items() if name not in NAMES_AND_PLACES}
        facts = {"base": self.workload.base.digest, "data": self.facts["digest"]}
        return json_digest({"entrypoint": entrypoint, "config": fields, "nfa_version": __version__, **facts})

    def progress(self, step: str) -> tuple[int, int]:
        """Return how many of a step's tasks are done, and their total number."""
        tasks = [task for task in self.tasks() if task.step == step]
        return sum(bool(task.done) for task in tasks), len(tasks)

    def check(self, chosen: Sequence[str]) -> None:
        """Raise `Refusal` if a chosen step needs another step that is neither chosen nor done."""
        needed = {
            "synthesize": ("base",),
            "svd": ("base", "synthesize"),
            "svd-lora": ("svd",) if self._has_cost else (),
            "compare": ("base", "svd-lora"),
        }
        for step in chosen:
            for before in needed.get(step, ()):
                if before in self.steps and before not in chosen and (missing := self._missing(before)):
                    got = f"steps={self.config.steps}: {step} needs {before}, but {missing} is not done with these"
                    raise Refusal(got, f"{before} among the steps, or done earlier", "steps=all")

    def _missing(self, step: str) -> str:
        return next((task.name for task in self.tasks() if task.step == step and not task.done), "")

    def compared(self) -> list[str]:
        """Return the ids of all trainings except the teacher's."""
        return [self.runs[task.name] for task in self.tasks() if _is_compared(task) and task.name in self.runs]


    def arms(self) -> dict[str, list[str]]:
        """Return the ids of these trainings by their start, over seeds."""
        found: dict[str, list[str]] = {}
        for task in self.tasks():
            if _is_compared(task) and task.name in self.runs:
                found.setdefault(task.name.rpartition(", seed ")[0], []).append(self.runs[task.name])
        return found


def _steps_for(workload: LanguageModel, factor: float) -> int:
    """Return the number of steps that see `factor` times as many tokens as the training."""
    steps = workload.steps
    seen = sum(map(workload.positions, range(steps)))
    wanted = factor * seen
    while seen < wanted:
        seen += workload.positions(steps)
        steps += 1
    return steps


def _is_compared(task: Task) -> bool:
    return isinstance(task.config, TrainLoraConfig) and task.config.init != "full"


def _source(config: Any) -> str:
    return str(getattr(config, "factors", "") or getattr(config, "run_id", ""))


def _before(digest: str, entrypoint: str) -> tuple[str, str]:
    """Return the ids of a finished and an unfinished run with these settings; empty if there is none."""
    found = {"finished": "", "unfinished": ""}
    for run in tracking.tagged(DIGEST, digest):
        finished = run.data.tags.get("nfa.state") == "finished"
        kept = finished or (entrypoint == "train_lora" and tracking.can_continue(run))
        kind = "finished" if finished else "unfinished"
        found[kind] = found[kind] or (run.info.run_id if kept else "")
    return found["finished"], found["unfinished"]
