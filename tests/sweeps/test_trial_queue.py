"""Trials as tickets: each is taken once, whatever number of processes there is, and put back where one was lost."""

import json
import multiprocessing
from collections import Counter
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState
from sqlalchemy.engine import make_url

from nfa.errors import Refusal
from nfa.registry import tracking
from nfa.registry.sweeps import trial_queue
from nfa.registry.sweeps.config import TuneConfig
from nfa.registry.sweeps.samplers import SeededBySlot, suggest
from nfa.registry.sweeps.storage import AllTaken, TicketStorage, address_of, open_storage, shown
from nfa.registry.sweeps.studies import IDENTITY, PARENT, known_study, make_study
from nfa.registry.sweeps.study_table import table_of

SPACE = "lr=log:1e-3:1,optimizer=sgd|adam,width=8:16"
CONFIG = TuneConfig(space=SPACE, n_trials=6, fixed="epochs=2", sampler="random")


def study_in(folder: Path, config: TuneConfig = CONFIG) -> optuna.Study:
    storage = open_storage(make_url(f"sqlite:///{folder}/optuna.db"))
    sampler = SeededBySlot(config.sampler, config.seed)
    study = optuna.create_study(storage=storage, study_name="s", sampler=sampler, load_if_exists=True)
    trial_queue.fill(study, config)
    return study


@pytest.fixture
def study(tmp_path: Path) -> optuna.Study:
    return study_in(tmp_path)


def value(trial: optuna.Trial) -> float:
    return float(suggest(trial, CONFIG.axes)["lr"])


def take_all(study: optuna.Study) -> None:
    with pytest.raises(AllTaken):
        study.optimize(value)


def test_there_are_as_many_trials_as_asked_for_and_never_more(study: optuna.Study) -> None:
    take_all(study)
    assert Counter(trial.state for trial in study.trials) == {TrialState.COMPLETE: 6}
    trial_queue.fill(study, CONFIG)
    assert len(study.trials) == 6


def test_the_known_points_come_first_and_only_once(study: optuna.Study) -> None:
    take_all(study)
    assert study.trials[0].params["lr"] == CONFIG.defaults["lr"]
    assert study.trials[0].params["optimizer"] == "sgd"
    assert [trial.params["lr"] for trial in study.trials].count(CONFIG.defaults["lr"]) == 1


def test_a_continued_study_gets_the_missing_trials_and_no_point_twice(tmp_path: Path) -> None:
    take_all(study_in(tmp_path))
    longer = study_in(tmp_path, TuneConfig(space=SPACE, n_trials=9, fixed="epochs=2", sampler="random"))
    take_all(longer)
    assert len(longer.trials) == 9
    assert len({trial.params["lr"] for trial in longer.trials}) == 9


def test_random_points_depend_on_the_place_alone(tmp_path: Path) -> None:
    together, apart = tmp_path / "a", tmp_path / "b"
    together.mkdir(), apart.mkdir()
    take_all(study_in(together))
    for _ in range(6):
        study_in(apart).optimize(value, n_trials=1)  # each by a new process, so to say
    points = [[trial.params for trial in study_in(folder).trials] for folder in (together, apart)]
    assert points[0] == points[1]


def test_another_seed_draws_other_points(tmp_path: Path) -> None:
    take_all(study := study_in(tmp_path))
    (tmp_path / "b").mkdir()
    take_all(other := study_in(tmp_path / "b", TuneConfig(space=SPACE, n_trials=6, seed=5, sampler="random")))
    assert study.trials[1].params["lr"] != other.trials[1].params["lr"]


def _hammer(folder: str, done: str) -> None:
    study = optuna.load_study(study_name="s", storage=open_storage(make_url(f"sqlite:///{folder}/optuna.db")))
    study.sampler = optuna.samplers.RandomSampler(seed=0)
    slots = []

    def remember(trial: optuna.Trial) -> float:
        slots.append(trial_queue.slot_of(trial))
        return 0.0

    try:
        study.optimize(remember)
    except AllTaken:
        Path(done).write_text(json.dumps(slots), encoding="utf-8")


