"""What `run_id` stands for: one run, several, the children of a parent; never an analysis."""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from nfa.errors import Refusal
from nfa.registry.analyses.alignment import analyze
from nfa.registry.analyses.config import AnalyzeConfig
from nfa.registry.tracking.sources import find_sources
from nfa.registry.tracking.store import client
from tests.support.analyses import DrawOnly, analysed, series
from tests.support.processes import run, words
from tests.support.similarity_tables import COLUMNS, read_back
from tests.support.stores import Family, Store, used, wrapper_in
from tests.support.tiny_runs import OPTIMIZERS, trained_family


@dataclass(frozen=True)
class Compared(Family):
    """A family after an analysis of the parent; `comparison` is its run."""

    comparison: str

    def analysis(self, name: str) -> str:
        return self.store.named()[f"analysis of parent, {name}"]


@pytest.fixture(scope="module")
def trained(empty_store: Store, tmp_path_factory: pytest.TempPathFactory) -> Family:
    store = empty_store.copy(tmp_path_factory.mktemp("family") / "store")
    return trained_family(store, epochs=1, run_name="parent")


@pytest.fixture
def family(trained: Family, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Family]:
    """A copy of the trained family that may be changed, in the store that this process uses."""
    with used(trained.store.copy(tmp_path / "store"), monkeypatch) as store:
        yield Family(store, trained.parent, trained.children)


@pytest.fixture(scope="module")
def compared(trained: Family, tmp_path_factory: pytest.TempPathFactory) -> Compared:
    """The analysis of the parent, with the figure that compares them and a copy beside the store."""
    store = trained.store.copy(tmp_path_factory.mktemp("compared") / "store")
    argv = words(run_id=trained.parent, max_samples=20, output_dir="out", relations="g_vs_h,agop_nfm")
    ended = run(store, argv, entrypoint="analyze", before=DrawOnly("run_comparison"), pictures=True)
    assert ended.code == 0, ended.output
    return Compared(store, trained.parent, trained.children, store.named()["analysis of parent"])


@pytest.fixture
def looking(compared: Compared, monkeypatch: pytest.MonkeyPatch) -> Iterator[Compared]:
    """The same, in the store that this process uses."""
    with used(compared.store, monkeypatch):
        yield compared


def sources(text: str) -> list[str]:
    return [found.info.run_id for found in find_sources(text)]


def test_a_full_id_and_a_unique_prefix_name_one_run(family: Family) -> None:
    sgd = family.children["sgd"]
    assert sources(sgd) == sources(sgd[:12]) == [sgd]


def test_several_are_in_the_order_typed_and_each_once(family: Family) -> None:
    sgd, adam, muon = (family.children[name] for name in OPTIMIZERS)
    assert sources(f"{muon}, {sgd[:14]},{muon[:14]}") == [muon, sgd]
    assert sources(f"{adam},{family.parent}") == [adam, sgd, muon]


def test_a_parent_means_its_children_that_own_checkpoints(family: Family) -> None:
    client().create_run("0", tags={"mlflow.parentRunId": family.parent, "nfa.workload": "mlp"})
    assert sources(family.parent) == list(family.children.values())


def test_latest_is_the_last_training_and_never_an_analysis(looking: Compared) -> None:
    assert sources("latest") == sources(looking.parent) == list(looking.children.values())


def test_an_analysis_is_refused_with_its_source(looking: Compared) -> None:
    for analysis, source in (
        (looking.analysis("sgd"), looking.children["sgd"]),
        (looking.comparison, ",".join(looking.children.values())),
    ):
        with pytest.raises(Refusal, match=rf"run_id={analysis} \(an analysis\)\n.*\n  do: run_id={source}"):
            find_sources(analysis)


def test_a_run_without_checkpoints_is_refused(family: Family) -> None:
    bare = client().create_run("0").info.run_id
    with pytest.raises(Refusal, match=rf"run_id={bare} \(it has no checkpoints\)\n.*\n  do: train first"):
        find_sources(bare)
    with pytest.raises(Refusal, match="'zzz'"):
        find_sources(f"{family.parent},zzz")


def test_each_source_has_an_analysis_of_its_own_and_one_run_compares_them(compared: Compared) -> None:
    names, tags = compared.store.named(), compared.store.tags(compared.comparison)
    assert set(names) == {
        "parent",
        *(f"parent, {name}" for name in OPTIMIZERS),
        *(f"analysis of parent, {name}" for name in OPTIMIZERS),
        "analysis of parent",
    }
    for name, source in compared.children.items():
        of_one = compared.store.tags(names[f"analysis of parent, {name}"])
        assert of_one["mlflow.parentRunId"] == of_one["nfa.source_run_ids"] == source
        assert of_one["nfa.state"] == "finished"
    assert tags["nfa.source_run_ids"] == ",".join(compared.children.values())
    assert (tags["nfa.entrypoint"], tags["nfa.state"]) == ("analyze", "finished")
    assert "nfa.analysis_digest" not in tags
    assert compared.store.metrics(compared.comparison) == []


