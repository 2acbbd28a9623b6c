"""Several seeds of trainings on EEG, of language models and of workloads of one's own."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nfa.bookkeeping import is_bookkeeping
from nfa.registry import tracking
from nfa.registry.tracking.sources import find_sources
from tests.support.eeg_trainings import decode, tiny_eeg
from tests.support.fine_tunings import Place
from tests.support.stores import Family, Store, family_in, same_weights, used
from tests.support.workload_files import imports, train_lab, write_lab

DRAWN = """

def drawn():
    return supervised(lambda: network(6, "relu"), TensorDataset(torch.randn(48, 6), torch.randint(3, (48,))))
"""


def assert_same(family: Family, name: str, alone: Store) -> None:
    """A child has bitwise the weights and the metrics of the only training of another store."""
    child, (single,) = family.children[name], alone.runs()
    assert same_weights(family.store.checkpoints(child), alone.checkpoints(single))
    ours, theirs = ([row for row in one.metrics(run_id) if not is_bookkeeping(row[0])]
                    for one, run_id in ((family.store, child), (alone, single)))  # fmt: skip
    assert ours == theirs


def assert_mean(family: Family, key: str) -> None:
    """The last value of a metric of the parent is the mean over its children, and stands in results.json."""
    values = [[value for name, _, value in family.store.metrics(child) if name == key][-1]
              for child in family.children.values()]  # fmt: skip
    found = [value for name, _, value in family.store.metrics(family.parent) if name == key][-1]
    assert found == pytest.approx(sum(values) / len(values), rel=1e-12)
    assert family.store.json(family.parent, "results.json")["seeds"] == [1, 2, 3][: len(values)]


def tell_of_reading() -> None:
    """Print a line whenever data are read."""
    from nfa.registry.families.eeg.training import DecoderTraining

    read = DecoderTraining.read

    def told(*args: Any) -> Any:
        print("data are read")
        return read(*args)

    DecoderTraining.read = told  # type: ignore[method-assign]


def test_seeds_of_a_training_on_eeg(empty_store: Store, tmp_path: Path) -> None:
    store, alone = (empty_store.copy(tmp_path / name) for name in ("several", "alone"))
    ended = decode(store, tiny_eeg(seeds="1-3"), pictures=True, before=tell_of_reading)
    assert ended.code == 0, ended.output
    assert ended.output.count("data are read") == 1
    assert decode(alone, tiny_eeg(seed=2)).code == 0
    family = family_in(store)
    assert_same(family, "seed 2", alone)
    assert_mean(family, "val/pearson")
    assert store.artifact(family.parent, "plots/training.png").stat().st_size > 5000
    last = store.json(family.parent, "results.json")["last"]["test/pearson"]
    assert last["mean_lo"] < last["mean"] < last["mean_hi"]
    assert last["mean_n"] == 3


def test_seeds_of_a_fine_tuning(empty_store: Store, tmp_path: Path) -> None:
    place = Place.made(tmp_path / "place")
    store, alone = (empty_store.copy(tmp_path / name) for name in ("several", "alone"))
    ended = place.launch(store, place.words(seeds="1-2"), pictures=True)
    assert ended.code == 0, ended.output
    assert place.launch(alone, place.words(seed=2)).code == 0
    family = family_in(store)
    assert_same(family, "seed 2", alone)
    assert_mean(family, "eval/loss")
    assert store.artifact(family.parent, "plots/loss_curves.png").stat().st_size > 5000


@pytest.fixture
def labs(empty_store: Store, tmp_path: Path) -> Iterator[tuple[Store, Store]]:
    with imports():
        yield (empty_store.copy(tmp_path / "several"), empty_store.copy(tmp_path / "alone"))


def test_seeds_of_a_workload_whose_data_follow_from_the_seed(
    labs: tuple[Store, Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    for store, options in zip(labs, ({"seeds": "1-2", "optimizer": "all"}, {"seed": 2}), strict=True):
        with used(store, monkeypatch), imports():
            write_lab(store.folder, DRAWN)
            train_lab(store, workload="my_lab:drawn", **options)
    several, alone = labs
    parents = {run_id: several.tags(run_id).get("mlflow.parentRunId") for run_id in several.runs()}
    (top,) = (run_id for run_id, parent in parents.items() if parent is None)
    groups = {several.tags(run_id)["nfa.variant"]: run_id for run_id, parent in parents.items() if parent == top}
    below = {several.tags(run_id)["nfa.variant"]: run_id for run_id, of in parents.items() if of == groups["sgd"]}
    family = Family(several, groups["sgd"], below)
    assert_same(family, "seed 2", alone)
    assert_mean(family, "val/loss")
    digests = {several.json(run_id, "config.json")["data"]["digest"] for run_id in below.values()}
    assert len(digests) == 2, "every seed draws its own data"
    with used(several, monkeypatch):
        assert len(find_sources(top)) == 6
        assert tracking.find_run("latest").info.run_id == top
