"""Where `nfa.watch` writes: the same series, tables and figures in every sink, without passwords, each step once."""

import json
import math
import os
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import mlflow
import pytest
import torch
import torch.nn as nn
from matplotlib.figure import Figure
from matplotlib.text import Text
from torch import Tensor

import nfa
from nfa.errors import NfaError, Refusal
from nfa.levels import is_beside
from nfa.sinks import JsonLines, Memory, MlflowRun, TensorBoard
from nfa.watching.output import Output
from tests.support.analyses import series
from tests.support.forks import files
from tests.support.stores import Store
from tests.test_watching import cross_entropy, in_a_run, layers_of, only

STUDIES = "alignment,directions,flow"
TEXTS = {
    *(f"{study}.json" for study in STUDIES.split(",")),
    *(f"{name}.csv" for name in ("similarities", "gradient_directions", "gradient_flow")),
}
FIGURES = {"all_relations", "gradient_directions", "gradient_flow_map"}


def started() -> tuple[nn.Module, Tensor, Tensor]:
    torch.manual_seed(0)
    return layers_of(4, 6, 5, 3)


def recorded(sink: Any, model: nn.Module | None = None, **options: Any) -> dict[int, dict[str, float]]:
    """Values of two steps with an update between them, by what `record` gave back."""
    net, x, y = started()
    net = model or net
    with nfa.watch(net, cross_entropy, (x, y), sink=sink, **{"studies": STUDIES, **options}) as watch:
        found = {0: watch.record(0)}
        for weight in net.parameters():
            weight.data.mul_(1.5)
        found[1] = watch.record(1)
    return found


def by_key(found: Mapping[int, Mapping[str, float]]) -> dict[str, dict[int, float]]:
    keys = dict.fromkeys(key for values in found.values() for key in values)
    return {key: {step: values[key] for step, values in found.items() if key in values} for key in keys}


# ---- what is in each


def test_every_figure_of_a_watch_says_which_model_loss_and_examples() -> None:
    memory = Memory()
    recorded(memory)
    for name, figure in memory.figures.items():
        assert figure.get_suptitle().startswith("Sequential, cross-entropy: "), name
        assert " examples" in figure.get_suptitle(), name


def test_memory_has_what_was_recorded_and_a_table_and_a_figure_of_each_study() -> None:
    memory = Memory()
    found = recorded(memory)
    assert memory.series == by_key(found)
    assert {"0/agop_nfm_init_removed", "flow/0/weight_change", "gradient/mean_cosine", "probe/loss"} <= {*memory.series}
    assert {*memory.texts} == TEXTS
    assert {*memory.figures} == FIGURES
    assert all(isinstance(figure, Figure) for figure in memory.figures.values())


def test_the_active_mlflow_run_has_the_same(store: Store) -> None:
    memory = Memory()
    recorded(memory, prefix="mine/")
    with mlflow.start_run():
        recorded(None, prefix="mine/")
    assert series(store, only(store)) == memory.series
    for name, text in memory.texts.items():
        assert store.artifact(only(store), name).read_text(encoding="utf-8") == f"{text}\n"
    for name in memory.figures:
        assert store.artifact(only(store), f"plots/{name}.pdf").read_bytes().startswith(b"%PDF")


