"""Which examples a run uses: sizes, disjointness, shares of classes, changed labels; the seed alone decides."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nfa.registry.datasets import image_files, images, splits
from nfa.workloads.stratified import stratified_order

CLASSES = 5
labels_of = st.lists(st.integers(0, CLASSES - 1), min_size=5, max_size=120).map(lambda labels: np.array(labels))


@pytest.fixture(scope="module")
def digits() -> images.ImageData:
    return images.load("digits", image_files.locate("digits"))


@pytest.fixture(scope="module")
def decided(digits) -> dict[str, list[int]]:
    return splits.decide(digits.train_labels, digits.test_labels, seed=1717, label_noise=0.0, classes=10)


def test_digits_are_split_into_1149_288_and_360(digits, decided):
    assert {name: len(ids) for name, ids in decided.items()} == {"train": 1149, "val": 288, "test": 360, "probe": 1149}
    assert sorted(decided["train"] + decided["val"]) == list(range(len(digits.train_labels)))


def test_svhns_split_is_that_of_the_reference_experiment():
    train, val = splits.draw(np.zeros(73_257, dtype=np.int64), 1717)
    assert (len(train), len(val)) == (58_605, 14_652)


def test_test_and_training_images_are_other_images(digits):
    assert len(digits.train_images) == 1437
    train = {image.tobytes() for image in digits.train_images}
    assert not any(image.tobytes() in train for image in digits.test_images)


def test_ids_are_in_published_order_and_the_probe_is_the_training_examples(decided):
    for name in ("train", "val", "test"):
        assert decided[name] == sorted(decided[name])
    assert sorted(decided["probe"]) == decided["train"]
    assert decided["probe"] != decided["train"]


@given(labels_of, st.integers(0, 99))
@settings(max_examples=25)
def test_train_and_validation_are_disjoint_and_complete(labels, seed):
    train, val = splits.draw(labels, seed)
    assert len(train) == len(labels) * 4 // 5
    assert sorted(train + val) == list(range(len(labels)))


def test_every_first_part_of_the_digits_probe_holds_the_classes_in_their_shares(digits, decided):
    """Within 2 of proportional."""
    assert worst_excess(digits.train_labels[decided["probe"]]) < 2


@given(labels_of, st.integers(0, 99))
@settings(max_examples=25)
def test_every_first_part_of_any_probe_holds_the_classes_in_their_shares(labels, seed):
    """Each class is within 1 of its place on the line, so within 1 − share + share·(classes − 1) of proportional."""
    order = stratified_order(list(range(len(labels))), labels, seed)
    share = np.bincount(labels).max() / len(labels)
    assert worst_excess(labels[order]) <= 1 - share + share * (CLASSES - 1) + 1e-9


def worst_excess(labels: np.ndarray) -> float:
    """Largest difference, over all first parts and classes, between a class's count and its proportional count."""
    onehot = labels[:, None] == np.unique(labels)
    counts, n = onehot.cumsum(axis=0), np.arange(1, len(labels) + 1)[:, None]
    return float(np.abs(counts - n * onehot.mean(axis=0)).max())


def test_an_unstratified_order_would_not_pass(digits, decided):
    assert worst_excess(digits.train_labels[decided["train"]]) > 2


@given(labels_of, st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.99]), st.integers(0, 99))
@settings(max_examples=25)
def test_label_noise_changes_its_share_of_the_training_labels_each_to_another_class(labels, share, seed):
    ids = list(range(0, len(labels), 2))
    changed = splits.change_labels(labels, ids, share, CLASSES, seed)
    assert len(changed) == int(share * len(ids))
    assert set(changed) <= set(ids)
    assert all(label != labels[example] and 0 <= label < CLASSES for example, label in changed.items())


def test_new_labels_are_uniform_over_the_other_classes():
    labels = np.zeros(20_000, dtype=np.int64)
    changed = splits.change_labels(labels, list(range(20_000)), 0.8, CLASSES, 0)
    counts = np.bincount(list(changed.values()), minlength=CLASSES)
    assert counts[0] == 0
    assert np.abs(counts[1:] / 16_000 - 0.25).max() < 0.02


def test_noise_is_stored_with_the_ids_and_leaves_the_published_labels_alone(digits, decided):
    kept = digits.train_labels.copy()
    noisy = splits.decide(digits.train_labels, digits.test_labels, seed=1717, label_noise=0.2, classes=10)
    assert np.array_equal(digits.train_labels, kept)
    assert len(noisy["noisy"]) == len(noisy["noisy_labels"]) == int(0.2 * 1149)
    assert set(noisy["noisy"]) <= set(noisy["train"])
    assert {name: noisy[name] for name in ("train", "val", "test")} == {
        name: decided[name] for name in ("train", "val", "test")
    }
    changed = digits.train_labels.copy()
    changed[noisy["noisy"]] = noisy["noisy_labels"]
    assert worst_excess(changed[noisy["probe"]]) < 2
    assert "noisy" not in decided


def test_the_seed_alone_decides(digits):
    def decide(seed: int) -> dict[str, list[int]]:
        return splits.decide(digits.train_labels, digits.test_labels, seed=seed, label_noise=0.1, classes=10)

    first, state = decide(1), torch.get_rng_state()
    torch.rand(3), np.random.rand()
    before = torch.get_rng_state()
    assert decide(1) == first
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(before, state)
    other = decide(2)
    assert all(other[name] != first[name] for name in ("train", "val", "probe", "noisy"))


def test_ids_are_plain_numbers_that_json_can_hold(decided):
    assert all(type(example) is int for ids in decided.values() for example in ids)
