"""A run is worked on by one process at a time, and what other programs write into its tags harms nobody."""

import json
import os
import socket
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from mlflow.entities import Run

from nfa.registry import tracking
from nfa.registry.tracking import claims
from nfa.registry.tracking.claims import BEAT, Claim, Lost, Silence, Taken, is_running, wait_until_free
from nfa.registry.tracking.dead_runs import Sweep
from nfa.registry.tracking.heartbeat import Heartbeat
from nfa.registry.tracking.metrics import MetricLog
from nfa.registry.tracking.processes import Life, Process, life_of, process_of, sign
from nfa.registry.tracking.series_file import LoggedRows
from nfa.registry.tracking.store import client
from tests.support.claims import winners
from tests.support.stores import Store

MADE = {"nfa.entrypoint": "train", "nfa.workload": "mlp"}
FOREIGN = ["", "garbage", "[]", "{}", "null", "{" * 100_000, '{"host": 3}', "9" * 5000, "\u0663", '{"pid": "1"}']


def signed(**changes: object) -> str:
    return json.dumps({**json.loads(sign(beat=1)), **changes})


ELSEWHERE = {
    "another host": signed(host="elsewhere"),
    "another PID namespace": signed(namespace="pid:[1]"),
    "before the host was started anew": signed(boot="before"),
}
GONE = {"a number that nobody has": signed(pid=2**22 + 1), "a number that another has now": signed(started="1")}


def made(state: str = "running", **tags: str) -> Run:
    return client().create_run("0", tags={**MADE, "nfa.state": state, **tags})


def again(run: Run) -> Run:
    return client().get_run(run.info.run_id)


