"""A study as plain data, for what is drawn and written about it."""

import optuna

from nfa.registry.sweeps import trial_queue, tuning
from nfa.registry.sweeps.config import TuneConfig
from nfa.registry.sweeps.space import Axis, Choice
from nfa.registry.sweeps.tuning import StudyTable, TrialRow


def table_of(study: optuna.Study, config: TuneConfig) -> StudyTable:
    """The trials by their places in the study; one that was taken up again is one."""
    trials = trial_queue.latest(study.get_trials(deepcopy=False))
    return StudyTable(
        name=study.study_name,
        objectives=tuple(config.keys),
        maximise=tuple(objective.maximise for objective in config.objectives),
        axes=tuple(_axis(axis) for axis in config.axes.values()),
        rows=tuple(_row(slot, trial) for slot, trial in trials.items()),
    )


def _axis(axis: Axis) -> tuning.SearchedAxis:
    if isinstance(axis, Choice):
        return tuning.SearchedAxis(axis.name, "choice", axis.values)
    return tuning.SearchedAxis(axis.name, "log" if axis.log else "range", ends=(axis.low, axis.high))


def _row(slot: int, trial: optuna.trial.FrozenTrial) -> TrialRow:
    state = trial_queue.state_of(trial)
    return TrialRow(
        number=slot,
        state=state,
        parameters=trial_queue.parameters_of(trial),
        values=tuple(trial.values) if state == "finished" and trial.values else (),
        intermediate=dict(trial.intermediate_values),
        feasible=all(beyond <= 0 for beyond in trial.constraints.values()),
        seconds=trial.duration.total_seconds() if trial.duration else None,
        run_id=trial.user_attrs.get(trial_queue.RUN, ""),
        error=trial.user_attrs.get(trial_queue.ERROR, ""),
    )
