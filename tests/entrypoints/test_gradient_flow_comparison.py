"""Several runs: a scaled gradient moves the gradient ratio by construction; whether it moves the updates is told."""

import csv
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from nfa.maths.statistics import crossed_bootstrap
from nfa.registry import tracking
from nfa.studies.gradient_flow import ratio_verdict
from tests.support.analyses import series
from tests.support.gradient_direction_runs import Trained
from tests.support.gradient_flow_runs import RATIO, flow_of
from tests.support.stores import Store, used

N = 6
ADAM = ("v1", "scale", "output", "both")


@pytest.fixture(scope="module")
def compared(trained_flows: Trained, tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, dict[str, str]]:
    """Comparisons under Adam and under plain gradient descent."""
    store = trained_flows.store.copy(tmp_path_factory.mktemp("compared") / "store")
    with pytest.MonkeyPatch.context() as monkeypatch, used(store, monkeypatch):
        made = {
            "adam": flow_of(store, *ADAM, n=N),
            "sgd": flow_of(store, "v1, sgd", "scale, sgd", n=N),
        }
    return store, made


@pytest.fixture
def looking(compared: tuple[Store, dict[str, str]]) -> Iterator[tuple[Store, dict[str, str]]]:
    with pytest.MonkeyPatch.context() as monkeypatch, used(compared[0], monkeypatch):
        yield compared


def parts(store: Store, run_id: str) -> dict[str, dict[str, dict[int, float]]]:
    """Series of the analyses of single runs that a comparison holds, by the run's name."""
    names = {source: name for name, source in store.named().items()}
    of = {store.tags(made).get("nfa.source_run_ids"): made for made in store.runs() if made != run_id}
    return {names[s]: series(store, of[s]) for s in store.tags(run_id)["nfa.source_run_ids"].split(",")}


def report(compared: tuple[Store, dict[str, str]], optimizer: str) -> dict[str, Any]:
    found: dict[str, Any] = compared[0].json(compared[1][optimizer], "gradient_flow.json")
    return found


def test_before_training_the_gradient_ratio_is_multiplied_exactly(looking: tuple[Store, dict[str, str]]) -> None:
    ratios = {name: of_run[RATIO] for name, of_run in parts(looking[0], looking[1]["adam"]).items()}
    for name, factor in (("scale", 2), ("output", 2), ("both", 4)):
        assert ratios[name][0] / ratios["v1"][0] == pytest.approx(factor, rel=1e-5)


@pytest.mark.parametrize(("name", "factor"), [("scale", 2), ("output", 2), ("both", 4)])
def test_adam_divides_it_out_again_so_it_is_cosmetic(
    name: str, factor: int, looking: tuple[Store, dict[str, str]]
) -> None:
    content = report(looking, "adam")
    assert content["compared_with"] == "v1"
    found = content["remedies"][name]
    assert found["gradient_factor"] == pytest.approx(factor, rel=1e-3)
    assert found["update_factor"] == pytest.approx(1, abs=0.02)
    assert found["verdict"].startswith("cosmetic")
    text = looking[0].artifact(looking[1]["adam"], "gradient_flow.txt").read_text(encoding="utf-8")
    (said,) = (line for line in text.splitlines() if line.startswith(f"- {name}: gradient ratio"))
    assert said.endswith(f"the model's built-in factor {factor})")


def test_plain_descent_follows_so_it_is_real(looking: tuple[Store, dict[str, str]]) -> None:
    found = report(looking, "sgd")["remedies"]["scale"]
    assert found["gradient_factor"] == pytest.approx(2, rel=0.1)
    assert found["update_factor"] == pytest.approx(2, rel=0.1)
    assert found["verdict"].startswith("real")
    text = looking[0].artifact(looking[1]["sgd"], "gradient_flow.txt").read_text(encoding="utf-8")
    factors = f"gradient ratio × {found['gradient_factor']:.3g}, update ratio × {found['update_factor']:.3g}"
    assert f"scale: {factors}: real: the updates follow" in text


