"""docs/extending.md, and what it builds on, are executed: files written, changes made, commands typed, calls run."""

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn as nn

import nfa
from nfa.errors import Refusal
from nfa.observe import rules
from tests.support.analyses import series, undrawn
from tests.support.processes import ROOT, environment_of_tests, run
from tests.support.stores import Store, used

Once = Callable[[str, Callable[[Path], Any]], Any]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
Blocks = dict[str, list[tuple[str, str]]]


def parts(page: str) -> Blocks:
    """The blocks of a page, with their kinds, by the part of the page."""
    text = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")
    return {part.partition("\n")[0]: list(BLOCK.findall(part)) for part in text.split("\n## ")[1:]}


PARTS = {
    "A new workload": parts("your_model")["A new workload"],
    "A tracked loop": parts("your_training_loop")["A tracked loop"],
    **parts("extending"),
}


def file_of(text: str) -> str:
    """The file that a block is, or changes; empty where it is none."""
    found = re.match(r"# ([\w/]+\.\w+)\n", text)
    return found[1] if found else ""


def calls(part: str) -> str:
    """The only block of Python that is no file."""
    (found,) = (text for kind, text in PARTS[part] if kind == "python" and not file_of(text))
    return found


def commands(part: str) -> list[list[str]]:
    """The words after `python -m nfa` of each command."""
    lines = [line for kind, text in PARTS[part] if kind == "sh" for line in text.splitlines()]
    assert all(line.startswith("python -m nfa ") for line in lines)
    return [shlex.split(line)[3:] for line in lines]


def write(folder: Path, kind: str, text: str) -> None:
    """Write a file, or make a change; what stands before the new lines is there once."""
    file = folder / file_of(text)
    if kind == "python":
        file.write_text(text.partition("\n")[2].lstrip("\n"), encoding="utf-8")
        return
    lines, content = text.splitlines()[1:], file.read_text(encoding="utf-8")
    before = "".join(f"{line[1:]}\n" for line in lines if line[0] == " ")
    assert content.count(before) == 1
    file.write_text(content.replace(before, "".join(f"{line[1:]}\n" for line in lines)), encoding="utf-8")


@dataclass(frozen=True)
class Lab:
    """A folder with a store and the reader's own files, and a copy of the project with the page's changes."""

    store: Store
    project: Path

    def type(self, command: list[str], *, changed: bool = True) -> None:
        """A command, which has to succeed, in the changed project or in the project as it is."""
        name, *argv = command
        before, drawn = Changed(str(self.project)) if changed else None, name == "gradient_directions"
        ended = run(self.store, argv, entrypoint=name, before=before, pictures=drawn)
        assert ended.code == 0, ended.output

    def last(self, entrypoint: str) -> str:
        """Id of the last run that it has made."""
        return [one for one in self.store.runs() if self.store.tags(one).get("nfa.entrypoint") == entrypoint][-1]

    def epochs(self, analysis: str) -> list[int]:
        """Of the checkpoints of the run that an analysis is of."""
        return [int(name[6:10]) for name in self.store.checkpoints(self.store.tags(analysis)["nfa.source_run_ids"])]


@dataclass(frozen=True)
class Changed:
    """Before a process starts: it finds the changed project, as if it had never seen another."""

    project: str

    def __call__(self) -> None:
        for name in [name for name in sys.modules if name.partition(".")[0] in ("nfa", "entrypoints")]:
            del sys.modules[name]
        sys.path.insert(0, self.project)


