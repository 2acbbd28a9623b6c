"""Imports run one way, on two floors, and importing does nothing."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import HEAVY, NFA, ROOT, environment_of_tests

# Each may import those before it, and within itself.
LIBRARY = [
    "passwords",
    "masking",
    "errors",
    "console",
    "plain_text",
    "seeding",
    "parallel",
    "content",
    "options",
    "checkpoint_schedule",
    "relations",
    "maths",
    "workload",
    "observe",
    "measures",
    "workloads",
    "studies",
    "figures",
    "analyses",
    "watching",
    "callbacks",
    "testing",
]
REGISTRY = [
    "registry.signals",
    "registry.unfinished",
    "registry.machine",
    "registry.stopwatch",
    "registry.launch",
    "registry.values",
    "registry.wrappers",
    "registry.datasets",
    "registry.tracking",
    "registry.training",
    "registry.analyses",
    "registry.families",
    "registry.sweeps",
    "registry.entry_points",
    "registry.doors",
    "registry.cli",
]
LAYERS = [*LIBRARY, *REGISTRY]
REFERENCES = {"reference"}  # shares nothing with what is compared with it; only the suite imports it
APART = {"__init__", "__main__", "registry", "registry.mlflow_plugin", *REFERENCES}  # are imported by no others
OPTIONAL = {"nfa.callbacks.huggingface"}  # imports transformers, which is an extra and sets variables
# Only once something has to be said to an MLflow run, or is about to be, or by the plugin, which every program with
# MLflow loads.
LAZY: set[tuple[str, str]] = {
    ("registry.cli", "registry.tracking"),
    ("registry.mlflow_plugin", "errors"),
    ("registry.mlflow_plugin", "masking"),
    ("registry.mlflow_plugin", "registry.tracking"),
    ("__init__", "watching"),
    ("__init__", "workloads"),
}
FILES = sorted(Path(NFA).rglob("*.py"))
MODULES = [".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for file in FILES]


def imports(file: Path, *, top_level: bool = False) -> Iterator[str]:
    """Full names that a file imports, inside functions too; `from nfa import x` gives nfa.x."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for node in tree.body if top_level else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def layer(name: str) -> str:
    """Of nfa.maths.gram "maths", of nfa.registry.sweeps.space "registry.sweeps"."""
    parts = name.split(".")[1:]
    return ".".join(parts[:2]) if parts[0] == "registry" else parts[0]


def layer_of(file: Path) -> str:
    name = ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    return layer(name) if "." in name else "__init__"


def ours(file: Path) -> set[str]:
    """Layers that a file imports; `from nfa import __version__` is none."""
    return {layer(name) for name in imports(file) if name.startswith("nfa.") and layer(name) != "__version__"}


def named(file: Path) -> str:
    return str(file.relative_to(ROOT))
@pytest.mark.parametrize("file", [file for file in FILES if layer_of(file) in LAYERS], ids=named)
def test_module_imports_only_its_own_and_earlier_layers(file: Path) -> None:
    own = layer_of(file)
    before = {*LAYERS[: LAYERS.index(own) + 1], *(REFERENCES if own == "testing" else ())}
    later = ours(file) - before
    assert not {other for other in later if (own, other) not in LAZY}


def test_what_is_imported_lazily_is_not_imported_at_the_top() -> None:
    for own, other in LAZY:
        names = imports(Path(NFA, *own.split(".")).with_suffix(".py"), top_level=True)
        assert not {name for name in names if name.startswith("nfa.") and layer(name) == other}


@pytest.mark.parametrize("file", [file for file in FILES if layer_of(file) in APART], ids=named)
def test_module_apart_imports_nothing_of_nfa_but_its_own_package(file: Path) -> None:
    own = layer_of(file)
    assert {other for other in ours(file) - {own} if (own, other) not in LAZY} == set()


@pytest.mark.parametrize("file", FILES, ids=named)
def test_only_tracking_and_the_plugin_import_mlflow(file: Path) -> None:
    knows = any(name.split(".")[0] == "mlflow" for name in imports(file))
    assert not knows or layer_of(file) in {"registry.tracking", "registry.mlflow_plugin"}


@pytest.mark.parametrize("file", [file for file in FILES if layer_of(file) == "figures"], ids=named)
def test_figures_know_neither_models_nor_observations(file: Path) -> None:
    assert "torch" not in {name.split(".")[0] for name in imports(file)}
    assert ours(file) <= {"figures"}


def test_the_numerics_know_nothing_of_files_and_runs() -> None:
    for file in FILES:
        if layer_of(file) in {"maths", "observe", "measures", "studies"}:
            assert not {name.split(".")[0] for name in imports(file)} & {"os", "pathlib", "json", "mlflow", "tempfile"}


def fresh(code: str, folder: Path) -> str:
    """Output of `code` in a new interpreter; it must say nothing else."""
    command = [sys.executable, "-c", code]
    ended = subprocess.run(command, cwd=folder, env=environment_of_tests(), capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == ""
    return ended.stdout


def test_importing_every_module_prints_nothing_and_makes_no_files(tmp_path: Path) -> None:
    code = f"""
import importlib, os, random, sys
before = dict(os.environ), os.getcwd(), random.getstate()
for name in {[*(name for name in MODULES if name not in OPTIONAL), "entrypoints.train"]}:
    importlib.import_module(name)
assert before == (dict(os.environ), os.getcwd(), random.getstate())
import signal
assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
"""
    assert fresh(code, tmp_path) == ""
    assert list(tmp_path.iterdir()) == []


def test_a_look_into_the_store_loads_no_pytorch(tmp_path: Path) -> None:
    assert fresh("import sys, nfa.registry.tracking.store; print('torch' in sys.modules)", tmp_path) == "False\n"


@pytest.mark.parametrize("module", ["nfa", "nfa.options", "nfa.registry.cli", "nfa.registry.doors"])
def test_what_is_needed_to_refuse_loads_nothing_heavy(module: str, tmp_path: Path) -> None:
    heavy = fresh(f"import sys, {module}; print([n for n in {HEAVY} if n in sys.modules])", tmp_path)
    assert heavy.strip() == "[]"
