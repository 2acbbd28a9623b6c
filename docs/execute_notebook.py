"""Execute docs/comparing_runs.ipynb in an empty folder, with a store of its own, and write the outputs into it."""

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from traitlets.config import Config

ROOT = Path(__file__).resolve().parent.parent
FILE = ROOT / "docs" / "comparing_runs.ipynb"


def execute(notebook: Any, folder: Path) -> None:
    """Execute the cells in a folder; raises the first error of a cell."""
    apart = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "NFA_"))}
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])  # its commands are those of nfa
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "PYTHONWARNINGS": "ignore:IProgress not found"}  # of ipywidgets
    env = {**apart, **quiet, "PATH": path}
    with tempfile.TemporaryDirectory() as sockets:  # in place of ports, which others could reach
        config = Config(KernelManager={"transport": "ipc", "ip": f"{sockets}/kernel"})
        client = NotebookClient(notebook, timeout=600, record_timing=False, config=config)
        client.resources = {"metadata": {"path": str(folder)}}
        client.execute(env=env)


def plain(notebook: Any) -> None:
    """Remove what is different at every execution or on every machine."""
    notebook.metadata = {"kernelspec": notebook.metadata.kernelspec, "language_info": {"name": "python"}}
    for number, cell in enumerate(notebook.cells):
        cell.id, cell.metadata = f"cell-{number}", {}


def main() -> None:
    """Execute the notebook and write it."""
    notebook = nbformat.read(FILE, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        execute(notebook, Path(folder))
    plain(notebook)
    nbformat.write(notebook, FILE)


if __name__ == "__main__":
    main()
