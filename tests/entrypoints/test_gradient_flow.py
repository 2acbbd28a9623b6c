"""`gradient_flow` of one run: values of the reference, reports that agree with them, sources left alone, copies."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from torch import Tensor

from nfa import reference
from nfa.parameter_groups import ParameterGroups
from nfa.registry import stored_runs
from nfa.registry.analyses.config import GradientFlowConfig
from nfa.registry.analyses.gradient_flow import FlowOfRun, GradientFlow
from nfa.workload import Batch
from tests.support.analyses import series
from tests.support.gradient_direction_runs import Trained, batch_of, shorten
from tests.support.gradient_flow_runs import RATIO, at, expected, flow_of, of_kind
from tests.support.stores import Finished, Store, used

N = {"mlp": 20, "v1": 6}
EPOCHS = {"mlp": [0, 1, 2, 4], "v1": [0, 1, 2, 3]}
GROUPS = {"mlp": ["layer_0", "layer_1", "layer_2"], "v1": ["cnn", "se", "subject", "block_0", "head"]}
ROLES = {"mlp": ("layer_0", "layer_1", "layer_2"), "v1": ("block_0", "block_0", "head")}
PICTURES = ["gradient_flow_map", "gradient_flow_ratios"]


def everything(store: Store, run_id: str) -> dict[str, object]:
    """All of a run that an analysis of it must not touch."""
    files = {path: path.read_bytes() for path in sorted(store.artifact(run_id).rglob("*")) if path.is_file()}
    return {
        "files": files,
        "metrics": store.metrics(run_id),
        "tags": store.tags(run_id),
        "params": store.params(run_id),
    }


@pytest.fixture(scope="module")
def analysed(trained_flows: Trained, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Finished]:
    """One analysis of each kind of run; that of the Conformer is drawn, in small batches."""
    store = trained_flows.store.copy(tmp_path_factory.mktemp("flow") / "store")
    with pytest.MonkeyPatch.context() as monkeypatch, used(store, monkeypatch):
        before = {name: everything(store, store.named()[name]) for name in N}
        made = {name: flow_of(store, name, n=n, batch_size=4, pictures=name == "v1") for name, n in N.items()}
        assert {name: everything(store, store.named()[name]) for name in N} == before
    return {name: Finished(store, run_id) for name, run_id in made.items()}


@pytest.fixture
def looking(analysed: dict[str, Finished]) -> Iterator[dict[str, Finished]]:
    with pytest.MonkeyPatch.context() as monkeypatch, used(analysed["v1"].store, monkeypatch):
        yield analysed


@pytest.mark.parametrize("name", N)
def test_gradients_and_changes_are_those_of_the_reference(name: str, looking: dict[str, Finished]) -> None:
    """In float32 with float64 sums: 1e-4 of a group's value."""
    store, made = looking[name].store, looking[name].run_id
    found, source = series(store, made), store.named()[name]
    for epoch in EPOCHS[name]:
        values = of_kind(at(found, epoch), "/grad_rms", "/weight_change")
        assert values == pytest.approx(expected(source, epoch, N[name]), rel=1e-4)
        front, back, output = ROLES[name]
        rms = {group: values[f"flow/{group}/grad_rms"] for group in GROUPS[name]}
        assert found[RATIO][epoch] == pytest.approx(rms[front] / rms[output])
        assert found["flow/back_output_ratio"][epoch] == pytest.approx(rms[back] / rms[output])
    assert all(0 not in of_key for key, of_key in found.items() if key.endswith("weight_change"))


@pytest.mark.parametrize("name", N)
def test_what_training_has_logged_is_copied_and_its_ratio_is_of_the_copies(
    name: str, looking: dict[str, Finished]
) -> None:
    store, made = looking[name].store, looking[name].run_id
    found, trained = series(store, made), series(store, store.named()[name])
    logged = {key: of_key for key, of_key in trained.items() if key.startswith("flow/")}
    assert set(logged) == {"flow/grad_norm", *(f"flow/{group}/update_ratio" for group in GROUPS[name])}
    assert all(sorted(of_key) == EPOCHS[name][1:] for of_key in logged.values())
    for key in (*logged, "train/loss", "val/loss"):
        assert found[key] == {epoch: trained[key][epoch] for epoch in EPOCHS[name] if epoch in trained[key]}
    front, _, output = ROLES[name]
    for epoch in EPOCHS[name][1:]:
        ratio = logged[f"flow/{front}/update_ratio"][epoch] / logged[f"flow/{output}/update_ratio"][epoch]
        assert found["flow/front_output_update_ratio"][epoch] == pytest.approx(ratio)
    assert "val/pearson" in found if name == "v1" else "val/accuracy" in found


