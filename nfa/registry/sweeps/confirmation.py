"""Confirmation: the best trial and the defaults, trained again with fresh seeds.

The best of many trials is selected partly by luck; only fresh seeds give an unbiased comparison.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState, create_trial

from nfa.console import muted, stage
from nfa.plain_text import counted
from nfa.registry import tracking
from nfa.registry.analyses import gradient_flow_comparison
from nfa.registry.analyses.arms import Arm
from nfa.registry.analyses.config import GradientFlowConfig
from nfa.registry.analyses.gradient_flow import GradientFlow
from nfa.registry.analyses.stored import analyse_each
from nfa.registry.commands import command
from nfa.registry.descriptions import describe_end, table_of_children
from nfa.registry.families.assessment import Remedy
from nfa.registry.sweeps import trial_queue
from nfa.registry.sweeps.announcements import tell
from nfa.registry.sweeps.config import TuneConfig
from nfa.registry.sweeps.phases import Phase, run_phase
from nfa.registry.sweeps.space import Range
from nfa.registry.sweeps.storage import address_of, open_storage
from nfa.registry.sweeps.studies import directions, load_study
from nfa.registry.sweeps.study_table import ConfirmedArm, StudyTable, best
from nfa.registry.sweeps.trainings import Trainings
from nfa.registry.sweeps.trials import Trials
from nfa.registry.sweeps.workers import Assignment, work
from nfa.registry.tracking import TrackedRun

DEFAULTS, ARM, SEED = "defaults", "arm", "seed"
Points = Mapping[str, Mapping[str, Any]]


def points_of(config: TuneConfig, table: StudyTable) -> dict[str, dict[str, Any]]:
    """Return the points to train again, by name: the defaults, and each objective's best trial if it differs."""
    points: dict[str, dict[str, Any]] = {DEFAULTS: dict(config.defaults)}
    for index, key in enumerate(config.keys):
        found = best(table, index)
        if found and found.parameters not in [*points.values()]:
            points["best" if len(config.keys) == 1 else f"best {key}"] = dict(found.parameters)
    remedy = config.family.remedy
    axis = config.axes.get(remedy.parameter) if remedy else None
    if remedy and isinstance(axis, Range) and axis.low <= 1 and "best" in points:
        points |= _scaled(points["best"], axis, remedy)
    return points if len(points) > 1 else {}


def _scaled(found: Mapping[str, Any], axis: Range, remedy: Remedy) -> dict[str, dict[str, Any]]:
    """Return the best point without gradient scaling and, if its scale has little effect, with the largest scale."""
    scale = remedy.parameter
    without = {f"{scale}=1": {**found, scale: 1.0}} if found[scale] != 1 else {}
    if found[scale] >= remedy.felt:
        return without
    return {**without, f"{scale}={axis.high:g}": {**found, scale: axis.high}}


class Confirmations(Trials):
    """Trains the arm and seed that a ticket names."""

    def __call__(self, trial: optuna.Trial) -> list[float]:
        trial.set_user_attr(trial_queue.PROCESS, tracking.sign())
        return self.ended(trial, dict(trial.user_attrs["point"]))

    def name(self, trial: optuna.Trial, point: Mapping[str, Any]) -> str:  # noqa: ARG002 - the arm stands for it
        return f"{trial.user_attrs[ARM]}, seed {trial.user_attrs[SEED]}"

    def seeds(self, trial: optuna.Trial) -> list[int]:
        return [int(trial.user_attrs[SEED])]

    def asked(self, trial: optuna.Trial) -> optuna.Trial | None:  # noqa: ARG002 - no training is pruned
        return None


def begin_confirmation(assignment: Assignment) -> None:
    """Run trainings of the confirmation in a further process."""
    study = load_study(assignment.config, assignment.study_name)
    run = tracking.run_of_another(assignment.parent_id)
    trainings = Confirmations(assignment.config, study, run, Trainings())
    work(study, trainings, assignment, partial(tell, study, assignment.config, "training"))


