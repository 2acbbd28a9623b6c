"""What needs a package that is not installed says which command installs it, before any work has started."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn as nn
from mlflow.exceptions import ExecutionException

import nfa
from nfa.errors import Refusal
from nfa.extras import IMPORTED_AS, check_extra, is_installed
from nfa.registry import cli, mlflow_plugin
from nfa.registry.entry_points import entry_points
from nfa.registry.families.registry import family
from nfa.registry.tracking import places
from nfa.sinks import MlflowRun, TensorBoard
from tests.support.installations import absent, ended, started

MISSING = {"registry": "psutil", "eeg": "tensorboard", "language": "peft", "tune": "optuna"}


def take_away(package: str, patch: pytest.MonkeyPatch) -> None:
    patch.setitem(sys.modules, IMPORTED_AS.get(package, package), None)


def told(extra: str) -> str:
    return rf"do: pip install 'nfa\[{extra}\]'"


# ---- the library alone

LIBRARY = """
import torch, nfa
from nfa.sinks import JsonLines, Memory
from nfa.testing import check_workload

def model():
    return torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.ReLU(), torch.nn.Linear(6, 3))

loss, probe = torch.nn.CrossEntropyLoss(reduction="none"), (torch.randn(8, 4), torch.arange(8) % 3)
for call in (nfa.alignment, nfa.gradient_directions, nfa.gradient_flow):
    table = call(model(), loss, probe)
    repr(table)
    table.plot()
nfa.gradient_gram(model(), loss, probe)
for sink in (Memory(), JsonLines("recorded")):
    with nfa.watch(model(), loss, probe, studies="alignment,directions,flow", sink=sink) as watch:
        assert watch.record(0)
data = torch.utils.data.TensorDataset(*probe)
assert check_workload(lambda: nfa.Supervised(model=model, loss=loss, train=data, val=data), studies="alignment").ok
print("worked", "mlflow" in sys.modules, "psutil" in sys.modules)
"""


def test_the_library_needs_nothing_but_its_own_dependencies(tmp_path: Path) -> None:
    assert {"mlflow", "pandas", "psutil", "sklearn", "tensorboard", "optuna", "transformers"} <= {*absent()}
    one = ended(LIBRARY, tmp_path)
    assert one.returncode == 0, one.stderr
    assert one.stdout.splitlines()[-1] == "worked True True"  # as None: they were not there to be imported


def test_an_installation_of_the_library_alone_knows_every_entry_point_and_says_what_each_one_needs(
    tmp_path: Path,
) -> None:
    code = """
import contextlib, io
from nfa.__main__ import main
from nfa.registry.entry_points import entry_points
for name, point in entry_points().items():
    required = {"prepare_eeg": ["--source", ".", "--target", "."], "import_checkpoints": ["--folder", "."]}
    for words in ([name, "--help"], [name, *required.get(name, [])]):
        sys.argv, said = ["nfa", *words], io.StringIO()
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            try:
                main()
            except SystemExit as error:
                code = error.code
        assert code == (0 if words[1:] == ["--help"] else 2), (words, code, said.getvalue())
        asked = f"do: pip install 'nfa[{point.extra}]'"
        assert words[1:] == ["--help"] or asked in said.getvalue(), said.getvalue()
