"""Signals, kills and crashes at any moment: exit codes, true states, and resuming to bitwise the same run."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tests.support.fault_injection import INT, KILL, TERM, AtCall, During, Raise, Send
from tests.support.processes import Ended, environment_of_tests, launch, run, words
from tests.support.stores import Finished, Store, assert_same_run, same_weights, wrapper_in
from tests.support.tiny_runs import tiny

BOTH = Send((signal.SIGINT, signal.SIGTERM, signal.SIGTERM))
CRASH = Raise("injected")
ENDS = {"SIGTERM": (TERM, 143), "SIGINT": (INT, 130), "both": (BOTH, 130), "SIGKILL": (KILL, -9), "crash": (CRASH, 1)}


def resume_until_finished(store: Store, run_id: str, ends: list[AtCall], limit: int = 40) -> list[int | None]:
    """Exit codes of `resume=run_id`, each one stopped by the next of `ends`, until it finishes."""
    codes: list[int | None] = []
    while not codes or codes[-1] != 0:
        number = len(codes)
        ended = run(store, words(resume=run_id), before=ends[number] if number < len(ends) else None)
        misread = ended.code == 2 and "(injected)" in ended.output  # a crash while a file is read counts as the file's
        assert ended.code != 2 or misread, ended.output
        assert number < limit, ended.output
        codes.append(1 if misread else ended.code)
    return codes


def assert_true_state(store: Store, run_id: str, ended: Ended, state: str) -> None:
    assert store.tags(run_id)["nfa.state"] == state, ended.output
    assert store.status(run_id) == {"killed": "KILLED", "failed": "FAILED"}[state]


@pytest.mark.parametrize("name", ["SIGTERM", pytest.param("SIGINT", marks=pytest.mark.slow), "both"])
def test_signal_in_mid_training_ends_killed_and_resume_gives_the_same_run(
    name: str, calls: int, fresh: Store, finished: Finished
) -> None:
    act, code = ENDS[name]
    ended = run(fresh, tiny(), before=AtCall(calls // 2, act))
    assert ended.code == code, ended.output
    (run_id,) = fresh.runs()
    assert_true_state(fresh, run_id, ended, "killed")
    assert f"continue with resume={run_id}" in ended.output
    assert "Traceback" not in ended.output
    resume_until_finished(fresh, run_id, [])
    assert_same_run(fresh, run_id, finished)


def test_crash_ends_failed_with_its_traceback_and_resume_gives_the_same_run(fresh: Store, finished: Finished) -> None:
    """In an update, and not at some call, because checks of what a model can do go on after errors."""
    ended = run(fresh, tiny(), before=During("nfa.registry.training.loop", "Training._update", CRASH, 20))
    assert ended.code == 1
    assert "RuntimeError: injected" in ended.output
    (run_id,) = fresh.runs()
    assert_true_state(fresh, run_id, ended, "failed")
    assert "injected" in fresh.tags(run_id)["nfa.error"]
    resume_until_finished(fresh, run_id, [])
    assert_same_run(fresh, run_id, finished)


def test_killed_run_is_swept_by_the_next_start_and_resumes_to_the_same_run(
    calls: int, fresh: Store, finished: Finished
) -> None:
    ended = run(fresh, tiny(), before=AtCall(calls * 2 // 3, KILL))
    assert ended.code == -signal.SIGKILL
    (run_id,) = fresh.runs()
    assert fresh.tags(run_id)["nfa.state"] == "running"
    assert run(fresh, tiny(epochs=1, depth=1)).code == 0
    assert_true_state(fresh, run_id, ended, "killed")
    assert "ended without storing a state" in fresh.tags(run_id)["nfa.error"]
    resume_until_finished(fresh, run_id, [])
    only = Store(fresh.folder)
    assert same_weights(only.checkpoints(run_id), finished.store.checkpoints(finished.run_id))
    assert only.metrics(run_id) == finished.store.metrics(finished.run_id)


@pytest.mark.slow  # each single end is tried above, and the ends of nfa.track and of studies in their own files
def test_chain_of_random_ends_gives_the_same_run(calls: int, fresh: Store, finished: Finished) -> None:
    chain(calls, fresh, finished, seed=20)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(25))
def test_many_chains_of_random_ends_give_the_same_run(seed: int, calls: int, fresh: Store, finished: Finished) -> None:
    chain(calls, fresh, finished, seed=seed)


def chain(calls: int, store: Store, expected: Finished, *, seed: int) -> None:
    """Start, end at a random moment in a random way, resume, end again … until nothing ends it any more."""
    draw = random.Random(seed)
    ends = [draw.choice(list(ENDS.values())) for _ in range(5)]
    started = AtCall(draw.randrange(calls // 3, calls), ends[0][0])
    assert run(store, tiny(), before=started).code in {ends[0][1], 0}
    (run_id,) = store.runs()
    if not store.artifact(run_id, "config.json").exists():
        return  # refused, see test_run_killed_before_its_config_was_written_is_refused_clearly
    if store.tags(run_id)["nfa.state"] != "finished":
        moments = [AtCall(draw.randrange(1, calls), act) for act, _ in ends[1:]]
        codes = resume_until_finished(store, run_id, moments)
        assert all(code in {expected, 0} for code, (_, expected) in zip(codes, ends[1:], strict=False))
    assert_same_run(store, run_id, expected)


@pytest.mark.parametrize("share", [0.02, 0.15, 0.3])
def test_signal_at_the_start_leaves_no_run_that_says_running(share: float, calls: int, fresh: Store) -> None:
    assert_nothing_says_running(fresh, round(calls * share))


@pytest.mark.slow
@pytest.mark.parametrize("number", range(60))
def test_signal_at_any_moment_leaves_no_run_that_says_running(number: int, calls: int, fresh: Store) -> None:
    assert_nothing_says_running(fresh, 10 + calls * number // 60)


def assert_nothing_says_running(store: Store, moment: int) -> None:
    ended = run(store, tiny(), before=AtCall(moment, TERM))
    assert ended.code == 143, ended.output
    assert "Traceback" not in ended.output
    for run_id in store.runs():
        assert store.tags(run_id)["nfa.state"] in {"killed", "finished"}, ended.output
        assert store.status(run_id) in {"KILLED", "FINISHED"}


def test_run_killed_before_its_first_checkpoint_resumes_from_the_beginning(fresh: Store, finished: Finished) -> None:
    ended = run(fresh, tiny(), before=During("nfa.registry.tracking", "save_checkpoint", KILL))
    assert ended.code == -signal.SIGKILL
    (run_id,) = fresh.runs()
    assert fresh.checkpoints(run_id) == {}
    resume_until_finished(fresh, run_id, [])
    assert_same_run(fresh, run_id, finished)


# Between any two of the writes of the second checkpoint.
WRITES = {
    "file": ("nfa.content", "write_tensors"),
    "model": ("mlflow.tracking", "MlflowClient.create_logged_model"),
    "link": ("mlflow.tracking", "MlflowClient.log_outputs"),
    "finalised": ("mlflow.tracking", "MlflowClient.finalize_logged_model"),
    "metrics": ("nfa.registry.tracking.metrics", "MetricLog.flush"),
    "state": ("nfa.registry.tracking", "save_state"),
}


@pytest.mark.parametrize(
    "write", [name if name in ("link", "state") else pytest.param(name, marks=pytest.mark.slow) for name in WRITES]
)
def test_run_killed_between_the_writes_of_a_checkpoint_resumes_to_the_same_run(
    write: str, fresh: Store, finished: Finished
) -> None:
    assert run(fresh, tiny(), before=During(*WRITES[write], KILL, 2)).code == -signal.SIGKILL
    (run_id,) = fresh.runs()
    resume_until_finished(fresh, run_id, [])
    assert_same_run(fresh, run_id, finished)


def test_signal_in_mid_epoch_keeps_the_last_whole_step(fresh: Store, finished: Finished) -> None:
    steps_an_epoch = 18
    ended = run(
        fresh, tiny(), before=During("nfa.registry.training.optimizers", "Optimizers.step", TERM, steps_an_epoch + 7)
    )
    assert ended.code == 143
    (run_id,) = fresh.runs()
    state = torch.load(fresh.artifact(run_id, "state/latest.pt"), weights_only=True)
    assert (state["progress"]["epoch"], state["progress"]["batch"]) == (1, 7)
    resumed = run(fresh, words(resume=run_id))
    assert "at epoch 1, 7 batches into the next" in resumed.output
    assert_same_run(fresh, run_id, finished)


MOMENTS = [
    ("dead_runs", "Sweep.__call__"),
    ("claims", "Claim.write"),
    ("heartbeat", "Heartbeat.beat"),
    ("runs", "TrackedRun.__enter__"),
]


@pytest.mark.parametrize("moment", MOMENTS)
def test_signal_while_the_run_is_opened_ends_it_killed(moment: tuple[str, str], fresh: Store) -> None:
    module, name = moment
    ended = run(fresh, tiny(), before=During(f"nfa.registry.tracking.{module}", name, TERM))
    assert ended.code == 143
    (run_id,) = fresh.runs()
    assert_true_state(fresh, run_id, ended, "killed")


def test_signal_while_the_run_is_closed_leaves_it_finished(fresh: Store) -> None:
    ended = run(fresh, tiny(epochs=1), before=During("nfa.registry.tracking.runs", "TrackedRun._end", TERM))
    assert ended.code == 143
    (run_id,) = fresh.runs()
    assert fresh.tags(run_id)["nfa.state"] == "finished"
    assert fresh.status(run_id) == "FINISHED"


def test_run_killed_before_its_config_was_written_is_refused_clearly(fresh: Store) -> None:
    run(fresh, tiny(), before=During("nfa.registry.tracking", "put_json", KILL))
    (run_id,) = fresh.runs()
    ended = run(fresh, words(resume=run_id))
    assert ended.code == 2
    assert "ended before its config.json was written" in ended.output
    assert "do: start a new run" in ended.output


def test_diverging_run_fails_with_a_hint_and_keeps_its_last_finite_checkpoint(fresh: Store) -> None:
    ended = run(fresh, tiny(lr=1e6, width=64))
    assert ended.code == 1
    assert "Traceback" not in ended.output
    assert "Try a smaller learning rate than lr=1000000.0" in ended.output
    (run_id,) = fresh.runs()
    assert_true_state(fresh, run_id, ended, "failed")
    assert "became" in fresh.tags(run_id)["nfa.error"]
    checkpoints = fresh.checkpoints(run_id)
    assert "epoch_0000.safetensors" in checkpoints
    assert all(tensor.isfinite().all() for tensors in checkpoints.values() for tensor in tensors.values())
    state = torch.load(fresh.artifact(run_id, "state/latest.pt"), weights_only=True)
    assert all(tensor.isfinite().all() for tensor in state["model"].values())
    assert fresh.rows("SELECT count(*) FROM metrics WHERE is_nan OR abs(value) > 1e300") == [(0,)]


def start_real(store: Store, **more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "entrypoints.train", *tiny(epochs=400, schedule="0-400/2", width=32)]
    env = {**environment_of_tests(), "MLFLOW_TRACKING_URI": store.uri, "PYTHONUNBUFFERED": "1", **more}
    return subprocess.Popen(
        command, cwd=store.folder, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def pending(pid: int) -> int:
    """Signals that a process has been sent and no thread of it has taken up, as bits."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    return int(next(line for line in lines if line.startswith("ShdPnd:")).split()[1], 16)


