"""The study in its database, and the tracked run that stands for it."""

import time
from collections.abc import Sequence

import optuna
from optuna.exceptions import DuplicatedStudyError
from optuna.storages import BaseStorage
from optuna.study import StudyDirection

from nfa.errors import Refusal
from nfa.masking import masked_values
from nfa.registry import tracking
from nfa.registry.sweeps.config import TuneConfig
from nfa.registry.sweeps.samplers import SeededBySlot, pruner
from nfa.registry.sweeps.storage import address_of, open_storage

IDENTITY, PARENT = "nfa", "run_id"  # attributes of a study: its settings, and its tracked run
PATIENCE = 30.0  # seconds to wait for another process that is creating the study


def make_study(config: TuneConfig, storage: BaseStorage, name: str) -> optuna.Study | None:
    """Create a study; return None if one of that name exists."""
    try:
        study = optuna.create_study(storage=storage, study_name=name, directions=directions(config))
    except DuplicatedStudyError:
        return None
    study.set_metric_names(config.keys)  # names of the objectives in dashboards
    study.set_user_attr(IDENTITY, config.identity)
    return load_study(config, name, storage)


def directions(config: TuneConfig) -> list[StudyDirection]:
    """Return the directions of the objectives."""
    return [StudyDirection.MAXIMIZE if one.maximise else StudyDirection.MINIMIZE for one in config.objectives]


def load_study(config: TuneConfig, name: str, storage: BaseStorage | None = None) -> optuna.Study:
    """Load the study of that name with the configured sampler and pruner."""
    return optuna.load_study(
        study_name=name,
        storage=storage or open_storage(address_of(config.storage)),
        sampler=SeededBySlot(config.sampler, config.seed),
        pruner=pruner(config.pruning),
    )


def known_study(config: TuneConfig, storage: BaseStorage, name: str) -> optuna.Study:
    """Load the study of that name; raise `Refusal` if its settings differ, or another program created it."""
    study = load_study(config, name, storage)
    made = _awaited(study)
    if made is None:
        got, allowed = f"study_name={name} (not created by tune)", "a study of tune, or a new name"
        raise Refusal(got, allowed, "choose another study_name")
    now = masked_values(config.identity)  # masked as the study's attributes are
    differing = [f"{key} {_text(now[key])} (it has {_text(made.get(key))})" for key in now if made.get(key) != now[key]]
    if differing:
        got = f"study_name={name} with {'; '.join(differing)}"
        raise Refusal(got, "the settings of the existing study", "choose another study_name for another search")
    return study


def _awaited(study: optuna.Study) -> dict[str, object] | None:
    until = time.monotonic() + PATIENCE
    while PARENT not in study.user_attrs:
        if IDENTITY not in study.user_attrs and study.get_trials(deepcopy=False):
            return None
        if time.monotonic() > until:
            break
        time.sleep(0.2)
    return study.user_attrs.get(IDENTITY)


def _text(value: object) -> str:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ",".join(_text(one) for one in value) or "nothing"
    if isinstance(value, dict):
        return " ".join(f"{key}={one}" for key, one in value.items()) or "nothing"
    return str(value)


def parent_of(study: optuna.Study) -> str | None:
    """Return the id of the study's tracked run, or None; raise `Refusal` if the run is not in this store."""
    run_id: str | None = study.user_attrs.get(PARENT)
    if run_id:
        try:
            tracking.find_run(run_id)
        except Refusal:
            got = f"study_name={study.study_name}, whose run {run_id} is not in this tracking store"
            remedy = "set MLFLOW_TRACKING_URI, or choose another study_name"
            raise Refusal(got, "a study whose run is in this store", remedy) from None
    return run_id
