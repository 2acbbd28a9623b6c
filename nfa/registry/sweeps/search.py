"""The entry point `tune`: a study in a database, its tracked run, and the report at its end."""

import dataclasses
import math
import time
import uuid
from functools import partial
from typing import Any

import optuna

from nfa.console import stage
from nfa.masking import masked
from nfa.registry import tracking
from nfa.registry.commands import command
from nfa.registry.descriptions import describe_end, describe_start
from nfa.registry.sweeps import trial_queue
from nfa.registry.sweeps.announcements import tell
from nfa.registry.sweeps.config import TuneConfig
from nfa.registry.sweeps.findings import report
from nfa.registry.sweeps.phases import Phase, run_phase
from nfa.registry.sweeps.storage import address_of, lasting, open_storage, shown
from nfa.registry.sweeps.studies import PARENT, known_study, load_study, make_study, parent_of
from nfa.registry.sweeps.trainings import Trainings
from nfa.registry.sweeps.trials import Trials, objective_key
from nfa.registry.sweeps.workers import Assignment, work
from nfa.registry.tracking import TrackedRun
from nfa.registry.training.config_json import training_config, write_config

NAMED = 3  # searched parameters in the name of a study


def tune(config: TuneConfig, trainings: Trainings | None = None) -> None:
    """Create a study, continue the one of that name, or join it if it is running in another process.

    `trainings` runs the trainings of this process; None = `Trainings()`.
    """
    url = address_of(config.storage)
    trainings = trainings or Trainings()
    trainings.prepare(config.training({}, seed=config.seed))
    trainings.check_layers(config.candidates)
    plain = config.workload.rpartition("/")[2]  # without the file's folder
    name = masked(config.study_name) or "-".join([plain, *[*config.axes][:NAMED], uuid.uuid4().hex[:6]])
    tracking.reach()  # after all other checks, but before the storage, whose file is created
    storage = open_storage(url)
    study = make_study(config, storage, name)
    made = study is not None
    study = study or known_study(config, storage, name)
    stage("study", f"{name} in {shown(url)}")
    stage("search", f"{_ways(config)} over {', '.join(config.identity['space'])}")
    if any(key.startswith("test/") for key in config.keys):
        stage("notice", "choosing parameters on the test set makes its metrics biased; use val/… instead")
    run_id = None if made else parent_of(study)
    with lasting(name):
        if not _led(config, study, run_id, trainings):
            assert run_id
            _take_part(config, study, run_id, trainings)


def _ways(config: TuneConfig) -> str:
    return "; ".join(f"{'maximise' if one.maximise else 'minimise'} {one.key}" for one in config.objectives)


def _led(config: TuneConfig, study: optuna.Study, run_id: str | None, trainings: Trainings) -> bool:
    """Lead the study in its run, or in a new one; return False if another process is leading it."""
    try:
        with _parent(config, study.study_name, run_id) as parent:
            study.set_user_attr(PARENT, parent.run_id)
            after = _lead(config, study, parent, trainings)
    except tracking.Taken as taken:
        if taken.run_id != run_id:
            raise
        return False
    stage("next", after)
    stage("compare", tracking.link_to_children(parent.info))
    stage("done", parent.link)
    return True


def _parent(config: TuneConfig, name: str, run_id: str | None) -> TrackedRun:
    if run_id:
        return tracking.reopen_run(run_id, finished_too=True)
    tags = {"nfa.study": name}
    called = f"{name}: {', '.join(config.keys)} over {', '.join(config.axes)}"
    return tracking.open_run("tune", config.workload, name=config.run_name, otherwise=called, tags=tags)


def _lead(config: TuneConfig, study: optuna.Study, parent: TrackedRun, trainings: Trainings) -> str:
    """Run the trials, confirm the best, and report; return the next command."""
    what = f"Study {study.study_name}: {_ways(config)} over {', '.join(config.identity['space'])}"
    parent.log_params({**dataclasses.asdict(config), "study_name": study.study_name, "storage": _place(config)})
    write_config(parent, _stored(config, study))
    describe_start(parent, what, f"the same command with study_name={study.study_name} continues it.")
    total = trial_queue.fill(study, config)
    if total < config.n_trials:
        stage("notice", f"the grid has only {total} points, so there are {total} trials")
    trials = Trials(config, study, parent, trainings)
    follow = partial(_follow, config, study, parent)
    phase = Phase(study, trials, begin_search, follow, "trial", study.study_name)
    run_phase(config, phase, parent.run_id, _until(config))
    results, best_id = report(config, study, parent, trainings)
    after = command("analyze", run_id=best_id or parent.run_id)
    pictures = ["optimization_history", "optimization_history_1"]
    describe_end(parent, what, results=results, pictures=pictures, after=after)
    return after


def _place(config: TuneConfig) -> str:
    return shown(address_of(config.storage))


def _stored(config: TuneConfig, study: optuna.Study) -> dict[str, Any]:
    fields = {**dataclasses.asdict(config), "study_name": study.study_name, "storage": _place(config)}
    return {
        **training_config("tune", config.workload, TuneConfig, fields, {}),
        "search": config.identity,
        "defaults": config.defaults,
    }


def _until(config: TuneConfig) -> float:
    return time.time() + config.timeout if config.timeout else math.inf


def _follow(config: TuneConfig, study: optuna.Study, parent: TrackedRun) -> None:
    """Log the objectives of ended trials as series of the study's run; the step is the trial number."""
    trials = trial_queue.latest(study.get_trials(deepcopy=False))
    for slot, trial in trials.items():
        if trial_queue.state_of(trial) == "finished":
            values = {objective_key(config, index): value for index, value in enumerate(trial.values)}
            parent.metrics.log(values, slot)
            if not study.user_attrs.get("trained"):
                parent.tag({"nfa.trained": "true"})
                study.set_user_attr("trained", True)


def begin_search(assignment: Assignment) -> None:
    """Run trials in a process beside the leading one."""
    config = assignment.config
    study = load_study(config, assignment.study_name)
    trials = Trials(config, study, tracking.run_of_another(assignment.parent_id), Trainings())
    work(study, trials, assignment, partial(tell, study, config, "trial"))


def _take_part(config: TuneConfig, study: optuna.Study, run_id: str, trainings: Trainings) -> None:
    """Run trials of a study that another process leads; take over the lead if that process ends."""
    parent = tracking.run_of_another(run_id)
    stage("joined", f"the study is already running: {parent.link}")
    with tracking.pointing_to(run_id):
        trials = Trials(config, study, parent, trainings)
        phase = Phase(study, trials, begin_search, lambda: None, "trial", study.study_name)
        run_phase(config, phase, run_id, _until(config))
    over = tracking.find_run(run_id).data.tags.get("nfa.state") == "finished"
    if over or not _led(config, study, run_id, trainings):
        stage("done", parent.link)
