"""A workload is found by its name wherever MLflow starts an entry point: the project's folder is not the caller's."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from nfa.errors import Refusal
from nfa.registry import cli
from nfa.registry.entry_points import entry_points
from tests.support.mlflow_projects import BIN, mlflow_run, unactivated
from tests.support.mlflow_servers import serving
from tests.support.processes import ROOT, environment_of_tests, process, words
from tests.support.runs_by_family import undrawn
from tests.support.stores import Finished, Store, used, wrapper_in
from tests.support.workload_files import TINY, imports, train_lab, write_lab

BY_PATH = "name it in an analysis: workload=/path/my_lab.py:make"
NOT_INSTALLED = "MLflow does not pass on the folder in which the command was typed"


def plugged(**more: str) -> dict[str, str]:
    """The environment of somebody who has installed this checkout."""
    return {**unactivated(), "PYTHONPATH": str(ROOT), **more}


def unplugged(folder: Path) -> dict[str, str]:
    """That of somebody who has not: an empty distribution of the same name hides all that the real one registers."""
    metadata = folder / "nfa-0.dist-info" / "METADATA"
    metadata.parent.mkdir(parents=True)
    metadata.write_text("Metadata-Version: 2.1\nName: nfa\nVersion: 0\n")
    env = environment_of_tests()
    return {**env, "PYTHONPATH": str(folder), "PATH": os.pathsep.join([str(BIN), env["PATH"]])}


def asked(folder: Path, env: dict[str, str], *flags: str, **parameters: object) -> str:
    """What `mlflow run` says that is typed in that folder, and succeeds."""
    code, output = mlflow_run(folder, *flags, env=env, **parameters).end()  # type: ignore[arg-type]
    assert code == 0, output
    return output


def refused(folder: Path, env: dict[str, str], *flags: str, **parameters: object) -> str:
    code, output = mlflow_run(folder, *flags, env=env, **parameters).end()  # type: ignore[arg-type]
    assert code == 1, output
    return output


def assert_trained_in(folder: Path, *, workload: str = "my_lab:make") -> str:
    """Id of the only run of the folder's store; everything that it has kept lies there, too."""
    store = Store(folder)
    (run_id,) = store.runs()
    assert store.tags(run_id)["nfa.workload"] == workload
    assert store.status(run_id) == "FINISHED"
    assert store.artifact(run_id).is_relative_to(folder / "mlruns")
    assert store.json(run_id, "config.json")["code"]["file"] == "my_lab.py"
    assert len(store.checkpoints(run_id)) == 4
    return run_id


@pytest.fixture
def typed_in(fresh: Store) -> Path:
    """A folder of somebody's that has a file with a workload, and an empty store."""
    write_lab(fresh.folder)
    return fresh.folder


@pytest.fixture
def there(tmp_path: Path) -> Path:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    return folder


@pytest.mark.slow  # the tag of a git repository, below, takes the same way in CI
def test_a_file_of_the_folder_where_mlflow_run_is_typed_is_trained_into_that_folder(typed_in: Path) -> None:
    asked(typed_in, plugged(), workload="my_lab:make", **TINY)
    assert_trained_in(typed_in)
    assert {"mlflow.db", "mlruns", "my_lab.py"} >= {one.name for one in typed_in.iterdir() if one.name != "__pycache__"}


@pytest.mark.slow
def test_a_run_of_a_file_is_analysed_and_tuned_from_its_folder_by_nothing_but_its_name(typed_in: Path) -> None:
    asked(typed_in, plugged(), workload="my_lab:make", **TINY)
    trained = assert_trained_in(typed_in)
    said = asked(typed_in, plugged(), entrypoint="analyze", run_id="latest")
    assert f"source  {trained[:12]}" in said
    fixed = ",".join(f"{name}={value}" for name, value in TINY.items())
    options = {"n_workers": 2, "n_trials": 2, "confirm": 0, "space": "lr=log:1e-3:1", "fixed": fixed}
    asked(typed_in, plugged(), entrypoint="tune", workload="my_lab:make", **options)
    store = Store(typed_in)
    trials = [run_id for name, run_id in store.named().items() if name.startswith("trial ")]
    assert len(trials) == 2
    assert {store.status(run_id) for run_id in trials} == {"FINISHED"}


@pytest.mark.slow
@pytest.mark.parametrize("address", ["https://somewhere.invalid/nfa.git", "nfa.zip"])
def test_a_project_that_is_fetched_first_finds_the_file_in_the_folder_of_the_caller(
    address: str, typed_in: Path, tmp_path: Path, temporary: Path
) -> None:
    project = copied(tmp_path / "project")
    env = plugged(TMPDIR=str(temporary), **cloned_from(project, address))
    where = address if "://" in address else shutil.make_archive(str(tmp_path / "nfa"), "zip", project)
    asked(typed_in, env, project=where, workload="my_lab:make", **TINY)
    assert_trained_in(typed_in)


def copied(folder: Path) -> Path:
    """The project as it is now, as a git repository of one commit."""
    for part in ("nfa", "entrypoints"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("MLproject", "conda.yaml"):
        shutil.copy(ROOT / file, folder / file)
    git(folder, "init", "-q")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "all")
    return folder


def versioned(folder: Path, version: str) -> str:
    """Commit the project as being of that version, with its tag; the commit."""
    with (folder / "nfa" / "__init__.py").open("a", encoding="utf-8") as code:
        code.write(f'__version__ = "{version}"\n')
    git(folder, "commit", "-q", "-a", "-m", version)
    git(folder, "tag", "-a", f"v{version}", "-m", version)
    return git(folder, "rev-parse", "HEAD")


