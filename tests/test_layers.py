"""Imports run one way, on two floors, and importing does nothing."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from nfa import _PLACES as PLACES
from tests.support.processes import HEAVY, NFA, ROOT, environment_of_tests

# Each may import those before it, and within itself.
LIBRARY = [
    "passwords",
    "masking",
    "errors",
    "extras",
    "console",
    "plain_text",
    "seeding",
    "parallel",
    "memory",
    "unfinished",
    "disk_space",
    "content",
    "sinks",
    "options",
    "checkpoint_schedule",
    "checkpoint_files",
    "learned",
    "levels",
    "bookkeeping",
    "relations",
    "parameter_groups",
    "grouping",
    "maths",
    "workload",
    "observe",
    "measures",
    "workloads",
    "studies",
    "figures",
    "analyses",
    "watching",
    "notebook",
    "callbacks",
    "testing",
]
REGISTRY = [
    "registry.signals",
    "registry.importing",
    "registry.machine",
    "registry.stopwatch",
    "registry.launch",
    "registry.workers",
    "registry.typed_values",
    "registry.run_filters",
    "registry.places",
    "registry.wrapped_names",
    "registry.folders",
    "registry.commands",
    "registry.remembered",
    "registry.datasets",
    "registry.ready",
    "registry.tracking",
    "registry.training.optimizer_table",
    "registry.training.rates",
    "registry.training.optimizer_parameters",
    "registry.training.muon",
    "registry.training.shared_batch",
    "registry.training.optimizers",
    "registry.training.flops",
    "registry.training.loop",
    "registry.training.session",
    "registry.families.entry_point",
    "registry.families.assessment",
    "registry.families.protocol",
    "registry.families.registry",
    "registry.families.stored",
    "registry.run_names",
    "registry.descriptions",
    "registry.stored_runs",
    "registry.training",
    "registry.analyses",
    "registry.families",
    "registry.sweeps",
    "registry.results",
    "registry.report",
    "registry.entry_points",
    "registry.doors",
    "registry.cli",
]
SHARED = {
    *(f"registry.training.{name}" for name in ("optimizer_table", "rates", "optimizer_parameters", "muon")),
    *(f"registry.training.{name}" for name in ("shared_batch", "optimizers", "flops")),
    *(f"registry.training.{name}" for name in ("loop", "session")),
    *(f"registry.families.{name}" for name in ("entry_point", "assessment")),  # what all know of families
    *(f"registry.families.{name}" for name in ("protocol", "registry", "stored")),
}
LAYERS = [*LIBRARY, *REGISTRY]
REFERENCES = {"reference"}  # shares nothing with what is compared with it; only the suite imports it
APART = {"__init__", "__main__", "registry", "registry.mlflow_plugin", *REFERENCES}  # are imported by no others
OPTIONAL = {"nfa.callbacks.huggingface", "nfa.callbacks.lightning"}  # import what is an extra and sets variables
# Only once something has to be said to an MLflow run, or by the plugin, which every program with MLflow
# loads.
LAZY: set[tuple[str, str]] = {
    ("registry.cli", "registry.tracking"),
    ("registry.mlflow_plugin", "errors"),
    ("registry.mlflow_plugin", "extras"),
    ("registry.mlflow_plugin", "masking"),
    ("registry.mlflow_plugin", "registry.tracking"),
    ("__main__", "registry.cli"),
    ("__main__", "registry.commands"),
    ("__main__", "registry.entry_points"),
    ("__main__", "errors"),
    ("__init__", "extras"),
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
    if ".".join(parts[:3]) in SHARED:
        return ".".join(parts[:3])
    return ".".join(parts[:2]) if parts[0] == "registry" else parts[0]


def layer_of(file: Path, root: Path = ROOT) -> str:
    name = ".".join(file.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
    return layer(name) if "." in name else "__init__"


def ours(file: Path) -> set[str]:
    """Layers that a file imports; `from nfa import __version__` is none."""
    return {layer(name) for name in imports(file) if name.startswith("nfa.") and layer(name) != "__version__"}


def upward(file: Path, root: Path = ROOT) -> set[str]:
    """Later layers that a file imports."""
    own = layer_of(file, root)
    before = {*LAYERS[: LAYERS.index(own) + 1], *(REFERENCES if own == "testing" else ())}
    return {other for other in ours(file) - before if (own, other) not in LAZY}


def named(file: Path) -> str:
    return str(file.relative_to(ROOT))


@pytest.mark.parametrize("file", [file for file in FILES if layer_of(file) in LAYERS], ids=named)
def test_module_imports_only_its_own_and_earlier_layers(file: Path) -> None:
    assert upward(file) == set()


@pytest.mark.parametrize("file", [file for file in FILES if layer_of(file) in LIBRARY], ids=named)
def test_the_library_imports_nothing_of_the_registry(file: Path) -> None:
    assert not {name for name in imports(file) if name.startswith("nfa.registry")}


@pytest.mark.parametrize(
    "planted", ["from nfa.registry import tracking", "def late():\n    import nfa.registry.tracking"]
)
def test_an_upward_import_that_is_planted_in_a_copy_is_found(planted: str, tmp_path: Path) -> None:
    copy = tmp_path / "nfa" / "watching" / "pace.py"
    copy.parent.mkdir(parents=True)
    copy.write_text(Path(NFA, "watching", "pace.py").read_text(encoding="utf-8"), encoding="utf-8")
    assert upward(copy, tmp_path) == set()
    copy.write_text(f"{copy.read_text(encoding='utf-8')}\n{planted}\n", encoding="utf-8")
    assert upward(copy, tmp_path) == {"registry.tracking"}


def test_what_is_imported_lazily_is_not_imported_at_the_top() -> None:
    for own, other in LAZY:
        names = imports(Path(NFA, *own.split(".")).with_suffix(".py"), top_level=True)
        assert not {name for name in names if name.startswith("nfa.") and layer(name) == other}


@pytest.mark.parametrize("file", [file for file in FILES if layer_of(file) in APART], ids=named)
def test_module_apart_imports_nothing_of_nfa_but_its_own_package(file: Path) -> None:
    own = layer_of(file)
    assert {other for other in ours(file) - {own} if (own, other) not in LAZY} == set()


@pytest.mark.parametrize("file", FILES, ids=named)
def test_only_tracking_the_plugin_and_the_sink_import_mlflow(file: Path) -> None:
    knows = any(name.split(".")[0] == "mlflow" for name in imports(file))
    allowed = layer_of(file) in {"registry.tracking", "registry.mlflow_plugin"} or named(file) == "nfa/sinks/mlflow.py"
    assert not knows or allowed


FIGURES = [file for file in FILES if "figures" in file.relative_to(NFA).parts]


@pytest.mark.parametrize("file", FIGURES, ids=named)
def test_figures_know_neither_models_nor_observations(file: Path) -> None:
    """They draw results: numbers, and the types that hold them."""
    assert "torch" not in {name.split(".")[0] for name in imports(file)}
    assert not ours(file) & {"observe", "measures", "workload", "workloads", "registry.tracking", "registry.training"}


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


def test_results_of_runs_load_no_pytorch(tmp_path: Path) -> None:
    assert fresh("import sys, nfa; nfa.results; print('torch' in sys.modules)", tmp_path) == "False\n"


FOREIGN = ("mlflow", "optuna", "peft", "transformers", "sklearn", "pandas", "tensorboard")
AT_HAND = """
import sys, torch, nfa
model = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.ReLU(), torch.nn.Linear(6, 3))
loss = torch.nn.CrossEntropyLoss(reduction="none")
probe = torch.randn(8, 4), torch.arange(8) % 3
def loaded():
    found = [name for name in {names} if name in sys.modules]
    return [*found, *(name for name in sys.modules if name.startswith("nfa.registry"))]