def eeg_targets(last: dict[str, float]) -> list[tuple[float, str]]:
    """The values that rules of thumb from decoding EEG are about, and whether they are met."""
    change, pearson, norm = last["flow/block_0/weight_change"], last["val/pearson"], last["flow/grad_norm"]
    met = {last[RATIO]: last[RATIO] > 0.1, change: change > 0.01, pearson: pearson > 0.3, norm: 1 <= norm <= 10}
    return [(value, "met" if good else "not met") for value, good in met.items()]


@pytest.mark.parametrize("name", N)
def test_reports_say_what_the_series_say_and_only_those_of_eeg_have_targets(
    name: str, looking: dict[str, Finished]
) -> None:
    store, made = looking[name].store, looking[name].run_id
    found, report = series(store, made), store.json(made, "gradient_flow.json")
    assert report["epochs"] == EPOCHS[name]
    assert list(report["groups"]) == GROUPS[name]
    assert report["roles"] == dict(zip(("front", "back", "output"), ROLES[name], strict=True))
    for group, measures in report["groups"].items():
        for measure, values in measures.items():
            of_key = found[f"flow/{group}/{measure}"]
            assert values == [of_key.get(epoch) for epoch in EPOCHS[name]]
            assert (values[0] is None) is (measure != "grad_rms")
    last = at(found, EPOCHS[name][-1])
    assert report["verdicts"]["front_output_ratio"]["value"] == last[RATIO]
    assert report["built_in_factor"] == 1.0
    text = store.artifact(made, "gradient_flow.txt").read_text(encoding="utf-8")
    row = next(line for line in text.splitlines() if line.startswith(GROUPS[name][0]))
    shown = [last[f"flow/{GROUPS[name][0]}/{measure}"] for measure in ("grad_rms", "weight_change", "update_ratio")]
    assert [float(cell) for cell in row.split()[-3:]] == pytest.approx(shown, rel=1e-3)
    assert f"front/output {last[RATIO]:.4g}" in text
    assert text.count("not measured") >= (name == "mlp")
    assert "put in" not in text
    results = [(target["value"], target["result"]) for target in report.get("targets", [])]
    assert results == (eeg_targets(last) if name == "v1" else [])
    for said in ("rules of thumb", "hoped"):
        assert (said in text) == (said in str(report)) == (name == "v1")
    assert store.tags(made)["mlflow.parentRunId"] == store.named()[name]


def test_pictures_are_there(looking: dict[str, Finished]) -> None:
    for name in PICTURES:
        for kind in ("png", "pdf"):
            assert looking["v1"].store.artifact(looking["v1"].run_id, f"plots/{name}.{kind}").stat().st_size > 5000


