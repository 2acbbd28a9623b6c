"""Gradient directions of several runs: an analysis of each, what tells two apart, and runs of other seeds together."""

import csv
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from nfa.maths.statistics import t_interval
from nfa.registry.analyses import gradient_directions_report
from nfa.registry.tracking.store import client
from tests.support.gradient_direction_runs import (
    BESIDE,
    MAIN,
    SERIES,
    Trained,
    array,
    array_names,
    directed,
    directions_of,
)
from tests.support.stores import Finished, used

N = 20
TAILS = (0.025, 0.975)


@pytest.fixture(scope="module")
def seeds(trained_runs: Trained, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Finished]:
    """Two runs that differ in their seed, with the pictures that compare them and a copy in the folder `out`."""
    store, ids = trained_runs.store.copy(tmp_path_factory.mktemp("seeds") / "store"), trained_runs.ids
    with pytest.MonkeyPatch.context() as monkeypatch, used(store, monkeypatch):
        monkeypatch.setattr(gradient_directions_report, "report", lambda *_: None)  # drawn in other tests
        both = f"{ids['seed 4']},{ids['dying']}"
        yield Finished(store, directed(store, run_id=both, n=N, epochs="0,5", pictures=True, output_dir="out"))


def made(finished: Finished, name: str) -> str:
    """Id of the analysis of a run."""
    return finished.store.named()[f"gradient directions of {name}"]


def rows(finished: Finished, path: str) -> list[list[str]]:
    text = finished.store.artifact(finished.run_id, path).read_text(encoding="utf-8")
    assert text.endswith("\n")
    assert not text.endswith("\n\n")
    return list(csv.reader(text.splitlines()))


def test_each_source_has_an_analysis_of_its_own_and_one_run_compares_them(
    seeds: Finished, trained_runs: Trained
) -> None:
    sources = [trained_runs.ids[name] for name in ("seed 4", "dying")]
    for name in ("seed 4", "dying"):
        tags = seeds.store.tags(made(seeds, name))
        assert tags["mlflow.parentRunId"] == tags["nfa.source_run_ids"] == trained_runs.ids[name]
        assert tags["nfa.state"] == "finished"
    tags = seeds.store.tags(seeds.run_id)
    assert tags["nfa.source_run_ids"] == ",".join(sources)
    assert (tags["nfa.entrypoint"], tags["nfa.state"]) == ("gradient_directions", "finished")
    assert tags["mlflow.runName"] == "gradient directions of 2 runs"
    assert not {"nfa.analysis_digest", "mlflow.parentRunId"} & set(tags)
    assert seeds.store.metrics(seeds.run_id) == []
    assert seeds.store.json(seeds.run_id, "config.json")["sources"] == sources


