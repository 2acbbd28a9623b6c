"""A study as plain data, for what is drawn and written about it."""

import optuna

from nfa.config import TuneConfig
from nfa.config.axes import Axis, Choice
from nfa.studies import tuning
from nfa.studies.tuning import StudyTable, TrialRow
from nfa.sweeps import tickets


def table_of(study: optuna.Study, config: TuneConfig) -> StudyTable:
    """The trials by their places in the study; one that was taken up again is one."""
    trials = tickets.latest(study.get_trials(deepcopy=False))
    return StudyTable(
        name=study.study_name,
        objectives=tuple(config.keys),
        maximise=tuple(objective.maximise for objective in config.objectives),
        axes=tuple(_axis(axis) for axis in config.axes.values()),
        rows=tuple(_row(slot, trial) for slot, trial in trials.items()),
    )


def _axis(axis: Axis) -> tuning.Axis:
    if isinstance(axis, Choice):
        return tuning.Axis(axis.name, "choice", axis.values)
    return tuning.Axis(axis.name, "log" if axis.log else "range", ends=(axis.low, axis.high))


def _row(slot: int, trial: optuna.trial.FrozenTrial) -> TrialRow:
    state = tickets.state_of(trial)
    return TrialRow(
        number=slot,
        state=state,
        parameters=tickets.parameters_of(trial),
        values=tuple(trial.values) if state == "finished" and trial.values else (),
        intermediate=dict(trial.intermediate_values),
        feasible=all(beyond <= 0 for beyond in trial.constraints.values()),
        seconds=trial.duration.total_seconds() if trial.duration else None,
        run_id=trial.user_attrs.get(tickets.RUN, ""),
        error=trial.user_attrs.get(tickets.ERROR, ""),
    )