def confirm(
    config: TuneConfig, table: StudyTable, parent: TrackedRun, trainings: Trainings, points: Points
) -> tuple[list[ConfirmedArm], list[str]]:
    """Train every arm with every fresh seed, in a run below the study's; finished trainings are kept.

    Returns the arms and, if gradient scaling was searched, lines that state whether updates follow the scaled gradient.
    """
    found = best(table)
    assert found
    seeds = [config.seed + config.trial_seeds + index for index in range(config.confirm)]
    stage("confirm", f"{' and '.join(points)}, {counted(len(seeds), 'fresh seed')}")
    title = f"confirmation of trial {found.number}"
    study = _study(config, f"{table.name} {title}", points, seeds)
    with _run(config, study, parent, title) as run:
        study.set_user_attr("run_id", run.run_id)
        objective = Confirmations(config, study, run, trainings)
        phase = Phase(study, objective, begin_confirmation, lambda: None, "training", table.name)
        run_phase(config, phase, run.run_id)
        after = command("gradient_flow", run_id=run.run_id)
        describe_end(run, f"{title} of {table.name}", table=table_of_children(run), after=after)
        remedy = config.family.remedy
        remedies = _remedies(run, study, remedy.parameter) if remedy and remedy.parameter in config.axes else []
    return _arms(config, study, points, seeds), remedies


def _run(config: TuneConfig, study: optuna.Study, parent: TrackedRun, title: str) -> TrackedRun:
    if known := study.user_attrs.get("run_id"):
        return tracking.reopen_run(known, parent=parent, finished_too=True)
    tags = {"nfa.variant": "confirmation", "nfa.study": study.study_name}
    return tracking.open_run("tune", config.workload, name=title, parent=parent, tags=tags)


def _study(config: TuneConfig, name: str, points: Points, seeds: Sequence[int]) -> optuna.Study:
    """Create one ticket per seed and arm, ordered by seed."""
    storage = open_storage(address_of(config.storage))
    made = optuna.create_study(storage=storage, study_name=name, directions=directions(config), load_if_exists=True)
    made.set_metric_names(config.keys)  # shown by dashboards
    study = load_study(config, name, storage)
    there = {(trial.user_attrs[ARM], trial.user_attrs[SEED]) for trial in study.get_trials(deepcopy=False)}
    slot = len(trial_queue.latest(study.get_trials(deepcopy=False)))
    for seed in seeds:
        for arm, point in points.items():
            if (arm, seed) not in there:
                told = {trial_queue.SLOT: slot, ARM: arm, SEED: seed, "point": dict(point)}
                study.add_trial(create_trial(state=TrialState.WAITING, user_attrs=told))
                slot += 1
    return study


def _arms(config: TuneConfig, study: optuna.Study, points: Points, seeds: Sequence[int]) -> list[ConfirmedArm]:
    ended = {
        (trial.user_attrs[ARM], trial.user_attrs[SEED]): trial
        for trial in trial_queue.latest(study.get_trials(deepcopy=False)).values()
    }
    trials = {name: {seed: ended.get((name, seed)) for seed in seeds} for name in points}
    return [_arm(config, name, point, trials[name]) for name, point in points.items()]


def _arm(
    config: TuneConfig, name: str, point: Mapping[str, Any], trials: Mapping[int, FrozenTrial | None]
) -> ConfirmedArm:
    states = {seed: trial and trial_queue.state_of(trial) for seed, trial in trials.items()}
    values = {seed: trial.values for seed, trial in trials.items() if trial and states[seed] == "finished"}
    return ConfirmedArm(
        name,
        dict(point),
        tuple(
            tuple(values[seed][index] if seed in values else None for seed in trials)
            for index in range(len(config.keys))
        ),
        tuple(trials),
        tuple(seed for seed, state in states.items() if state == "failed"),
    )


def _remedies(run: TrackedRun, study: optuna.Study, scale: str) -> list[str]:
    """Return whether updates follow a scaled gradient: gradient flow of the trainings, compared with scale 1."""
    trials = [
        trial
        for trial in trial_queue.latest(study.get_trials(deepcopy=False)).values()
        if trial.state == TrialState.COMPLETE and trial.user_attrs[ARM] != DEFAULTS
    ]
    unscaled = [trial for trial in trials if trial.user_attrs["point"][scale] == 1]
    if not unscaled or len(unscaled) == len(trials):
        return []
    trials.sort(key=lambda trial: trial.user_attrs["point"][scale] != 1)
    sources = [tracking.find_run(trial.user_attrs[trial_queue.RUN]) for trial in trials]
    stage("flow", f"gradient flow of {len(sources)} trainings")
    with muted():
        parts = analyse_each(GradientFlow(GradientFlowConfig()), sources)
        ids = dict(zip(parts, [source.info.run_id for source in sources], strict=True))
        labels = dict(zip(parts, [str(trial.user_attrs[ARM]) for trial in trials], strict=True))
        arms: list[Arm] = gradient_flow_comparison.compare(run, parts, ids, seed=0, labels=labels)
    return gradient_flow_comparison.remedy_lines(arms)
