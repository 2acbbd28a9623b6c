"""What a command loads before its work begins, in processes of their own."""

import gc
import subprocess
import sys
from pathlib import Path

import pytest

from nfa.registry.importing import importing
from tests.support.processes import environment_of_tests, run, words
from tests.support.stores import Finished
from tests.test_layers import FILES, imports, named

ASKED = {
    "analyze": {"max_samples": 30, "relations": "agop_nfm"},
    "gradient_flow": {"n": 12},
    "gradient_directions": {"n": 12, "epochs": "4"},
}
STARTED = """
import sys
from nfa.errors import Refusal
from nfa.registry.cli import parse, starter
from nfa.registry.entry_points import entry_points
import mlflow.store.db.utils as database
import mlflow
by_mlflow, checks, check = {*sys.modules}, [], database._verify_schema
database._verify_schema = lambda engine: checks.append(check(engine))
def start(name, argv):
    starter(name)(parse(entry_points()[name].parameters, argv))
def loaded(*names):
    return [name for name in names if name in {*sys.modules} - by_mlflow]
"""
FIRST_STEP = """
import os
from nfa.registry.families.mlp.model import MLP
from torch.optim.optimizer import register_optimizer_step_post_hook
def stepped(*_):
    print("loaded at the step", loaded("sklearn", "matplotlib", "scipy.stats", "scipy.linalg"))
    sys.stdout.flush()
    os._exit(0)
MLP(4, 2, width=3, depth=1)
print("loaded with a network", loaded("sympy"))
register_optimizer_step_post_hook(stepped)
"""


def python(code: str, finished: Finished, *argv: str) -> str:
    """Output of `code` in a fresh interpreter that uses the store."""
    env = {**environment_of_tests(), "MLFLOW_TRACKING_URI": finished.store.uri}
    command = [sys.executable, "-c", code, *argv]
    ended = subprocess.run(
        command, cwd=finished.store.folder, env=env, capture_output=True, text=True, timeout=120, check=False
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_a_refused_run_id_loads_nothing_beside_mlflow(finished: Finished) -> None:
    refused = f"""
for name in {[*ASKED]}:
    try:
        start(name, ["--run_id", "nothing"])
    except Refusal as refusal:
        print(refusal)
print(loaded("torch", "sklearn", "matplotlib", "scipy.stats", "scipy.sparse.linalg"), len(checks))
"""
    said = python(STARTED + refused, finished)
    assert said.count("cannot use run id 'nothing'") == len(ASKED)
    assert said.splitlines()[-1] == "[] 1"


def test_an_analysis_that_only_copies_loads_no_pytorch_and_checks_the_database_once(changeable: Finished) -> None:
    asked = {name: ["--run_id", changeable.run_id, *words(**values)] for name, values in ASKED.items()}
    for name, argv in asked.items():
        ended = run(changeable.store, argv, entrypoint=name, pictures=name == "gradient_directions")
        assert ended.code == 0, ended.output
    copied = f"""
for name, argv in {asked}.items():
    start(name, argv)
print(loaded("torch", "sklearn"), len(checks))
"""
    said = python(STARTED + copied, changeable)
    assert said.count("    copied  ") == len(ASKED)
    assert said.splitlines()[-1] == "[] 1"


def test_a_training_on_digits_makes_its_first_step_without_scikit_learn_matplotlib_and_scipy(
    changeable: Finished,
) -> None:
    """And its network without the meta device, for which PyTorch loads sympy; it does so for gradients, too."""
    trained = f"start('train', {words(width=8, depth=2, epochs=1, schedule='0-1')})"
    said = python(STARTED + FIRST_STEP + trained, changeable)
    assert said.splitlines()[0] == "loaded with a network []"
    assert said.splitlines()[-1] == "loaded at the step []"


def test_the_garbage_collector_is_on_again_once_packages_are_imported() -> None:
    with importing():
        assert not gc.isenabled()
    assert gc.isenabled()


@pytest.mark.parametrize("file", FILES, ids=named)
def test_matplotlib_scikit_learn_and_sympy_are_imported_only_where_they_are_used(file: Path) -> None:
    packages = {name.split(".")[0] for name in imports(file, top_level=True)}
    assert not packages & {"matplotlib", "sklearn", "sympy"}