@pytest.fixture(scope="module")
def lab(empty_store: Store, tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """After the commands of the first part."""
    folder = tmp_path_factory.mktemp("lab")
    found = Lab(empty_store.copy(folder / "store"), folder / "project")
    for name in ("nfa", "entrypoints", "docs", "benchmarks/results"):
        shutil.copytree(ROOT / name, found.project / name, ignore=shutil.ignore_patterns("__pycache__", "*.png"))
    for name in ("MLproject", "pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, found.project)
    for kind, text in (block for blocks in PARTS.values() for block in blocks if file_of(block[1])):
        write(found.project if "/" in file_of(text) else found.store.folder, kind, text)
    _document(found.project)
    for command in commands("A new workload"):
        found.type(command, changed=False)
    return found


def _document(project: Path) -> None:
    """What `make docs` does."""
    env = {**environment_of_tests(), "PYTHONPATH": str(project)}
    subprocess.run([sys.executable, "docs/generate.py"], cwd=project, env=env, check=True, capture_output=True)


@pytest.fixture
def at_home(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    """This process is in the reader's folder, and forgets the modules of the page afterwards."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(lab.store.folder))
    with used(lab.store, monkeypatch), undrawn():
        yield lab
    for name in set(sys.modules) - before:
        if name.startswith("my_") or name.endswith(".participation"):
            del sys.modules[name]


def test_every_part_with_a_block_has_a_test_here() -> None:
    own = Path(__file__).read_text(encoding="utf-8")
    named = set(re.findall(r'(?:calls|commands|lines_of)\("([A-Z][^"]+)"\)', own))
    assert set(PARTS) == named
    assert {kind for blocks in PARTS.values() for kind, _ in blocks} == {"python", "sh", "diff"}


def lines_of(part: str) -> int:
    """Of the first file."""
    return sum(bool(line.strip()) for line in PARTS[part][0][1].splitlines()[1:])


def test_a_workload_is_trained_analysed_and_tuned(lab: Lab) -> None:
    assert lines_of("A new workload") <= 12
    trained = next(one for one in lab.store.runs() if lab.store.tags(one).get("nfa.entrypoint") == "train")
    assert lab.store.params(trained)["width"] == "16"
    assert list(lab.store.checkpoints(trained)) == ["epoch_0000.safetensors", "epoch_0003.safetensors"]
    losses = series(lab.store, trained)["val/loss"]
    assert losses[3] < losses[0]
    for entrypoint in ("analyze", "gradient_directions", "gradient_flow"):
        assert lab.store.tags(lab.last(entrypoint))["nfa.source_run_ids"] == trained
    widths = {lab.store.params(one).get("workload_args") for one in lab.store.runs()}
    assert {"width=8", "width=16"} & widths


def test_a_loop_of_one_s_own_leaves_a_run_that_is_loaded(at_home: Lab) -> None:
    exec(calls("A tracked loop"), {})
    tracked = at_home.last("track")
    assert at_home.store.tags(tracked)["nfa.state"] == "finished"
    model, workload = nfa.load_checkpoint(tracked, 3)
    batch = next(workload.batches("val", batch_size=200))
    start, _ = nfa.load_checkpoint(tracked, 0)
    after, before = (workload.losses(workload.outputs(one, batch), batch).mean() for one in (model, start))
    assert after < before


def test_a_similarity_is_computed_and_listed(lab: Lab) -> None:
    (command,) = commands("A new similarity")
    lab.type(command)
    values = series(lab.store, lab.last("analyze"))["0/fact_g"]
    assert list(values) == lab.epochs(lab.last("analyze"))
    assert all(-1 <= value <= 1 for value in values.values())
    assert "`<site>/fact_g` | FACT vs G | cosine | fact, g |" in (lab.project / "docs/relations.md").read_text("utf-8")


class Read(nn.Module):
    """A layer that is written as a sum over indices."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Parameter(torch.randn(6, 4)), nn.Linear(6, 3)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = self.last(torch.einsum("bi,oi->bo", inputs, self.first).relu())
        return outputs


@pytest.mark.usefixtures("at_home")
def test_a_rule_makes_a_layer_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    assert lines_of("A new layer rule") < 25
    model, inputs = Read(), torch.randn(8, 4)
    asked = (model, nn.CrossEntropyLoss(reduction="none"), (inputs, torch.arange(8) % 3))
    options: dict[str, Any] = {"relations": "h_vs_m", "sites": "first"}
    with pytest.raises(Refusal, match="first"):
        nfa.alignment(*asked, **options)
    monkeypatch.setitem(rules.RULES, torch.einsum, None)  # is removed afterwards
    monkeypatch.setitem(rules.PRODUCTS, torch.einsum, None)
    __import__("my_layers")
    h, m = inputs.T @ inputs, model.first.detach().T @ model.first.detach()
    assert nfa.alignment(*asked, **options)["first/h_vs_m"] == pytest.approx(
        float((h * m).sum() / h.norm() / m.norm()), rel=1e-5
    )


def test_what_is_no_rule_is_refused() -> None:
    with pytest.raises(Refusal, match="dataclass"):
        rules.add_rule(torch.einsum, nn.Linear)
    assert torch.einsum not in rules.RULES


def test_a_study_is_a_function_of_measured_matrices(at_home: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}
    monkeypatch.setattr("nfa.studies.__path__", [str(at_home.project / "nfa" / "studies")])
    exec(calls("A new study"), given)
    inputs = next(given["workload"].batches("val", batch_size=200)).inputs.double()
    eigenvalues = torch.linalg.eigvalsh(inputs.T @ inputs)
    expected = float(eigenvalues.sum() ** 2 / eigenvalues.square().sum())
    assert given["values"]["0/participation"] == pytest.approx(expected, rel=1e-5)


def test_an_entry_point_analyses_a_stored_run(lab: Lab) -> None:
    (command,) = commands("A new entry point")
    lab.type(command)
    made = lab.last("participation")
    values = series(lab.store, made)["0/participation"]
    assert list(values) == lab.epochs(made)
    assert 1 <= values[0] <= 64
    assert values[0] == values[3], "the images are the same at every checkpoint"
    assert lab.store.json(made, "config.json")["examples"] == 100
    assert (lab.project / "entrypoints" / "participation.py").exists()
    assert "participation: &participation" in (lab.project / "MLproject").read_text(encoding="utf-8")


@pytest.mark.usefixtures("at_home")
def test_a_sink_gets_values_texts_and_figures(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    exec(calls("A new sink"), {})
    said = capsys.readouterr().out
    assert re.search(r"^0 \{.*h_vs_m': 0\.\d+", said, re.MULTILINE)
    assert "alignment.json" in said
    assert list(tmp_path.glob("*.png"))