"""


def loads(code: str, folder: Path) -> str:
    """What a new interpreter prints of `loaded()`, the modules that are there by then."""
    return fresh(AT_HAND.format(names=(*FOREIGN, "matplotlib")) + code, folder).splitlines()[-1]


def test_a_public_name_loads_nothing_of_the_registry_nor_what_it_writes_with(tmp_path: Path) -> None:
    named = [name for name in PLACES if "registry" not in PLACES[name][0]]
    code = f"print({{name: found for name in {named} if getattr(nfa, name) and (found := loaded())}})"
    assert loads(code, tmp_path) == "{}"


def test_a_watch_that_records_into_memory_loads_no_tracker_and_matplotlib_only_once_it_draws(tmp_path: Path) -> None:
    recorded = """
from nfa.sinks import Memory
with nfa.watch(model, loss, probe, studies="alignment,directions,flow", sink=Memory()) as watch:
    assert watch.record(0)
    early = loaded()
print(early, loaded())
"""
    assert loads(recorded, tmp_path) == "[] ['matplotlib']"


def test_a_call_loads_no_tracker_pandas_only_for_a_frame_and_matplotlib_only_for_a_plot(tmp_path: Path) -> None:
    code = """
calls = nfa.alignment, nfa.gradient_directions, nfa.gradient_flow
tables = [call(model, loss, probe) for call in calls]
said = [[repr(table) and None for table in tables], loaded()]
said += [[table.frame() is None for table in tables], loaded()]
said += [[table.plot() is None for table in tables], loaded()]
print(said[1::2])
"""
    assert loads(code, tmp_path) == "[[], ['pandas'], ['pandas', 'matplotlib']]"


def test_the_sinks_themselves_load_what_they_write_with_only_when_they_are_made(tmp_path: Path) -> None:
    assert loads("import nfa.sinks; print(loaded())", tmp_path) == "[]"
    assert loads("import nfa.sinks; nfa.sinks.TensorBoard('events'); print(loaded())", tmp_path) == "['tensorboard']"


def test_no_module_hides_a_public_name() -> None:
    """`import nfa.watch` would put a module of that name in place of what `nfa.watch` is."""
    assert not {module.split(".")[1] for module in MODULES if "." in module} & {*PLACES}


@pytest.mark.parametrize("module", ["nfa", "nfa.options", "nfa.registry.cli", "nfa.registry.doors"])
def test_what_is_needed_to_refuse_loads_nothing_heavy(module: str, tmp_path: Path) -> None:
    heavy = fresh(f"import sys, {module}; print([n for n in {HEAVY} if n in sys.modules])", tmp_path)
    assert heavy.strip() == "[]"
