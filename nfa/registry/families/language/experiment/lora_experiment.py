"""The whole experiment with low-rank updates: teachers, factors, trainings from each start, and their comparison."""

import dataclasses
import sys
from collections.abc import Callable, Mapping

from nfa.console import stage
from nfa.errors import Refusal
from nfa.registry import stored_runs, tracking
from nfa.registry.commands import command
from nfa.registry.descriptions import AGAIN, describe_end, describe_start, table_of_children
from nfa.registry.families.language.comparison.compare_lora import EXPERIMENT, compare_lora
from nfa.registry.families.language.config import CompareLoraConfig
from nfa.registry.families.language.experiment.config import STEPS, LoraExperimentConfig
from nfa.registry.families.language.experiment.estimate import estimate
from nfa.registry.families.language.experiment.plan import ExperimentPlan, Task
from nfa.registry.families.language.questions import QuestionData
from nfa.registry.families.language.ready import Asked
from nfa.registry.families.language.target_modules import check_targets
from nfa.registry.families.language.teacher.lora_svd import lora_svd
from nfa.registry.families.language.teacher.synthesize_teacher import synthesize_teacher
from nfa.registry.families.language.workload import LanguageModel
from nfa.registry.families.registry import family, family_of
from nfa.registry.signals import Interrupted
from nfa.registry.stopwatch import Stopwatch
from nfa.registry.tracking import TrackedRun
from nfa.registry.training.comparison import log_comparison
from nfa.registry.training.config_json import training_config, write_config
from nfa.registry.training.start import prepared
from nfa.registry.training.time_spent import timed
from nfa.registry.training.tracked import train_one

REPORTS = ("comparison_report.txt", "comparison.json")
PICTURES = tuple(f"plots/comparison_random_vs_svd.{kind}" for kind in ("png", "pdf"))


def lora_experiment(config: LoraExperimentConfig, clock: Stopwatch, found: QuestionData | None = None) -> None:
    """A parent run with every step as a child; steps that were done with the same settings are taken by their ids.

    `found` are its questions, where they have been read.
    """
    if _asks(config) and not sys.stdin.isatty():
        raise Refusal("steps=ask without a terminal", "all, or numbers or names of steps", "steps=all")
    first = "full" if config.mode == "full" else "random"
    family = family_of(config.trainings()[0])
    ready = prepared(family, config.training(first, seed=config.seed_list()[0]), clock, found=found)
    sides = [check_targets(training, ready.data.base, None) for training in config.trainings()][-1]
    assert isinstance(ready.workload, LanguageModel)
    plan = ExperimentPlan(config, ready.workload, ready.data.facts)
    config = _asked(config, plan)
    plan.check(config.chosen_steps())
    disk = estimate(plan, sides)
    called = f"{ready.data.facts['name']} {config.mode} LoRA experiment, seeds {config.seeds}"
    with tracking.open_run("lora_experiment", "lora", name=config.run_name, otherwise=called) as parent:
        tracking.check_space(parent.info, total=disk, largest=0)
        parent.log_params(dataclasses.asdict(config))
        fields = dataclasses.asdict(config)
        content = training_config("lora_experiment", "lora", LoraExperimentConfig, fields, ready.data.facts)
        write_config(parent, content)
        describe_start(parent, called, AGAIN)
        try:
            with timed(parent, clock, family=True):
                _Steps(config, plan, ready.data, parent, clock).run()
        except Interrupted:
            stage("stopped", "run the same command again to continue; finished steps are reused")
            raise
        table, after = table_of_children(parent), command("analyze", run_id=parent.run_id)
        describe_end(parent, called, table=table, pictures=["comparison_random_vs_svd"], after=after)
    stage("next", after)
    stage("compare", tracking.link_to_children(parent.info))
    stage("done", parent.link)


def _asks(config: LoraExperimentConfig) -> bool:
    return config.steps.strip() == "ask"


def _asked(config: LoraExperimentConfig, plan: ExperimentPlan) -> LoraExperimentConfig:
    """For steps=ask, let the user choose at the terminal."""
    if not _asks(config):
        return config
    for step in plan.steps:
        done, total = plan.progress(step)
        print(f"  {STEPS.index(step) + 1}  {step:<11} {done} of {total} done")
    while True:
        text = input("steps to run [all]: ").strip() or "all"
        try:
            return dataclasses.replace(config, steps="all" if text == "ask" else text)
        except Refusal as refusal:
            print(refusal)


class _Steps:
    """Runs the tasks in the order of the plan."""

    def __init__(
        self, config: LoraExperimentConfig, plan: ExperimentPlan, asked: Asked, parent: TrackedRun, clock: Stopwatch
    ) -> None:
        self.config, self.plan, self.asked, self.parent, self.clock = config, plan, asked, parent, clock
        self.acts: Mapping[str, Callable[[Task], TrackedRun]] = {
            "train_lora": self._train,
            "synthesize_teacher": lambda task: synthesize_teacher(task.config, self.parent),
            "lora_svd": lambda task: lora_svd(task.config, self.parent),
        }

    def run(self) -> None:
        """Run the chosen tasks that are not done."""
        chosen = self.config.chosen_steps()
        for task in self.plan.tasks():
            if task.step not in chosen:
                continue
            if task.done:
                stage("reused", f"{task.name}: {task.done[:12]}")
                continue
            stage(task.step, task.name)
            with self.clock.section(task.step):
                run = self.acts[task.entrypoint](task)
            run.tag({"nfa.step_digest": task.digest})
            self.plan.runs[task.name] = run.run_id
            self._remember()
        self._remember()
        if "compare" in chosen:
            with self.clock.section("compare"):
                self._compare()

    def _remember(self) -> None:
        tracking.put_json(self.parent.info, EXPERIMENT, {"runs": self.plan.runs})

    def _train(self, task: Task) -> TrackedRun:
        """Train, or continue a training of the same settings that was begun."""
        family = family_of(task.config)
        run = stored_runs.take_up(task.begun, parent=self.parent) if task.begun else None
        if run is None:
            tags = {"nfa.step_digest": task.digest}
            run = tracking.open_run("train_lora", "lora", name=task.name, parent=self.parent, tags=tags)
        with run, self.clock.part() as spent:
            self.parent.tag({"nfa.trained": "true"})
            begun = run if stored_runs.has_begun(run.run_id) else None
            train_one(run, family, family.training.prepare(task.config, self.asked, begun), spent)
        return run

    def _compare(self) -> None:
        ids = ",".join(self.plan.compared())
        run = compare_lora(CompareLoraConfig(run_id=ids, run_name="comparison"), self.parent)
        for path in (*REPORTS, *PICTURES):
            if tracking.has_artifact(run.run_id, path):
                tracking.copy_artifact(self.parent.info, run.run_id, path)
        log_comparison(self.parent, family("lora"), self.plan.arms())
        self.parent.metrics.log({key: of_key[0] for key, of_key in tracking.history(run.run_id).items()}, 0)