def test_a_folder_has_the_same_as_json_lines_and_files(tmp_path: Path) -> None:
    memory = Memory()
    recorded(memory)
    found = recorded(JsonLines(tmp_path / "new"))
    lines = (tmp_path / "new" / "series.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == [{"step": step, **values} for step, values in found.items()]
    for name, text in memory.texts.items():
        assert (tmp_path / "new" / name).read_text(encoding="utf-8") == f"{text}\n"
    assert {file.stem for file in (tmp_path / "new" / "plots").glob("*.png")} == FIGURES


def test_a_folder_with_series_is_refused_and_stays_as_it_is(tmp_path: Path) -> None:
    recorded(JsonLines(tmp_path), studies="flow")
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    with pytest.raises(Refusal, match=r"series\.jsonl, which already exists\n.*\n  do: pass another folder"):
        JsonLines(tmp_path)
    assert {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()} == before


def test_tensorboard_shows_series_texts_and_figures(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = recorded(TensorBoard(tmp_path), prefix="mine/")
    events = EventAccumulator(str(tmp_path)).Reload()
    shown = {key: {event.step: event.value for event in events.Scalars(key)} for key in events.Tags()["scalars"]}
    expected = by_key(found)
    assert shown.keys() == expected.keys()
    for key, of_key in expected.items():
        assert shown[key] == pytest.approx(of_key, rel=1e-6)
    assert {*events.Tags()["images"]} == {f"mine/{name}" for name in FIGURES}
    texts = {name.removesuffix("/text_summary") for name in events.Tags()["tensors"]}
    assert texts == {f"mine/{name}" for name in TEXTS}


class Told:
    """A sink of one's own."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any]] = []

    def log(self, values: Mapping[str, float], step: int) -> None:
        self.calls.append((f"log {len(values)}", step))

    def text(self, name: str, content: str) -> None:
        self.calls.append((content[:4], name))

    def figure(self, name: str, figure: Figure) -> None:
        self.calls.append((type(figure).__name__, name))


def test_any_object_with_the_three_methods_will_do() -> None:
    told = Told()
    recorded(told, studies="flow")
    assert told.calls == [
        ('{\n "', "flow.json"),
        ("log 6", 0),
        ("log 9", 1),
        ("step", "gradient_flow.csv"),
        ("Figure", "gradient_flow_map"),
    ]


@pytest.mark.parametrize("sink", [3, "mlflow", Memory, object(), {}])
def test_what_is_no_sink_is_refused(sink: Any) -> None:
    with pytest.raises(Refusal, match=r"sink=.*\n  allowed: an object with the methods log, text and figure"):
        recorded(sink)


# ---- what holds for all of them


def test_training_goes_on_anew_in_a_sink_that_is_no_run(capsys: pytest.CaptureFixture[str]) -> None:
    memory = Memory()
    net, x, y = started()
    with nfa.watch(net, cross_entropy, (x, y), sink=memory, step=4, relations="agop_nfm,*_removed") as watch:
        watch.record(4)
    assert {key for key in memory.series if not is_beside(key)} == {"0/agop_nfm", "2/agop_nfm", "probe/loss"}
    assert "the run continues from step 4 and has no stored initial weights" in capsys.readouterr().out


def test_a_step_that_is_recorded_twice_is_written_once() -> None:
    told = Memory()
    net, x, y = started()
    with nfa.watch(net, cross_entropy, (x, y), sink=told, relations="h_vs_m") as watch:
        first = watch.record(3)
        net[0].weight.data.mul_(-2)
        assert watch.record(3)["probe/loss"] != first["probe/loss"]
    assert told.series["probe/loss"] == {3: first["probe/loss"]}


@pytest.mark.parametrize("kind", [JsonLines, TensorBoard, Memory])
def test_two_watches_of_one_place_are_refused_under_one_name_and_taken_under_two(kind: Any, tmp_path: Path) -> None:
    """Two sinks of one folder are one place."""
    one = kind() if kind is Memory else kind(tmp_path / "lines")
    other = one if kind is Memory else kind(tmp_path / "nowhere" / ".." / "lines")
    net, x, y = started()
    with nfa.watch(net, cross_entropy, (x, y), sink=one, relations="h_vs_m"):
        with pytest.raises(Refusal, match="prefix='', which another watch of this run uses"):
            nfa.watch(net, cross_entropy, (x, y), sink=other)
        with nfa.watch(net, cross_entropy, (x, y), sink=other, prefix="second/", relations="h_vs_m") as second:
            assert second.record(0)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_reaches_no_sink(value: float) -> None:
    memory = Memory()
    with pytest.raises(ValueError, match=r"mine/loss at step 3 is .*; undefined values are left out"):
        Output(memory, "mine/").log({"other": 1.0, "loss": value}, 3)
    assert memory.series == {}


def test_a_letter_that_mlflow_takes_in_no_key_is_the_same_one_in_every_sink(store: Store) -> None:
    def named() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(OrderedDict({"a+b": nn.Linear(4, 6), "relu": nn.ReLU(), "out": nn.Linear(6, 3)}))

    memory = Memory()
    recorded(memory, named(), studies="alignment")
    with mlflow.start_run():
        recorded(None, named(), studies="alignment")
    assert "a_b/h_vs_m" in memory.series
    assert series(store, only(store)) == memory.series


def test_no_password_reaches_a_sink() -> None:
    memory = Memory()
    parts = {"password=hunter2": nn.Linear(4, 6), "relu": nn.ReLU(), "out": nn.Linear(6, 3)}
    recorded(memory, nn.Sequential(OrderedDict(parts)), studies="alignment")
    assert "password____" in memory.texts["alignment.json"]
    assert "hunter2" not in "".join([*memory.texts.values(), *memory.series])
    figure = Figure()
    figure.suptitle("password=hunter2")
    Output(memory, "").figure("mine", figure)
    drawn = [text.get_text() for figure in memory.figures.values() for text in figure.findobj(Text)]
    assert "password=***" in drawn
    assert not [text for text in (*memory.texts.values(), *drawn) if "hunter2" in text]


def test_two_watches_of_one_sink_need_names_of_their_own() -> None:
    memory = Memory()
    net, x, y = started()
    with nfa.watch(net, cross_entropy, (x, y), sink=memory) as watch:
        watch.record(0)
        with pytest.raises(Refusal, match="prefix='', which another watch"):
            nfa.watch(net, cross_entropy, (x, y), sink=memory)
        with nfa.watch(net, cross_entropy, (x, y), sink=Memory()) as other:
            assert other.record(0) == watch.record(0)


# ---- a store that fails


@in_a_run
def test_without_mlflow_the_remedies_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "mlflow", None)
    remedy = r"mlflow, which is not installed\n.*\n  do: pip install 'nfa\[registry\]', or sink="
    with pytest.raises(Refusal, match=remedy):
        recorded(None)


def damage(store: Store) -> None:
    store.database.write_bytes(b"damaged " * 4096)


def lose_a_table(store: Store) -> None:
    store.change("DROP TABLE latest_metrics")


@pytest.mark.parametrize("act", [damage, lose_a_table])
def test_a_database_that_fails_is_one_clear_error_that_names_the_run(
    act: Callable[[Store], None], store: Store, capfd: pytest.CaptureFixture[str]
) -> None:
    net, x, y = started()
    with mlflow.start_run() as run:
        watch = nfa.watch(net, cross_entropy, (x, y), studies="flow").__enter__()
        whole = store.database.read_bytes()
        act(store)
        capfd.readouterr()
        said = rf"^MLflow run {run.info.run_id[:12]} in sqlite.*: .*\n  do: check"
        with pytest.raises(NfaError, match=said) as error:
            watch.record(1)
        store.database.write_bytes(whole)
    assert len(str(error.value).splitlines()) == 2
    assert "Traceback" not in "".join(capfd.readouterr())


@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_disk_that_fails_is_one_clear_error(elsewhere: bool, run: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    net, x, y = started()
    watch = nfa.watch(net, cross_entropy, (x, y), studies="flow")
    if elsewhere:
        monkeypatch.setattr(MlflowRun, "local_folder", lambda _: None)
        monkeypatch.setattr(mlflow.MlflowClient, "log_artifact", full)
    else:
        monkeypatch.setattr(os, "replace", full)
    with pytest.raises(NfaError, match=r"^MLflow run .*: .*No space left on device\n  do: check"):
        watch.__enter__()
    assert files(run.artifact(only(run))) == []


def full(*_: Any, **__: Any) -> None:
    raise OSError(28, "No space left on device")
