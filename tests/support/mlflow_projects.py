"""`mlflow run` of the project as it is typed: a process of its own, in any folder."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.support.processes import ROOT, environment_of_tests

BIN = Path(sys.executable).parent


def unactivated() -> dict[str, str]:
    """An environment whose PATH has neither this environment nor conda."""
    env = environment_of_tests()
    env.pop("VIRTUAL_ENV", None)
    env.pop("PYTHONPATH", None)
    env.pop("CONDA_EXE", None)
    folders = [folder for folder in env["PATH"].split(os.pathsep) if Path(folder) != BIN]
    return {**env, "PATH": os.pathsep.join(folder for folder in folders if not Path(folder, "conda").exists())}


@dataclass
class Command:
    """A running `mlflow run` of the project, typed in another folder."""

    process: subprocess.Popen[str]

    def end(self) -> tuple[int, str]:
        output, _ = self.process.communicate(timeout=600)
        return self.process.returncode, output


def mlflow_run(
    folder: Path,
    *flags: str,
    entrypoint: str = "train",
    project: str = str(ROOT),
    env: dict[str, str] | None = None,
    **parameters: object,
) -> Command:
    words = [word for name, value in parameters.items() for word in ("-P", f"{name}={value}")]
    command = [str(BIN / "mlflow"), "run", project, "-e", entrypoint, *flags, *words]
    output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    return Command(subprocess.Popen(command, cwd=folder, env=env or unactivated(), text=True, **output))  # type: ignore[call-overload]