def git(folder: Path, *words: str) -> str:
    command = ["git", "-C", str(folder), "-c", "user.name=me", "-c", "user.email=me@here", *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def cloned_from(folder: Path, address: str) -> dict[str, str]:
    """Variables with which git takes that folder for the repository at an address."""
    pair = {"GIT_CONFIG_KEY_0": f"url.file://{folder}.insteadOf", "GIT_CONFIG_VALUE_0": address}
    return {"GIT_CONFIG_COUNT": "1", **pair}


def test_a_tag_of_a_git_repository_is_run_as_the_project_was_then(typed_in: Path, tmp_path: Path) -> None:
    project = copied(tmp_path / "project")
    commit, _ = versioned(project, "0.0.1"), versioned(project, "0.0.2")
    flags = ["-v", "v0.0.1", "--env-manager", "local"]
    asked(typed_in, plugged(), *flags, project=f"file://{project}", workload="my_lab:make", **TINY)
    run_id, store = assert_trained_in(typed_in), Store(typed_in)
    assert store.tags(run_id)["nfa.version"] == "0.0.1"
    assert store.tags(run_id)["mlflow.source.git.commit"] == commit


@pytest.mark.slow
def test_with_a_tracking_server_the_file_is_still_looked_for_where_the_command_is_typed(
    fresh: Store, tmp_path: Path, there: Path
) -> None:
    lab = write_lab(tmp_path / "lab").parent
    with serving(fresh) as server:
        env = plugged(MLFLOW_TRACKING_URI=server.address)
        asked(lab, env, workload="my_lab:make", **TINY)
        (run_id,) = fresh.runs()
        asked(lab, env, entrypoint="analyze", run_id=run_id)
        said = refused(there, env, entrypoint="analyze", run_id=run_id)
        assert f"my_lab:make, which is not in {there}" in said
        assert BY_PATH in said
        asked(there, env, entrypoint="analyze", run_id=run_id, workload=f"{lab}/my_lab.py:make")
    assert [*there.iterdir()] == []
    assert {"my_lab.py", "__pycache__"} >= {one.name for one in lab.iterdir()}


@pytest.mark.slow
def test_where_the_plugin_is_not_installed_a_file_is_named_by_its_path(typed_in: Path, tmp_path: Path) -> None:
    env, path = unplugged(tmp_path / "site"), f"{typed_in}/my_lab.py:make"
    asked(typed_in, env, "--env-manager", "local", workload=path, **TINY)
    run_id = assert_trained_in(typed_in, workload=path)
    said = refused(typed_in, env, "--env-manager", "local", entrypoint="analyze", run_id=run_id)
    assert f"if you trust the code, name it: workload={path}" in said
    asked(typed_in, env, "--env-manager", "local", entrypoint="analyze", run_id=run_id, workload=path)
    said = refused(typed_in, env, "--env-manager", "local", workload="my_lab:make")
    assert NOT_INSTALLED in said


def test_a_name_that_mlflow_passes_on_without_its_folder_is_refused_with_the_path_to_type(typed_in: Path) -> None:
    """MLflow starts the entry point in the project's folder; without the plugin it says no other."""
    ended = process(words(workload="my_lab:make"), ROOT, MLFLOW_RUN_ID="0", MLFLOW_TRACKING_URI=Store(typed_in).uri)
    assert ended.returncode == 2, ended.stderr
    assert f"there is no my_lab in {ROOT}; {NOT_INSTALLED}" in ended.stderr
    assert "do: workload=/path/my_lab.py:make; or install nfa beside mlflow" in ended.stderr


def analyse(run_ids: list[str], workload: str = "", analysis: str = "analyze") -> None:
    typed = words(run_id=",".join(run_ids), epochs="all", **({"workload": workload} if workload else {}))
    with undrawn():
        cli.starter(analysis)(cli.parse(entry_points()[analysis].parameters, typed))


@pytest.mark.parametrize("analysis", ["analyze", "gradient_directions", "gradient_flow"])
def test_every_analysis_goes_into_the_run_that_mlflow_has_made(
    analysis: str, trained: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrapper = wrapper_in(trained.store)
    monkeypatch.setenv("MLFLOW_RUN_ID", wrapper)
    monkeypatch.setenv("NFA_CALLER_DIR", str(trained.store.folder))
    monkeypatch.chdir(ROOT)
    analyse([trained.run_id], analysis=analysis)
    assert trained.store.status(wrapper) == "FINISHED"
    assert trained.store.tags(wrapper)["nfa.entrypoint"] == analysis


def test_runs_of_two_files_of_a_folder_are_compared_and_from_another_folder_each_is_named_by_its_path(
    lab_run: Finished, tmp_path: Path, there: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with used(lab_run.store.copy(tmp_path / "store"), monkeypatch) as store:
        write_lab(store.folder, name="my_lab_2.py", old="width: int = 6", new="width: int = 8")
        with imports():
            both = [lab_run.run_id, train_lab(store, "my_lab_2:make")]
            analyse(both)
        (parent,) = (one for one in store.runs() if store.tags(one).get("nfa.source_run_ids") == ",".join(both))
        assert store.status(parent) == "FINISHED"
        monkeypatch.chdir(there)
        with pytest.raises(Refusal, match=BY_PATH):
            analyse(both)
        analyse(both[:1], f"{store.folder}/my_lab.py:make")
