"""`demo`: three real trainings, their analyses, and one figure drawn from what they logged."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from nfa.registry import tracking
from nfa.registry.families.mlp import demo as job
from nfa.registry.families.mlp.config import DemoConfig, TrainConfig
from nfa.registry.tracking.sources import find_sources
from tests.support.analyses import series, undrawn
from tests.support.processes import run, words
from tests.support.stores import Store, used
from tests.support.tiny_runs import OPTIMIZERS

SMALL = words(epochs=2, width=8, depth=2)
LABELS = ["sgd lr 0.1", "adam lr 0.001", "muon lr 0.01"]  # of the trainings where they are compared
EPOCHS = [0, 1, 2]
RELATIONS = ["agop_nfm", "g_vs_h", "g_vs_m", "h_vs_m"]


@dataclass(frozen=True)
class Demonstrated:
    """The runs of a demo by name, and their store; `drawn` is what the figure was given: series, sites, relations."""

    store: Store
    runs: dict[str, str]
    drawn: tuple[Mapping[str, Any], Sequence[str], Sequence[str]] = ({}, (), ())

    def series(self, name: str) -> dict[str, dict[int, float]]:
        return series(self.store, self.runs[name])


def named(store: Store) -> dict[str, str]:
    """Ids of the runs of the demo: itself, each training by its optimizer, and its analysis."""
    assert store.rows("SELECT count(*) FROM runs") == [(7,)]
    trained = {store.tags(run_id).get("nfa.variant", "demo"): run_id for run_id in store.runs()[:4]}
    of = {store.tags(run_id)["nfa.source_run_ids"]: run_id for run_id in store.runs()[4:]}
    return {**trained, **{f"analysis of {name}": of[trained[name]] for name in OPTIMIZERS}}


@pytest.fixture(scope="module")
def demo(empty_store: Store, tmp_path_factory: pytest.TempPathFactory) -> Demonstrated:
    """A small demo in this process; only its own figure is drawn, the others are those of `train` and `analyze`."""
    figures: list[Any] = []
    draw, figure = tracking.save_picture, job.training_analyses
    store = empty_store.copy(tmp_path_factory.mktemp("demo") / "store")
    with undrawn(), pytest.MonkeyPatch.context() as patch, used(store, patch):
        for drawing in ("training_figure", "comparison_figure"):
            patch.setattr(f"nfa.registry.training.report.{drawing}", lambda *_, **__: None)
        patch.setattr(tracking, "save_picture", lambda run_, it, name: draw(run_, it, name) if "demo" in name else None)
        patch.setattr(job, "training_analyses", lambda *given, **more: figures.append(given) or figure(*given, **more))
        job.demo(DemoConfig(epochs=2, width=8, depth=2, output_dir="out"))
    return Demonstrated(store, named(store), *figures)


def test_a_parent_has_three_trainings_and_each_has_an_analysis(demo: Demonstrated) -> None:
    assert set(demo.runs) == {"demo", *OPTIMIZERS, *(f"analysis of {name}" for name in OPTIMIZERS)}
    for name, run_id in demo.runs.items():
        tags = demo.store.tags(run_id)
        assert (tags["nfa.state"], tags["nfa.workload"]) == ("finished", "mlp")
        parent = demo.runs[name.removeprefix("analysis of ")] if "of" in name else demo.runs["demo"]
        assert tags.get("mlflow.parentRunId") == (None if name == "demo" else parent)
        kind = "demo" if name == "demo" else "analyze" if "of" in name else "train"
        assert tags["nfa.entrypoint"] == kind


def test_runs_are_named_by_what_ran(demo: Demonstrated) -> None:
    trained = "digits mlp 8×2 adam lr 0.001 seed 1717 cross-entropy epochs 2"
    ids = demo.store.named()
    assert ids[trained] == demo.runs["adam"]
    assert ids[f"analysis of {trained}"] == demo.runs["analysis of adam"]
    assert ids["demo: digits mlp 8×2, 3 optimizers, cross-entropy, epochs 2"] == demo.runs["demo"]


def test_its_description_has_the_results_the_figure_and_the_next_command(demo: Demonstrated) -> None:
    note = demo.store.tags(demo.runs["demo"])["mlflow.note.content"].replace("&emsp;", "")
    assert note.startswith("MLP 64→8×2 on digits, seed 1717: three optimizers, 2 epochs\n\n| run | test/accuracy | ")
    assert all(f"| digits mlp 8×2 {label} seed 1717 " in note for label in LABELS)
    assert f"[![plots/{job.FIGURE}.png](get-artifact?path=plots%2Fpreview.png&run_uuid=" in note
    assert f"gradient_flow --run_id {demo.runs['demo']}\n```" in note


def test_children_were_trained_as_asked_on_digits_at_every_epoch(demo: Demonstrated) -> None:
    for name in OPTIMIZERS:
        config = TrainConfig(**demo.store.json(demo.runs[name], "config.json")["train"])
        assert (config.optimizer, config.dataset) == (name, "digits")
        assert (config.epochs, config.width, config.depth, config.seed) == (2, 8, 2, 1717)
        assert list(demo.store.checkpoints(demo.runs[name])) == [f"epoch_{epoch:04d}.safetensors" for epoch in EPOCHS]
    assert demo.store.params(demo.runs["demo"])["width"] == "8"


def test_analyses_agree_with_the_trainings_at_every_epoch(demo: Demonstrated) -> None:
    for name in OPTIMIZERS:
        trained, analysed = demo.series(name), demo.series(f"analysis of {name}")
        for site in ("layer_0", "layer_1"):
            own = trained[f"{site}/agop_nfm"]
            assert analysed[f"{site}/agop_nfm"] == pytest.approx(own, abs=1e-6)
            assert list(own) == EPOCHS
        for loss in ("train/loss", "val/loss"):
            assert analysed[loss] == trained[loss]


def test_its_time_is_that_of_its_trainings_and_its_own(demo: Demonstrated) -> None:
    whole = demo.store.json(demo.runs["demo"], "timing.json")
    times = [demo.store.json(demo.runs[name], "timing.json")["total"] for name in OPTIMIZERS]
    assert whole["children"] == pytest.approx(sum(times), abs=1e-6)
    assert whole["total"] == pytest.approx(sum(whole.values()) - whole["total"], abs=1e-6)


def test_figure_is_there_in_both_formats_and_copied_to_output_dir(demo: Demonstrated) -> None:
    copied = demo.store.folder / "out"
    assert {file.name for file in copied.iterdir()} == {f"{job.FIGURE}.png", f"{job.FIGURE}.pdf"}
    for kind, start in (("png", b"\x89PNG"), ("pdf", b"%PDF")):
        drawn = demo.store.artifact(demo.runs["demo"], f"plots/{job.FIGURE}.{kind}").read_bytes()
        assert drawn.startswith(start)
        assert len(drawn) > 10_000
        assert (copied / f"{job.FIGURE}.{kind}").read_bytes() == drawn


def test_the_parent_compares_the_runs_and_has_no_other_series(demo: Demonstrated) -> None:
    rows = demo.store.artifact(demo.runs["demo"], "comparison.csv").read_text(encoding="utf-8").splitlines()[1:]
    assert list(dict.fromkeys(row.split(",")[0] for row in rows)) == LABELS
    assert {key.partition("/")[0] for key, _, _ in demo.store.metrics(demo.runs["demo"])} == {"- comparison"}


def test_latest_is_the_demo_and_means_its_trainings(demo: Demonstrated, monkeypatch: pytest.MonkeyPatch) -> None:
    with used(demo.store, monkeypatch):
        assert [found.info.run_id for found in find_sources("latest")] == [demo.runs[name] for name in OPTIMIZERS]


def test_every_value_in_the_figure_is_one_that_an_analysis_logged(demo: Demonstrated) -> None:
    runs, sites, relations = demo.drawn
    assert list(runs) == LABELS
    assert sites == ["layer_0", "layer_1"]
    assert list(relations) == RELATIONS
    for name, label in zip(OPTIMIZERS, LABELS, strict=True):
        logged = demo.series(f"analysis of {name}")
        assert {key: runs[label][key] for key in logged} == logged
        assert {f"{site}/{relation}" for site in sites for relation in RELATIONS} <= set(logged)


@pytest.mark.slow
def test_the_demo_as_it_is_typed_takes_its_three_networks_to_a_small_loss(empty_store: Store, tmp_path: Path) -> None:
    store = empty_store.copy(tmp_path / "store")
    ended = run(store, [], entrypoint="demo", pictures=True)
    assert ended.code == 0, ended.output
    made = Demonstrated(store, named(store))
    for name in OPTIMIZERS:
        losses = made.series(name)["val/loss"]
        assert list(losses) == list(range(13))
        assert losses[12] < losses[0] / 2
        assert made.series(name)["test/accuracy"][12] > 0.8