def test_real_process_under_ctrl_c_and_term_ends_130_and_killed(fresh: Store) -> None:
    process = start_real(fresh)
    assert process.stdout
    for line in process.stdout:
        if "epoch 2 " in line:
            break
    process.send_signal(signal.SIGINT)
    while pending(process.pid) & 1 << signal.SIGINT - 1:  # on a busy machine a later signal may be taken up first
        time.sleep(0.001)
    time.sleep(0.02)  # a thread that has taken it up may not have run its handler yet
    process.send_signal(signal.SIGTERM)
    rest, _ = process.communicate(timeout=60)
    assert process.returncode == 130, rest
    (run_id,) = fresh.runs()
    assert fresh.tags(run_id)["nfa.state"] == "killed"
    assert fresh.status(run_id) == "KILLED"
    assert "stopped by SIGINT" in rest


@pytest.mark.parametrize("signum", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_signal_while_a_real_process_is_still_importing_ends_the_run_that_mlflow_made(
    signum: int, fresh: Store
) -> None:
    wrapper = wrapper_in(fresh)
    process = start_real(fresh, MLFLOW_RUN_ID=wrapper, MLFLOW_EXPERIMENT_ID="0")
    maps = Path(f"/proc/{process.pid}/maps")
    while "libtorch" not in maps.read_text():
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(signum)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 128 + signum, output
    assert "Traceback" not in output
    assert fresh.runs() == [wrapper]
    assert fresh.tags(wrapper)["nfa.state"] == "killed"


def test_running_run_cannot_be_resumed_beside_its_process(fresh: Store) -> None:
    child = launch(fresh, tiny(epochs=10**6, schedule="0"))
    try:
        child.wait_for("epoch 0 ")
        (run_id,) = fresh.runs()
        ended = run(fresh, words(resume=run_id))
        assert ended.code == 2
        assert f"run {run_id} (still running: process {child.pid} on " in ended.output
        assert "wait for it to end, or stop its process" in ended.output
        assert fresh.tags(run_id)["nfa.state"] == "running"
        assert run(fresh, tiny(epochs=1, depth=1)).code == 0
        assert fresh.tags(run_id)["nfa.state"] == "running", "swept although it lives"
    finally:
        child.send(signal.SIGTERM)
    assert child.end().code == 143


def test_claim_of_a_number_that_another_process_has_now_counts_as_gone(fresh: Store) -> None:
    run(fresh, tiny(), before=During("nfa.registry.tracking", "save_checkpoint", KILL))
    (run_id,) = fresh.runs()
    claim = json.loads(fresh.claims(run_id)["nfa.claim.0"])
    fresh.change("UPDATE params SET value = ? WHERE key = 'nfa.claim.0'", json.dumps({**claim, "pid": os.getpid()}))
    assert resume_until_finished(fresh, run_id, []) == [0]