def test_processes_that_share_a_file_never_take_the_same_trial(tmp_path: Path) -> None:
    total = 60
    study_in(tmp_path, TuneConfig(space=SPACE, n_trials=total, enqueue="none"))
    files = [tmp_path / f"{index}.json" for index in range(4)]
    context = multiprocessing.get_context("forkserver")
    processes = [context.Process(target=_hammer, args=(str(tmp_path), str(file))) for file in files]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    taken = [slot for file in files for slot in json.loads(file.read_text(encoding="utf-8"))]
    assert sorted(taken) == list(range(total))
    assert len(study_in(tmp_path, TuneConfig(space=SPACE, n_trials=total, enqueue="none")).trials) == total


def test_a_lost_trial_is_taken_up_again_with_its_point_its_run_and_what_it_reported(study: optuna.Study) -> None:
    trial = study.ask()
    point = suggest(trial, CONFIG.axes)
    trial.report(0.5, 3)
    trial.set_user_attr(trial_queue.RUN, "abc")
    trial_queue.put_back(study, study.trials[trial.number])
    trial_queue.put_back(study, study.trials[trial.number])  # by another, at the same time
    again = [one for one in study.trials if one.state == TrialState.WAITING and one.params]
    assert len(again) == 1
    assert again[0].params == point
    assert again[0].user_attrs[trial_queue.RUN] == "abc"
    assert again[0].intermediate_values == {3: 0.5}
    assert trial_queue.slot_of(again[0]) == 0
    assert len(trial_queue.latest(study.trials)) == 6


def test_only_what_certainly_nobody_is_at_work_on_is_put_back(study: optuna.Study) -> None:
    alive, gone, unspoken = study.ask(), study.ask(), study.ask()
    sign = json.loads(tracking.sign())
    alive.set_user_attr(trial_queue.PROCESS, json.dumps(sign))
    gone.set_user_attr(trial_queue.PROCESS, json.dumps({**sign, "pid": 2**22 + 1}))
    trial_queue.put_back_lost(study, {})
    states = {trial.number: trial.state for trial in study.trials}
    assert states[alive.number] == TrialState.RUNNING
    assert states[unspoken.number] == TrialState.RUNNING  # it may be about to say whose it is
    assert states[gone.number] == TrialState.FAIL
    assert len(trial_queue.latest(study.trials)) == 6


def test_a_process_elsewhere_is_not_looked_for_here(study: optuna.Study) -> None:
    trial = study.ask()
    trial.set_user_attr(trial_queue.PROCESS, json.dumps({"host": "elsewhere", "pid": 1, "time": 0, "started": "0"}))
    trial_queue.put_back_lost(study, {})
    assert study.trials[trial.number].state == TrialState.RUNNING