def test_the_same_again_is_copied_and_needs_no_data(
    analysed: dict[str, Finished], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("computed")

    with used(analysed["v1"].store.copy(tmp_path / "store"), monkeypatch) as store:
        monkeypatch.setattr("nfa.registry.stored_runs.load_workload", refuse)
        again = flow_of(store, "v1", n=N["v1"], batch_size=3)  # the memory it takes decides no value
        assert store.metrics(again) == store.metrics(analysed["v1"].run_id)
        for path in ("gradient_flow.json", "gradient_flow.txt"):
            ours, theirs = (store.artifact(made, path).read_bytes() for made in (again, analysed["v1"].run_id))
            assert ours == theirs
        monkeypatch.undo()


def test_the_number_at_a_time_changes_no_value_and_the_number_of_examples_does(flows: Trained) -> None:
    of = {
        case: at(series(flows.store, flow_of(flows.store, "v1", epochs="3", **options)), 3)
        for case, options in {"three": {"n": 6, "batch_size": 3}, "one": {"n": 5, "batch_size": 1}}.items()
    }
    source = flows.ids["v1"]
    for case, n in (("three", 6), ("one", 5)):
        assert of_kind(of[case], "grad_rms", "change") == pytest.approx(expected(source, 3, n), rel=1e-4)
    assert of["one"]["flow/cnn/grad_rms"] != pytest.approx(of["three"]["flow/cnn/grad_rms"], rel=1e-3)


def test_a_run_that_logged_no_updates_has_none_and_says_so(flows: Trained, capsys: pytest.CaptureFixture[str]) -> None:
    """As one that was imported; without epoch 0 there is no change either."""
    source = flows.ids["mlp"]
    for table in ("metrics", "latest_metrics"):
        flows.store.change(f"DELETE FROM {table} WHERE run_uuid = ? AND key LIKE 'flow/%'", source)
    flows.store.artifact(source, "checkpoints/epoch_0000.safetensors").unlink()
    made = flow_of(flows.store, "mlp", n=20)
    said = capsys.readouterr()
    assert "update ratios and the gradient norm are not available" in said.out + said.err
    assert "weight changes are not available" in said.out + said.err
    found, report = series(flows.store, made), flows.store.json(made, "gradient_flow.json")
    assert not of_kind(dict.fromkeys(found, 0.0), "update_ratio", "grad_norm", "weight_change")
    assert report["verdicts"]["front_weight_change"] == {"value": None, "verdict": "not measured"}
    assert report["grad_norm"] == [None] * 3
    text = flows.store.artifact(made, "gradient_flow.txt").read_text(encoding="utf-8")
    assert "updates: front/output not measured" in text
    assert "nan" not in text.lower()


def test_a_weighted_loss_is_differentiated_with_its_weights_unless_plain_is_asked_for(flows: Trained) -> None:
    source, n = flows.ids["ghm"], 30
    own, plain = (
        series(flows.store, flow_of(flows.store, "ghm", n=n, epochs="4", batch_size=7, loss=loss))
        for loss in ("run", "plain")
    )
    model, workload = stored_runs.load_checkpoint(source, 4, device="cpu")
    batch = batch_of(source, n)
    w, _ = reference.ghm_c(workload.outputs(model, batch), batch.targets, bins=5, alpha=workload.config.ghm_alpha)
    weights = dict(zip(batch.ids.tolist(), w, strict=True))

    def weighted(outputs: Tensor, example: Batch) -> Tensor:
        return weights[int(example.ids)] * workload.losses(outputs, example)

    assert of_kind(at(own, 4), "grad_rms", "change") == pytest.approx(expected(source, 4, n, weighted), rel=1e-4)
    assert of_kind(at(plain, 4), "grad_rms", "change") == pytest.approx(expected(source, 4, n), rel=1e-4)
    assert not np.isclose(at(own, 4)["flow/layer_0/grad_rms"], at(plain, 4)["flow/layer_0/grad_rms"], rtol=1e-3)


def test_of_one_hidden_layer_the_first_is_front_and_back(flows: Trained) -> None:
    made = flow_of(flows.store, "shallow", n=10)
    report = flows.store.json(made, "gradient_flow.json")
    assert report["roles"] == {"front": "layer_0", "back": "layer_0", "output": "layer_1"}
    assert report["front_output_ratio"] == report["back_output_ratio"]


def test_a_readout_alone_has_values_and_no_ratio(flows: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = FlowOfRun.__init__

    def alone(flow: FlowOfRun, *args: object) -> None:
        opened(flow, *args)
        names = {"layer_1": flow.analysis.groups.names["layer_1"]}
        flow.analysis.groups = ParameterGroups(names, "layer_1", None, "layer_1")

    monkeypatch.setattr(FlowOfRun, "__init__", alone)
    made = flow_of(flows.store, "shallow", n=10, epochs="4")
    found = series(flows.store, made)
    assert {key for key in found if key.startswith("flow/") and "ratio" in key} == {
        "flow/layer_0/update_ratio",  # logged by the training
        "flow/layer_1/update_ratio",
    }
    assert flows.store.json(made, "gradient_flow.json")["verdicts"]["front_output_ratio"]["verdict"] == "not measured"


def test_the_default_takes_the_probe_as_far_as_it_goes(flows: Trained, tmp_path: Path) -> None:
    shorten(flows.store, flows.ids["mlp"], 9)
    made = flow_of(flows.store, "mlp", epochs="4", output_dir=str(tmp_path / "copy"))
    assert len(flows.store.json(made, "config.json")["examples"]) == 9
    copied = (tmp_path / "copy/gradient_flow.json").read_bytes()
    assert copied == flows.store.artifact(made, "gradient_flow.json").read_bytes()


OTHER = {"n": 31, "loss": "plain"}


SAME = {
    "run_id": "abc",
    "epochs": "5",
    "batch_size": 7,
    "seed": 1,
    "output_dir": "out",
    "data_dir": "data",
    "workload": "my_lab:make",
    "workload_args": "width=4",
    "device": "cpu",
    "run_name": "again",
}


def test_every_option_is_known_to_decide_values_or_not() -> None:
    assert {*OTHER, *SAME} == set(GradientFlowConfig.__dataclass_fields__)
    assert set(SAME) == GradientFlow.undecisive
    for name, value in {**OTHER, **SAME}.items():
        first, second = (GradientFlow(GradientFlowConfig(**options)).identity([0]) for options in ({}, {name: value}))
        assert (first != second) is (name in OTHER), name
