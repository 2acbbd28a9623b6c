"""Processes that joined together part without a trace."""

import os
import socket
import subprocess
import sys

import pytest

PROGRAM = """
import os, torch
from nfa.parallel import World

def threads():
    return sorted(open(f"/proc/self/task/{task}/comm").read().strip() for task in os.listdir("/proc/self/task"))

alone = threads()
world = World.joined()
world.sum(torch.ones(3))
joined = threads()
import torch._dynamo  # as optimizers and the counting of operations do
world.broadcast(None)
world.close()
assert any("gloo" in name for name in joined), joined
left = [name for name in threads() if name not in alone and name in joined]
assert not left, left
"""


@pytest.mark.skipif(sys.platform != "linux", reason="lists threads in /proc")
def test_no_thread_of_a_group_outlives_it_although_the_compiler_is_imported_meanwhile() -> None:
    """One that does may need the interpreter while it shuts down, which ends a finished analysis with SIGABRT."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    together = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM],
            env={**os.environ, **together, "RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    ended = [process.communicate(timeout=120)[1] for process in started]
    assert [process.returncode for process in started] == [0, 0], ended