def test_the_table_of_values_is_that_of_the_single_analyses(looking: tuple[Store, dict[str, str]]) -> None:
    store, made = looking
    content, single = report(looking, "adam"), parts(store, made["adam"])
    assert content["epoch"] == 3
    for name in ADAM:
        for key, value in content["values"][name].items():
            assert value == pytest.approx(single[name][key][3]), key
    rows = list(csv.DictReader(store.artifact(made["adam"], "comparison.csv").read_text().splitlines()))
    for row in rows:
        assert float(row["value"]) == single[row["arm"]][row["series"]][int(row["epoch"])]
    assert {row["arm"] for row in rows} == set(ADAM)
    text = store.artifact(made["adam"], "gradient_flow.txt").read_text(encoding="utf-8")
    values = [content["values"][name]["flow/block_0/grad_rms"] for name in ADAM]
    line = next(line for line in text.splitlines() if line.startswith("block_0"))
    assert f"{values[0]:.4g}" in line
    assert f"(×{values[3] / values[0]:.2f})" in line
    assert not [key for key, _, _ in store.metrics(made["adam"]) if key.startswith("flow/")]


def test_pearson_is_of_the_test_recordings_with_its_bootstrap(looking: tuple[Store, dict[str, str]]) -> None:
    store, _ = looking
    content = report(looking, "adam")
    of = {name: tracking.get_json(store.named()[name], "results.json")["test"]["recordings"] for name in ADAM}
    for name in ADAM:
        table = np.array([[of[name][recording] for recording in sorted(of[name])]])
        found = crossed_bootstrap(table, seed=1717)
        assert found
        assert content["pearson"][name] == {**found._asdict(), "n": 4}
        assert content["pearson"][name]["mean"] == pytest.approx(sum(of[name].values()) / 4)
    gap = np.array([[of["both"][recording] - of["v1"][recording] for recording in sorted(of["v1"])]])
    found = crossed_bootstrap(gap, seed=1717)
    assert found
    assert content["pearson_difference"]["both"]["mean"] == pytest.approx(found.mean)
    assert content["pearson_difference"]["both"]["low"] == pytest.approx(found.low)


def test_a_single_run_says_what_is_built_into_it(looking: tuple[Store, dict[str, str]]) -> None:
    store, made = looking
    for name, factor in (("v1", 1.0), ("scale", 2.0), ("output", 2.0), ("both", 4.0)):
        folder = store.artifact(made["adam"], store.named()[name])
        content = store.json(made["adam"], f"{store.named()[name]}/gradient_flow.json")
        text = (folder / "gradient_flow.txt").read_text(encoding="utf-8")
        assert content["built_in_factor"] == factor
        found = content["verdicts"]["front_output_ratio"]
        assert found["value"] == pytest.approx(found["measured"] / factor)
        assert found["measured"] == content["front_output_ratio"][-1]
        assert found["verdict"] == ratio_verdict(found["value"])
        target = content["targets"][0]
        assert (target["value"], target["result"]) == (found["value"], "met" if found["value"] > 0.1 else "not met")
        said = f"gradient of the front {found['verdict']}: front/output {found['value']:.4g}"
        put_in = f" without the model's built-in factor {factor:.3g}"
        assert said + (f"{put_in}, {found['measured']:.4g} with it" if factor != 1 else " (epoch 3)") in text
        as_measured = f"\nfront / output, gradient: as measured, including the model's built-in factor {factor:.3g}"
        assert (as_measured in text) == (factor != 1)
        assert "targets: rules of thumb from decoding EEG" in text


def test_runs_of_different_kinds_are_compared_in_what_they_have(flows: Trained) -> None:
    made = flow_of(flows.store, "v1", "mlp", n=N)
    content = flows.store.json(made, "gradient_flow.json")
    assert content["values"]["v1"]["flow/layer_0/grad_rms"] is None
    assert content["values"]["mlp"]["flow/head/grad_rms"] is None
    assert content["values"]["mlp"]["flow/layer_0/grad_rms"] > 0
    assert content["pearson"]["mlp"] == {"mean": None, "low": None, "high": None}
    assert content["pearson_difference"]["mlp"]["mean"] is None
