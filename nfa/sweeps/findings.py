"""What is said at the end of a study: its best trial, registered; tables, figures, pages and the report."""

from collections.abc import Sequence

import optuna

from nfa import tracking
from nfa.config import TuneConfig
from nfa.console import stage
from nfa.studies.tuning import StudyTable, TrialRow, best, pareto_front
from nfa.sweeps.confirmation import confirm, points_of
from nfa.sweeps.lines import point_text
from nfa.sweeps.tables import table_of
from nfa.sweeps.trainings import Trainings
from nfa.tracking import TrackedRun

CHAMPION = "champion"


def report(config: TuneConfig, study: optuna.Study, parent: TrackedRun, trainings: Trainings) -> None:
    """Name the best, train it again beside the defaults, and write and draw what was found."""
    table = table_of(study, config)
    chosen = best_rows(table)
    if not chosen:
        stage("best", "no trial has finished and keeps the constraints")
    else:
        crown(parent, table, chosen)
    points = points_of(config, table) if config.confirm and chosen else {}
    if points:
        confirm(config, table, parent, trainings, points)


def best_rows(table: StudyTable) -> list[TrialRow]:
    """The best trial, first; with several objectives the best in the first one, then the rest of the Pareto front."""
    found = best(table)
    if found is None:
        return []
    front = pareto_front(table) if len(table.objectives) > 1 else []
    return [found, *(row for row in front if row.number != found.number)]


def crown(parent: TrackedRun, table: StudyTable, chosen: Sequence[TrialRow]) -> None:
    """Tag the best trials, and register the last checkpoint of the first of them as the champion."""
    for row in table.rows:
        if row.run_id and row.state == "finished":
            tracking.run_of_another(row.run_id).tag({"nfa.best": str(row in chosen).lower()})
    first = chosen[0]
    name = table.name.replace("/", "-").replace(":", "-")
    run_id = trained_by(first.run_id)
    run = tracking.find_run(run_id)
    last = max(tracking.epochs(run_id))
    version = tracking.register(name, run, tracking.path_of(last, tracking.unit(run_id)), CHAMPION)
    parent.tag({"nfa.best_trial": str(first.number), "nfa.best_run_id": first.run_id})
    reached = ", ".join(f"{key} {value:.5g}" for key, value in zip(table.objectives, first.values, strict=True))
    stage("best", f"trial {first.number}: {reached}  ({point_text(first.parameters)})")
    stage("champion", f"models:/{name}@{CHAMPION}, version {version}: {tracking.unit(run_id)} {last} of run {run_id}")


def trained_by(run_id: str) -> str:
    """The run of a trial that owns its checkpoints: itself, or its training with the first seed."""
    if tracking.epochs(run_id):
        return run_id
    run = tracking.find_run(run_id)
    below = tracking.children(run_id, run.info.experiment_id)
    return str(next(child.info.run_id for child in below if tracking.epochs(child.info.run_id)))