def test_a_trial_that_nobody_speaks_for_is_lost_after_it_was_watched_whatever_its_clock_said(
    study: optuna.Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, unspoken = 1000.0, dict[int, float]()
    monkeypatch.setattr(trial_queue.time, "monotonic", lambda: now)
    trial = study.ask()
    for seconds, state in [(0, TrialState.RUNNING), (80, TrialState.RUNNING), (11, TrialState.FAIL)]:
        now += seconds
        trial_queue.put_back_lost(study, unspoken)
        assert study.trials[trial.number].state == state


def test_a_trial_that_keeps_losing_its_process_is_given_up(study: optuna.Study) -> None:
    for _ in range(10):
        waiting = [one for one in study.trials if one.state == TrialState.WAITING and trial_queue.slot_of(one) == 0]
        if not waiting:
            break
        study._storage.set_trial_state_values(waiting[0]._trial_id, TrialState.RUNNING)
        trial_queue.put_back(study, study.trials[waiting[0].number])
    assert trial_queue.state_of(trial_queue.latest(study.trials)[0]) == "killed"


def test_states_are_those_of_the_runs(study: optuna.Study) -> None:
    def ends(trial: optuna.Trial) -> float:
        suggest(trial, CONFIG.axes)
        slot = trial_queue.slot_of(trial)
        if slot == 1:
            trial.report(1.0, 4)
            raise optuna.TrialPruned
        if slot in (2, 3):
            trial.set_user_attr(trial_queue.ERROR, "became inf")
            raise optuna.TrialPruned if slot == 2 else RuntimeError
        return 1.0

    study.optimize(ends, n_trials=4, catch=(RuntimeError,))
    rows = table_of(study, CONFIG).rows
    assert [row.state for row in rows] == ["finished", "pruned", "failed", "failed", "waiting", "waiting"]
    assert rows[1].intermediate == {4: 1.0}
    assert rows[2].error == "became inf"
    assert [row.values for row in rows] == [(1.0,), (), (), (), (), ()]
    assert trial_queue.counts(trial_queue.latest(study.trials)) == {
        "finished": 1,
        "pruned": 1,
        "failed": 2,
        "waiting": 2,
    }


def test_a_grid_is_every_combination_once(tmp_path: Path) -> None:
    config = TuneConfig(space="optimizer=sgd|adam|muon,width=8:16/4", sampler="grid", n_trials=100)
    study = study_in(tmp_path, config)
    with pytest.raises(AllTaken):
        study.optimize(lambda trial: float(len(suggest(trial, config.axes))))
    points = [(trial.params["optimizer"], trial.params["width"]) for trial in study.trials]
    assert sorted(points) == [(o, w) for o in ("adam", "muon", "sgd") for w in (8, 12, 16)]
    assert points != sorted(points), "the order is drawn, so that a part of the grid is no corner of it"


def test_a_grid_that_is_cut_short_begins_with_the_known_points(tmp_path: Path) -> None:
    config = TuneConfig(
        space="optimizer=sgd|adam|muon,width=8:16/4", sampler="grid", n_trials=2, enqueue="optimizer=muon,width=12"
    )
    points = trial_queue.grid(config)
    assert points[0] == {"optimizer": "muon", "width": 12}
    assert len(points) == 9
    assert len(study_in(tmp_path, config).trials) == 2


def test_axes_are_distributions_with_the_same_values() -> None:
    trial = optuna.create_study().ask()
    suggest(trial, CONFIG.axes)
    found = trial.distributions
    assert found["lr"] == optuna.distributions.FloatDistribution(1e-3, 1.0, log=True)
    assert found["width"] == optuna.distributions.IntDistribution(8, 16)
    assert found["optimizer"] == optuna.distributions.CategoricalDistribution(("sgd", "adam"))


def test_passwords_are_not_shown() -> None:
    url = address_of("postgresql://me:secret@host/studies")
    assert url.password == "secret"
    assert url.drivername == "postgresql+psycopg"
    assert shown(url) == "postgresql+psycopg://me:***@host/studies"
    assert shown(address_of("postgresql://me@host/x?password=secret")).endswith("/x?password=***")


def test_what_a_study_and_its_trials_tell_is_kept_without_passwords(study: optuna.Study, tmp_path: Path) -> None:
    told = {"error": "at postgresql://me:geheim7@host/runs", "steps": [1, 2]}
    study.set_user_attr("told", told)
    study.ask().set_user_attr("told", told)
    kept = {"error": "at postgresql://me:***@host/runs", "steps": [1, 2]}
    assert study.user_attrs["told"] == study.trials[0].user_attrs["told"] == kept
    assert b"geheim7" not in (tmp_path / "optuna.db").read_bytes()


def test_a_study_whose_search_holds_a_word_that_is_a_password_is_known_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGPASSWORD", "val/loss")
    storage = open_storage(make_url(f"sqlite:///{tmp_path}/optuna.db"))
    made = make_study(CONFIG, storage, "s")
    assert made
    made.set_user_attr(PARENT, "its run")
    assert known_study(CONFIG, storage, "s").user_attrs[IDENTITY]["objective"][0]["key"] == "***"


def test_an_optuna_that_makes_trials_in_another_way_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(TicketStorage, "_create_new_trial")  # as if nothing called it
    with pytest.raises(Refusal, match=rf"Optuna {optuna.__version__}(.|\n)*allowed: Optuna 5\.0"):
        open_storage(make_url(f"sqlite:///{tmp_path}/optuna.db"))


def test_a_database_that_cannot_be_reached_is_refused_with_its_own_words(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match="unable to open database file"):
        open_storage(make_url(f"sqlite:///{tmp_path}/missing/optuna.db"))
    with pytest.raises(Refusal, match="Connection refused"):
        open_storage(address_of("postgresql://me@127.0.0.1:1/studies"))
    with pytest.raises(Refusal, match="storage="):
        open_storage(address_of("nosuch://x/y"))