def test_there_is_a_folder_for_each_run_id_and_the_comparison_is_at_the_root(
    seeds: Finished, trained_runs: Trained
) -> None:
    folder = seeds.store.artifact(seeds.run_id)
    found = {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    for name in ("seed 4", "dying"):
        for path in {"config.json"} | array_names([0, 5]):
            alone = seeds.store.artifact(made(seeds, name), path)
            assert found.pop(f"{trained_runs.ids[name]}/{path}") == alone.read_bytes()
    names = ("comparison", "gradient_montage", "differences", "seed_comparison")
    pictures = {f"plots/{name}.{kind}" for name in names for kind in ("png", "pdf")}
    tables = {"config.json", "comparison.csv", "differences.csv", "differences.json", "groups.csv"}
    assert set(found) == pictures | tables | {"plots/preview.png"}
    assert min(len(found[path]) for path in pictures) > 5000
    copied = {str(file.relative_to(seeds.store.folder / "out")) for file in (seeds.store.folder / "out").rglob("*")}
    assert copied == {str(file.relative_to(folder)) for file in folder.rglob("*")} - {"plots/preview.png"}


def test_the_comparison_has_the_values_of_every_run(seeds: Finished) -> None:
    header, *found = rows(seeds, "comparison.csv")
    assert header == ["run", "epoch", "series", "value", "standard_error", "chance", "chance_sd"]
    for name in ("seed 4", "dying"):
        logged = directions_of(seeds.store, made(seeds, name))
        ours = [row[1:] for row in found if row[0] == name and row[2].startswith("gradient/")]
        expected = {
            (str(epoch), f"gradient/{key}"): [value, *(logged.get(f"{key}{end}", {}).get(epoch) for end in BESIDE)]
            for key, of_key in logged.items()
            if not key.endswith(BESIDE)
            for epoch, value in of_key.items()
        }
        assert {(epoch, key): [float(n) if n else None for n in given] for epoch, key, *given in ours} == expected
    assert {row[2] for row in found if not row[2].startswith("gradient/")} == {"train/loss", "val/loss"}


def draws(finished: Finished, name: str, epoch: int, key: str) -> np.ndarray[Any, Any]:
    """Bootstrap values of a series."""
    order = ["mean_cosine", "within_class_cosine", "between_class_cosine", "silhouette", "effective_rank"]
    found: np.ndarray[Any, Any] = array(finished.store, made(finished, name), "draws", epoch)[order.index(key)]
    return found


def test_two_runs_of_the_same_examples_are_compared_pair_by_pair(runs: Trained) -> None:
    """At the epochs that both have; the bootstrap draws the same examples in both."""
    comparison = directed(runs.store, run_id=f"{runs.ids['main']},{runs.ids['fast']}", n=N)
    both = Finished(runs.store, comparison)
    content = runs.store.json(comparison, "differences.json")
    assert content["difference"] == "fast - main"
    assert content["examples"] == "the same examples"
    first, second = (directions_of(runs.store, made(both, name)) for name in ("main", "fast"))
    assert (sorted(first["mean_cosine"]), sorted(second["mean_cosine"])) == (MAIN, [5])
    assert {key.removeprefix("gradient/") for key in content["series"]} >= SERIES - {"noise_scale"}
    for key, of_key in content["series"].items():
        assert list(of_key) == ["5"]
        value, low, high = of_key["5"]
        name = key.removeprefix("gradient/")
        assert value == pytest.approx(second[name][5] - first[name][5])
        assert low < high
    for key in ("mean_cosine", "silhouette"):
        expected = np.quantile(draws(both, "fast", 5, key) - draws(both, "main", 5, key), TAILS)
        assert content["series"][f"gradient/{key}"]["5"][1:] == pytest.approx(expected)
    header, *found = rows(both, "differences.csv")
    assert header == ["epoch", "series", "difference", "low", "high"]
    assert {key: {epoch: list(map(float, values))} for epoch, key, *values in found} == content["series"]
    assert not runs.store.artifact(comparison, "groups.csv").exists()


def test_two_runs_of_other_examples_are_compared_as_independent_ones(seeds: Finished) -> None:
    """The same random numbers drew in both: no draw of one may be paired with the same draw of the other."""
    content = seeds.store.json(seeds.run_id, "differences.json")
    assert content["examples"] == "different examples"
    assert content["difference"] == "dying - seed 4"
    for key in ("mean_cosine", "effective_rank"):
        first, second = (draws(seeds, name, 5, key) for name in ("seed 4", "dying"))
        expected = np.quantile(np.roll(second, 1) - first, TAILS)
        assert content["series"][f"gradient/{key}"]["5"][1:] == pytest.approx(expected)


def test_runs_that_differ_in_their_seed_are_one_group(seeds: Finished) -> None:
    header, *found = rows(seeds, "groups.csv")
    assert header == ["group", "runs", "epoch", "site", "relation", "mean", "low", "high", "chance", "shared"]
    assert {(group, count) for group, count, *_ in found} == {("all", "2")}
    logged = [directions_of(seeds.store, made(seeds, name)) for name in ("seed 4", "dying")]
    for _, _, epoch, site, relation, *interval, _, _ in found:
        if site == "gradient":
            expected = t_interval([of_run[relation][int(epoch)] for of_run in logged])
            assert expected is not None
            assert list(map(float, interval)) == pytest.approx(list(expected[:3]))
    assert {relation for _, _, _, site, relation, *_ in found if site == "gradient"} >= SERIES - {"noise_scale"}


def test_a_parent_means_its_children_and_an_earlier_analysis_is_none_of_them(runs: Trained) -> None:
    parent = client().create_run("0", run_name="parent").info.run_id
    children = [runs.ids["fast"], runs.ids["seed 4"]]
    for child in children:
        client().set_tag(child, "mlflow.parentRunId", parent)
    earlier = directed(runs.store, run_id=runs.ids["fast"], n=10)
    client().set_tag(earlier, "mlflow.parentRunId", parent)
    comparison = directed(runs.store, run_id=parent, n=10)
    assert runs.store.tags(comparison)["nfa.source_run_ids"] == ",".join(children)
    assert {path.name for path in runs.store.artifact(comparison).iterdir() if path.is_dir()} == set(children)


def test_values_of_several_are_those_of_each_alone(runs: Trained) -> None:
    comparison = directed(runs.store, run_id=f"{runs.ids['fast']},{runs.ids['seed 4']}", n=12)
    together = directions_of(runs.store, made(Finished(runs.store, comparison), "seed 4"))
    runs.store.change("DELETE FROM tags WHERE key = 'nfa.analysis_digest'")  # so that it is computed again
    alone = directed(runs.store, run_id=runs.ids["seed 4"], n=12)
    assert directions_of(runs.store, alone) == together
