"""The end of a study: the best trial is registered, and tables, figures, a page and a report are written."""

import dataclasses
import re
from collections.abc import Sequence
from typing import Any

import optuna

from nfa.checkpoint_files import path_of
from nfa.console import stage
from nfa.registry import tracking
from nfa.registry.sweeps.announcements import point_text
from nfa.registry.sweeps.arm_difference import sentence
from nfa.registry.sweeps.axis_importance import importances
from nfa.registry.sweeps.config import TuneConfig
from nfa.registry.sweeps.confirmation import confirm, points_of
from nfa.registry.sweeps.study_figures import study_figures
from nfa.registry.sweeps.study_page import study_page
from nfa.registry.sweeps.study_report import as_json, edges, trials_csv, written
from nfa.registry.sweeps.study_table import (
    ConfirmedArm,
    StudyTable,
    TrialRow,
    best,
    confirmation,
    number_of,
    pareto_front,
    table_of,
)
from nfa.registry.sweeps.trainings import Trainings
from nfa.registry.tracking import TrackedRun

CHAMPION = "champion"
MEANS = "; a trial's value is the mean of its trainings, which are runs below it"


def report(config: TuneConfig, study: optuna.Study, parent: TrackedRun, trainings: Trainings) -> tuple[list[str], str]:
    """Register the best trial, train it again together with the defaults, and write the report and figures.

    Returns the results in words, and the id of the run that holds the best trial's checkpoints; empty if there is none.
    """
    table = table_of(study, config)
    chosen = best_rows(table)
    results = [_reached(table, chosen[0]) if chosen else "none: no finished trial satisfies the constraints"]
    stage("best", results[0])
    best_id = crown(parent, table, chosen) if chosen else ""
    for line in edges(table):
        stage("notice", line)
    points = points_of(config, table) if config.confirm and chosen else {}
    arms, remedies = confirm(config, table, parent, trainings, points) if points else ([], [])
    for difference in confirmation(arms, table.maximise) if arms else []:
        results.append(sentence(difference, table.objectives[difference.objective]))
        stage("fresh", results[-1])
    for line in remedies:
        stage("remedy", line)
    _keep(config, study, parent, table, arms, remedies)
    return [f"best: {results[0]}", *results[1:]], best_id


def best_rows(table: StudyTable) -> list[TrialRow]:
    """Return the best trial (in the first objective), and for several objectives the rest of the Pareto front."""
    found = best(table)
    if found is None:
        return []
    front = pareto_front(table) if len(table.objectives) > 1 else []
    return [found, *(row for row in front if row.number != found.number)]


def crown(parent: TrackedRun, table: StudyTable, chosen: Sequence[TrialRow]) -> str:
    """Tag the best trials, and register the last checkpoint of the first one as the champion; return its run's id."""
    for row in table.rows:
        if row.run_id and row.state == "finished":
            tracking.run_of_another(row.run_id).tag({"nfa.best": str(row in chosen).lower()})
    first = chosen[0]
    name = re.sub(r"""[/:'"`]""", "-", table.name)  # characters that MLflow's names and filters do not allow
    run_id = trained_by(first.run_id)
    run = tracking.find_run(run_id)
    last = max(tracking.epochs(run_id))
    version = tracking.register(name, run, path_of(last, tracking.unit(run_id)), CHAMPION)
    parent.tag({"nfa.best_trial": str(first.number), "nfa.best_run_id": first.run_id})
    stage("champion", f"models:/{name}@{CHAMPION}, version {version}: {tracking.unit(run_id)} {last} of run {run_id}")
    return run_id


def _reached(table: StudyTable, row: TrialRow) -> str:
    reached = ", ".join(f"{key} {value:.5g}" for key, value in zip(table.objectives, row.values, strict=True))
    return f"trial {row.number}: {reached}  ({point_text(row.parameters)})"


def trained_by(run_id: str) -> str:
    """Return the run that owns a trial's checkpoints: the trial's own, or its training with the first seed."""
    if tracking.epochs(run_id):
        return run_id
    run = tracking.find_run(run_id)
    below = tracking.children(run_id, run.info.experiment_id)
    return str(next(child.info.run_id for child in below if tracking.epochs(child.info.run_id)))


def _keep(
    config: TuneConfig,
    study: optuna.Study,
    parent: TrackedRun,
    table: StudyTable,
    arms: Sequence[ConfirmedArm],
    remedies: Sequence[str],
) -> None:
    """Store tables, report, figures and page."""
    shares = [importances(table, index) for index in range(len(table.objectives))]
    defaults = number_of(table, config.defaults)
    run = parent.info
    text = written(table, shares, arms, _facts(config, remedies), defaults=defaults)
    tracking.put_text(run, "study.txt", text.rstrip("\n"))
    tracking.put_text(run, "trials.csv", trials_csv(table))
    tracking.put_json(run, "study.json", {**as_json(table, shares, arms), "remedies": list(remedies)})
    figures = study_figures(_with_subject(table, config), shares, defaults=defaults, unit=config.family.unit)
    for name, figure in figures.items():
        tracking.save_picture(parent, figure, name)
    tracking.put_text(run, "plots/study.html", study_page(study, table))
    stage("report", "study.txt, study.json, trials.csv and the interactive plots/study.html")
    stage("figures", f"plots/ {', '.join(sorted(figures))} as .png and .pdf")


def _with_subject(table: StudyTable, config: TuneConfig) -> StudyTable:
    """Return the table with what its figures say of the trainings, from the first that has finished."""
    row = next((row for row in table.rows if row.state == "finished" and row.run_id), None)
    if row is None:
        return table
    stored = tracking.config(trained_by(row.run_id))
    data = str(stored.get("data", {}).get("name", "")).rpartition("/")[2]
    fixed = [f"{name}={value}" for name, value in config.settings.items()]
    subject = ", ".join([f"{config.workload} on {data}" if data else config.workload, *fixed])
    loss = "" if "loss" in config.axes else config.family.loss(stored)
    return dataclasses.replace(table, subject=subject, loss=loss)


def _facts(config: TuneConfig, remedies: Sequence[str]) -> dict[str, Any]:
    facts = {
        "workload": config.workload,
        "space": ", ".join(config.identity["space"]),
        "fixed": ", ".join(f"{name}={value}" for name, value in config.settings.items()) or "nothing",
        "objective of a run": "; ".join(_how(one.reduction, one.last) for one in config.objectives),
        "constraints": ", ".join(map(str, config.constraints)) or "none",
        "sampler, pruner": f"{config.sampler}, {config.pruning}",
        "trainings of a trial": f"{config.trial_seeds}, seeds from {config.seed}"
        + (MEANS if config.trial_seeds > 1 else ""),
    }
    return {**facts, **({"scaled gradient": "; ".join(remedies)} if remedies else {})}


def _how(reduction: str, last: int) -> str:
    return {"last": "the last value", "best": "the best value"}.get(reduction, f"the mean of the last {last} values")
