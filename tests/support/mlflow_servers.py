"""MLflow servers that tests start, on this machine only."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import requests

from tests.support.processes import environment_of_tests
from tests.support.stores import Store


@dataclass(frozen=True)
class Server:
    """An MLflow server on a store, whose artifacts it keeps in the folder `served` beside it."""

    address: str
    pid: int

    def send(self, signum: int) -> None:
        """To all of its processes."""
        os.killpg(self.pid, signum)


@contextmanager
def serving(store: Store) -> Iterator[Server]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = ["--backend-store-uri", store.uri, "--artifacts-destination", str(store.folder / "served")]
    command = [sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1", *place]
    env = {**environment_of_tests(), "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    process = subprocess.Popen(
        command,
        cwd=store.folder,
        env=env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    found = Server(f"http://127.0.0.1:{port}", process.pid)
    try:
        _wait_for(found.address, process)
        yield found
    finally:
        found.send(signal.SIGCONT)
        found.send(signal.SIGTERM)
        process.wait(30)


def _wait_for(address: str, process: subprocess.Popen[bytes]) -> None:
    for _ in range(600):
        assert process.poll() is None
        try:
            if requests.get(f"{address}/health", timeout=1).ok:
                return
        except requests.RequestException:
            time.sleep(0.1)
    raise AssertionError("the server never answered")
