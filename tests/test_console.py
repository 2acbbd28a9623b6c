"""Lines for a person at a terminal."""

import subprocess
import sys
from pathlib import Path

from tests.support.processes import environment_of_tests

PROGRAM = """
from nfa.console import stage
for number in range(20000):
    stage("epoch", str(number))
open("done", "w").write("all")
"""


def test_work_goes_on_where_nobody_reads_its_lines_any_more(tmp_path: Path) -> None:
    """As under `| head`."""
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM], cwd=tmp_path, env=environment_of_tests(), stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "     epoch  0\n"
        process.stdout.close()
        assert process.wait() == 0
    assert (tmp_path / "done").read_text() == "all"