def test_there_is_a_folder_for_each_run_id_like_that_of_a_single_analysis(compared: Compared) -> None:
    folder = compared.store.artifact(compared.comparison)
    own = {"config.json", "comparison.csv", "plots/run_comparison.png", "plots/run_comparison.pdf", "plots/preview.png"}
    found = {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    for name, source in compared.children.items():
        alone = compared.store.artifact(compared.analysis(name))
        files = [file for file in alone.rglob("*") if file.is_file() and file.name not in ("series.npz", "preview.png")]
        assert len(files) == 3
        for file in files:
            assert found.pop(f"{source}/{file.relative_to(alone)}") == file.read_bytes()
    assert set(found) == own


def test_output_dir_gets_the_whole_tree(compared: Compared) -> None:
    folders = compared.store.artifact(compared.comparison), compared.store.folder / "out"
    first, second = ({str(file.relative_to(folder)) for file in folder.rglob("*")} for folder in folders)
    assert first - second == {"plots/preview.png"}
    assert second < first
    assert len(first) > 12


def test_the_comparison_names_every_run_and_its_sources(compared: Compared) -> None:
    assert compared.store.json(compared.comparison, "config.json")["sources"] == list(compared.children.values())
    text = compared.store.artifact(compared.comparison, "comparison.csv").read_text(encoding="utf-8")
    header, *rows = csv.reader(text.splitlines())
    assert header == ["run", "epoch", *COLUMNS]
    assert list(dict.fromkeys(row[0] for row in rows)) == OPTIMIZERS
    for name in OPTIMIZERS:
        logged = series(compared.store, compared.analysis(name))
        of_run = "\n".join([",".join(header), *(",".join(row) for row in rows if row[0] == name)])
        assert read_back(of_run) == {(key, epoch): of for key, of_key in logged.items() for epoch, of in of_key.items()}


def test_values_are_those_of_analyses_of_each_run_alone(compared: Compared, family: Family) -> None:
    asked = {"relations": "g_vs_h,agop_nfm", "max_samples": 20}
    alone = analysed(family.store, run_id=family.children["adam"], **asked)
    assert series(family.store, alone) == series(compared.store, compared.analysis("adam"))


def first_two(family: Family) -> str:
    return f"{family.children['sgd']},{family.children['adam']}"


def test_runs_of_the_same_name_are_told_apart_by_their_ids(family: Family) -> None:
    family.store.change("UPDATE runs SET name = 'twin' WHERE name IN ('parent, sgd', 'parent, adam')")
    comparison = analysed(family.store, run_id=first_two(family), max_samples=9)
    rows = family.store.artifact(comparison, "comparison.csv").read_text(encoding="utf-8").splitlines()[1:]
    sgd, adam = (family.children[name][:6] for name in ("sgd", "adam"))
    assert list(dict.fromkeys(row.split(",")[0] for row in rows)) == [f"twin {sgd}", f"twin {adam}"]


def test_runs_with_other_epochs_are_compared_at_all_of_theirs(family: Family) -> None:
    family.store.artifact(family.children["adam"], "checkpoints/epoch_0000.safetensors").unlink()
    with pytest.raises(Refusal, match=r"the run has no checkpoint 0\)\n  allowed: the run's checkpoints: 1\n"):
        analyze(AnalyzeConfig(run_id=family.parent, epochs="0"))
    comparison = analysed(family.store, run_id=first_two(family), max_samples=9)
    rows = family.store.artifact(comparison, "comparison.csv").read_text(encoding="utf-8").splitlines()[1:]
    epochs = {name: {row.split(",")[1] for row in rows if row.startswith(f"{name},")} for name in ("sgd", "adam")}
    assert epochs == {"sgd": {"0", "1"}, "adam": {"1"}}


def test_the_run_that_mlflow_made_becomes_the_comparison(family: Family) -> None:
    wrapper = wrapper_in(family.store)
    env = {"MLFLOW_RUN_ID": wrapper, "MLFLOW_EXPERIMENT_ID": "0"}
    ended = run(family.store, words(max_samples=9, run_id=first_two(family)), entrypoint="analyze", **env)
    assert ended.code == 0, ended.output
    tags = family.store.tags(wrapper)
    assert tags["nfa.source_run_ids"] == first_two(family)
    assert tags["nfa.state"] == "finished"
    assert len(family.store.runs()) == 4 + 1 + 2
    assert family.store.artifact(wrapper, "comparison.csv").exists()


def test_analyses_are_made_in_the_experiment_of_their_source(family: Family, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "another")
    run_id = analysed(family.store, run_id=family.children["sgd"], max_samples=9)
    assert family.store.rows("SELECT experiment_id FROM runs WHERE run_uuid = ?", run_id) == [(0,)]
    with pytest.raises(Refusal, match="an experiment with a training run"):
        find_sources("latest")