class Clock:
    """Time that passes only when something waits, and what happens at that moment."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, gap: float = 0.0) -> None:
        self.now, self.gap = 1000.0, gap
        self.waited: list[float] = []
        self.meanwhile: Callable[[], object] = lambda: None
        monkeypatch.setattr(claims.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(claims.time, "sleep", self.sleep)

    def sleep(self, seconds: float) -> None:
        self.waited.append(seconds)
        self.now += seconds + self.gap
        self.meanwhile()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


# ---- processes


def test_this_process_is_alive() -> None:
    assert life_of(sign()) is Life.ALIVE
    assert process_of(sign(beat=3)) == Process.this()


def test_the_start_of_a_process_is_told_in_the_kernels_own_ticks_as_it_always_was() -> None:
    fields = Path("/proc/self/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    assert Process.this().started == fields[19]


def test_a_clock_that_is_set_makes_nobody_another_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text, start = sign(), psutil.boot_time()
    (tmp_path / str(os.getpid())).mkdir()
    for name in ("stat", "status"):
        (tmp_path / str(os.getpid()) / name).write_bytes(Path(f"/proc/self/{name}").read_bytes())
    (tmp_path / "stat").write_text(f"btime {start + 3600:.0f}\n", encoding="utf-8")
    monkeypatch.setattr(psutil, "PROCFS_PATH", str(tmp_path))
    assert psutil.boot_time() == start + 3600
    assert life_of(text) is Life.ALIVE


def test_a_process_that_has_ended_and_was_not_asked_how_is_gone() -> None:
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        os.write(writing, sign().encode())
        os._exit(0)
    text = os.read(reading, 10_000).decode()
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert life_of(text) is Life.GONE
    os.waitpid(pid, 0)
    os.close(reading), os.close(writing)
    assert life_of(text) is Life.GONE


@pytest.mark.parametrize("text", GONE.values(), ids=GONE)
def test_a_process_of_this_host_that_is_no_more_is_gone(text: str) -> None:
    assert life_of(text) is Life.GONE


@pytest.mark.parametrize("text", [*ELSEWHERE.values(), *FOREIGN])
def test_nothing_is_said_of_a_process_out_of_sight_or_of_a_foreign_text(text: str) -> None:
    assert life_of(text) is Life.UNSEEN


# ---- claims


@pytest.mark.usefixtures("store")
def test_the_same_number_is_claimed_by_one_process_only() -> None:
    run = made()
    first, second = Claim.after(run), Claim.after(run)
    first.write()
    with pytest.raises(Taken, match=f"just claimed by process {Process.this().pid}"):
        second.write()
    assert first.holds()
    assert not second.holds()


@pytest.mark.usefixtures("store")
def test_a_claim_written_twice_by_its_own_process_is_one() -> None:
    claim = Claim.after(made())
    claim.write()
    claim.write()
    assert claim.holds()


def test_of_processes_that_claim_at_the_same_moment_one_wins(store: Store) -> None:
    for _ in range(3):
        run = made()
        (text,) = winners(store.uri, run.info.run_id)
        assert store.claims(run.info.run_id) == {"nfa.claim.0": text}


@pytest.mark.usefixtures("store")
def test_numbers_go_on_beyond_nine() -> None:
    run = made()
    for number in range(12):
        claim = Claim.after(again(run))
        assert claim.number == number
        claim.write()


@pytest.mark.usefixtures("store")
def test_a_run_with_a_foreign_param_that_looks_like_a_claim_can_be_claimed() -> None:
    run = made()
    for key in ("nfa.claim.", "nfa.claim.x", "nfa.claim.-1", "nfa.claim.0.5"):
        client().log_param(run.info.run_id, key, "?")
    claim = Claim.after(again(run))
    claim.write()
    assert (claim.number, claim.holds()) == (0, True)


# ---- who is at work


@pytest.mark.usefixtures("store")
def test_a_claimed_run_is_free_once_it_is_released_whatever_its_beat_says(clock: Clock) -> None:
    run = made("killed", **{BEAT: signed(host="elsewhere")})
    claim = Claim.after(run)
    claim.write()
    with pytest.raises(Taken, match="still running"):
        wait_until_free(again(run))
    client().log_batch(run.info.run_id, tags=[])
    for tag in claim.released.items():
        client().set_tag(run.info.run_id, *tag)
    wait_until_free(again(run))
    assert not is_running(again(run))
    assert clock.waited == []


@pytest.mark.usefixtures("store")
def test_release_of_an_older_claim_says_nothing_of_the_newest() -> None:
    run = made("killed")
    first = Claim.after(run)
    first.write()
    for tag in first.released.items():
        client().set_tag(run.info.run_id, *tag)
    Claim.after(again(run)).write()
    assert is_running(again(run))
    with pytest.raises(Taken, match="still running"):
        wait_until_free(again(run))


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize("text", [*ELSEWHERE.values(), *FOREIGN[:4]])
def test_a_process_out_of_sight_is_watched_and_gone_when_it_gives_no_sign(
    text: str, clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    run = made(**{BEAT: text})
    wait_until_free(run)
    assert sum(clock.waited) == pytest.approx(60)
    assert "for 60 s, to see whether" in capsys.readouterr().out


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize("text", [signed(host="elsewhere", time=0.0), signed(host="elsewhere", time=9e12)])
def test_a_beat_from_the_past_or_the_future_means_nothing_by_itself(text: str, clock: Clock) -> None:
    wait_until_free(made(**{BEAT: text}))
    assert sum(clock.waited) == pytest.approx(60)


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize("change", ["beat", "claim"])
def test_a_sign_of_life_while_it_is_watched_wins(change: str, clock: Clock) -> None:
    run = made(**{BEAT: signed(host="elsewhere")})

    def lives() -> None:
        if sum(clock.waited) >= 40:
            if change == "beat":
                client().set_tag(run.info.run_id, BEAT, signed(host="elsewhere", beat=2))
            else:
                client().log_param(run.info.run_id, "nfa.claim.0", "another")

    clock.meanwhile = lives
    with pytest.raises(Taken, match="has shown a sign of life"):
        wait_until_free(run)
    assert sum(clock.waited) == pytest.approx(40)


@pytest.mark.usefixtures("store")
def test_watching_begins_anew_where_this_process_itself_could_not_look(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    run = made(**{BEAT: signed(host="elsewhere")})
    silence = Silence(run)
    clock.now += 20
    assert silence.seconds(run) == 20
    clock.now += 500
    assert silence.seconds(run) == 0
    clock.now += 25
    assert silence.seconds(run) == 25


# ---- a process that could not be heard of


@pytest.mark.usefixtures("store")
def test_a_process_whose_run_was_taken_over_in_its_silence_writes_nothing_more(clock: Clock) -> None:
    run = made()
    claim = Claim.after(run)
    claim.write()
    heart = Heartbeat(claim)
    heart.beat()
    later = Claim.after(again(run))
    later.write()
    heart.check()  # it was heard of just now: nobody can have taken over
    clock.now += 45
    log = MetricLog(run.info.run_id, LoggedRows(), heart.check)
    log.log({"val/loss": 1.0}, 3)
    with pytest.raises(Lost, match="taken over by another process"):
        log.flush()
    assert again(run).data.metrics == {}


def test_a_run_that_was_taken_over_does_not_get_the_end_of_its_former_process(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    opened = tracking.open_run("train", "mlp")

    def overtaken() -> None:
        with opened:
            Claim.after(again(opened.info)).write()
            clock.now += 45
            opened.metrics.log({"val/loss": 1.0}, 0)
            opened.metrics.flush()

    with pytest.raises(Lost):
        overtaken()
    assert store.tags(opened.run_id)["nfa.state"] == "running"
    assert store.status(opened.run_id) == "RUNNING"


# ---- the sweep


def test_sweep_marks_what_is_gone_and_leaves_ended_living_and_foreign_runs_alone(store: Store) -> None:
    dead = [made(**{BEAT: text}).info.run_id for text in GONE.values()]
    alive = made(**{BEAT: sign()}).info.run_id
    ended = made("failed").info.run_id
    foreign = client().create_run("0").info.run_id
    assert sorted(Sweep("0")()) == sorted(dead)
    assert {store.tags(run_id)["nfa.state"] for run_id in dead} == {"killed"}
    assert {store.status(run_id) for run_id in dead} == {"KILLED"}
    assert store.tags(alive)["nfa.state"] == "running"
    assert store.tags(ended)["nfa.state"] == "failed"
    assert "nfa.state" not in store.tags(foreign)
    assert store.status(foreign) == "RUNNING"


@pytest.mark.parametrize("text", [*ELSEWHERE.values(), *FOREIGN[:4]])
def test_sweep_never_waits_and_marks_later_what_gave_no_sign_while_it_was_noted(
    text: str, store: Store, clock: Clock
) -> None:
    run = made(**{BEAT: text})
    sweep = Sweep("0")
    assert sweep() == []
    for _ in range(6):
        clock.now += 10
        assert sweep.look_again() == []
    clock.now += 10
    assert sweep.look_again() == [run.info.run_id]
    assert store.tags(run.info.run_id)["nfa.state"] == "killed"
    assert clock.waited == []


def test_sweep_leaves_alone_what_beats_out_of_sight(store: Store, clock: Clock) -> None:
    run = made(**{BEAT: signed(host="elsewhere")})
    sweep = Sweep("0")
    assert sweep() == []
    for beat in range(20):
        clock.now += 10
        client().set_tag(run.info.run_id, BEAT, signed(host="elsewhere", beat=beat))
        assert sweep.look_again() == []
    assert store.tags(run.info.run_id)["nfa.state"] == "running"


def test_a_wrapper_lives_as_long_as_the_run_that_it_points_to(store: Store) -> None:
    trained = made(**{BEAT: sign()})
    wrapper = client().create_run("0", tags={"nfa.state": "running", "nfa.resumes": trained.info.run_id})
    assert Sweep("0")() == []
    client().set_tag(trained.info.run_id, BEAT, GONE["a number that nobody has"])
    assert sorted(Sweep("0")()) == sorted([trained.info.run_id, wrapper.info.run_id])
    assert store.tags(wrapper.info.run_id)["nfa.state"] == "killed"


# ---- opened and reopened


def test_two_that_reopened_a_run_at_the_same_time_do_not_both_begin(store: Store) -> None:
    with pytest.raises(RuntimeError), tracking.open_run("train", "mlp") as opened:
        raise RuntimeError
    first, second = (tracking.reopen_run(opened.run_id) for _ in range(2))
    with first:
        with pytest.raises(Taken, match="just claimed"):
            second.__enter__()
        assert store.tags(opened.run_id)["nfa.state"] == "running"
    assert store.tags(opened.run_id)["nfa.state"] == "finished"
    assert store.tags(opened.run_id)["nfa.released"] == "1"


@pytest.mark.usefixtures("store")
def test_a_run_of_an_older_version_that_was_killed_is_reopened_at_once(clock: Clock) -> None:
    run = made("killed", **{BEAT: json.dumps({"time": 0, "host": socket.gethostname(), "pid": 1, "started": "1"})})
    assert tracking.reopen_run(run.info.run_id).claim.number == 0
    assert clock.waited == []


@pytest.mark.slow
def test_of_processes_that_claim_at_the_same_moment_one_wins_on_postgresql(monkeypatch: pytest.MonkeyPatch) -> None:
    import mlflow

    from tests.support import postgresql

    before = mlflow.get_tracking_uri()
    with postgresql.server() as address:
        uri = address.replace("postgresql:", "postgresql+psycopg:")
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        mlflow.set_tracking_uri(uri)
        try:
            for _ in range(5):
                assert len(winners(uri, made().info.run_id)) == 1
        finally:
            mlflow.set_tracking_uri(before)