"""
    one = ended(code, tmp_path)
    assert one.returncode == 0, one.stderr
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize("words", ["--help", "--version"])
def test_what_asks_for_nothing_works_without_extras(words: str, tmp_path: Path) -> None:
    one = started(words, tmp_path)
    assert one.returncode == 0, one.stderr
    assert one.stdout.startswith("nfa NAME [--" if words == "--help" else f"nfa {nfa.__version__}\n")


# ---- each place where a package may be missing


@pytest.mark.parametrize("name", entry_points())
def test_an_entry_point_without_a_package_of_its_extra_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    extra = entry_points()[name].extra
    take_away(MISSING[extra], monkeypatch)
    with pytest.raises(Refusal, match=rf"cannot use {name} without {MISSING[extra]}, which is not installed\n.*\n.*\["):
        cli.starter(name)(None)


@pytest.mark.parametrize(("workload", "extra"), [("eeg", "eeg"), ("lora", "language")])
def test_a_study_without_the_packages_of_its_workload_is_refused(workload: str, extra: str, tmp_path: Path) -> None:
    one = started(f"tune --workload {workload}", tmp_path, "tune", without=MISSING[extra])
    assert one.returncode == 2, one.stderr
    assert f"workload={workload} without" in one.stderr
    assert f"pip install 'nfa[{extra}]'" in one.stderr
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize(("workload", "extra"), [("mlp", "registry"), ("eeg", "eeg"), ("lora", "language")])
def test_a_stored_run_without_the_packages_of_its_workload_is_refused(
    workload: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    take_away(MISSING[extra], monkeypatch)
    with pytest.raises(Refusal, match=rf"workload={workload} without {MISSING[extra]}(.|\n)*{told(extra)}"):
        _ = type(family(workload))().training


def test_a_study_in_postgresql_without_its_driver_is_refused(tmp_path: Path) -> None:
    one = started("tune --storage postgresql://me@host/studies", tmp_path, "tune")
    assert one.returncode == 2, one.stderr
    assert "do: pip install 'nfa[postgresql]'" in one.stderr
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize("scheme", ["postgresql", "postgresql+psycopg"])
def test_a_tracking_store_in_postgresql_without_its_driver_is_refused(
    scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    take_away("psycopg", monkeypatch)
    monkeypatch.setattr(places.mlflow, "get_tracking_uri", lambda: f"{scheme}://me@host/runs")
    with pytest.raises(Refusal, match=told("postgresql")):
        places.store_address()
    monkeypatch.setattr(places.mlflow, "get_tracking_uri", lambda: "postgresql+psycopg2://me@host/runs")
    assert places.store_address().startswith("postgresql+psycopg2")


@pytest.mark.parametrize("name", ["results", "load_checkpoint", "config", "track"])
def test_a_public_name_of_the_registry_without_it_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    take_away("mlflow", monkeypatch)
    with pytest.raises(Refusal, match=rf"nfa.{name} without mlflow(.|\n)*{told('registry')}"):
        getattr(nfa, name)


@pytest.mark.parametrize(
    ("make", "package", "extra"),
    [(MlflowRun, "mlflow", "registry"), (lambda: TensorBoard("events"), "tensorboard", "tensorboard")],
)
def test_a_sink_without_the_package_that_it_writes_with_names_those_that_need_none(
    make: Callable[[], Any], package: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    take_away(package, monkeypatch)
    with pytest.raises(Refusal, match=rf"without {package}(.|\n)*{told(extra)}, or sink=Memory\(\) or JsonLines"):
        make()


def test_a_table_without_pandas_is_no_frame_but_has_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    take_away("pandas", monkeypatch)
    loss = nn.CrossEntropyLoss(reduction="none")
    table = nfa.gradient_flow(nn.Linear(4, 3), loss, (torch.randn(2, 4), torch.tensor([0, 1])))
    with pytest.raises(Refusal, match=told("pandas")):
        table.frame()
    assert [*table]


def test_questions_of_the_hub_without_the_package_that_reads_them_are_refused_at_the_door(tmp_path: Path) -> None:
    one = started("train_lora --data owner/name", tmp_path, "language")
    assert one.returncode == 2, one.stderr
    assert "do: pip install 'nfa[datasets]', or check the path" in one.stderr


def test_mlflow_run_of_this_project_without_the_registry_is_refused_before_a_run_is_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    take_away("psutil", monkeypatch)
    with pytest.raises(ExecutionException, match=told("registry")):
        mlflow_plugin._make_ready(None)


def test_an_entry_point_that_mlflow_has_started_is_refused_without_a_traceback(tmp_path: Path) -> None:
    """What `mlflow run` starts ends its run; that takes the registry, too."""
    code = "import os\nos.environ['MLFLOW_RUN_ID'] = '0'\nsys.argv = ['nfa', 'train']\n"
    one = ended(f"{code}from nfa.__main__ import main\nmain()", tmp_path)
    assert one.returncode == 2, one.stderr
    assert one.stderr.splitlines()[-1] == "  do: pip install 'nfa[registry]'"


# ---- what counts as installed


def test_a_folder_that_has_a_package_s_name_is_not_that_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a_data_set").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    assert not is_installed("a_data_set")
    (tmp_path / "a_data_set" / "__init__.py").touch()
    assert is_installed("a_data_set")


def test_packages_that_are_not_installed_are_all_named(monkeypatch: pytest.MonkeyPatch) -> None:
    take_away("optuna", monkeypatch)
    take_away("scikit-learn", monkeypatch)
    with pytest.raises(Refusal, match="a study without scikit-learn, optuna, which are not installed"):
        check_extra("a study", "tune")
    check_extra("a study", "tune", "plotly")


# ---- each extra is enough

ENOUGH = {
    "registry": "train --width 8 --depth 2 --epochs 1 --schedule 0-1",
    "eeg": "train_eeg --subjects 2 --stimuli 2 --seconds 60 --channels 4 --epochs 1 --schedule 0-1 --batch_size 2",
    "language": "train_lora --steps 1 --batch_size 2 --accumulation 1 --rank 2 --eval_items 2",
    "tune": "tune --n_trials 1 --confirm 0 --fixed epochs=1,width=8,depth=2,schedule=0-1",
}


@pytest.mark.slow
@pytest.mark.parametrize("extra", ENOUGH)
def test_what_an_extra_is_for_works_with_it_alone(extra: str, tmp_path: Path) -> None:
    one = started(ENOUGH[extra], tmp_path, extra)
    assert one.returncode == 0, one.stderr
    assert (tmp_path / "mlflow.db").is_file()
