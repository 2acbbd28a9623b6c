"""Which recordings are held out: whole ones, none of whose speech is trained on, of as nearly the shares as can be."""

from itertools import product

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from nfa.errors import Refusal
from nfa.registry.families.eeg.splits import assigned

SHARES = {"val": 0.1, "test": 0.1}


def study(subjects: int, stimuli: int) -> list[tuple[str, str]]:
    return [(f"sub-{s:03d}", f"story-{k:02d}") for s, k in product(range(subjects), range(stimuli))]


def of(found: dict[tuple[str, str], str], split: str, place: int) -> set[str]:
    return {each[place] for each, into in found.items() if into == split}


@given(
    recordings=st.sets(st.tuples(st.integers(1, 5), st.integers(1, 6)), min_size=1),
    seed=st.integers(0, 9),
    share=st.sampled_from([0.05, 0.1, 0.3]),
)
@settings(max_examples=40, suppress_health_check=[HealthCheck.filter_too_much])
def test_no_speech_that_is_held_out_is_trained_on_and_every_subject_is(recordings, seed, share):
    asked = [(f"sub-{s}", f"story-{k}") for s, k in recordings]
    try:
        found = assigned(asked, "recordings", {"val": share, "test": share}, seed)
    except Refusal:
        assume(False)
    assert list(found) == asked
    assert {*found.values()} == {"train", "val", "test"}
    assert of(found, "train", 0) == {subject for subject, _ in asked}
    assert not of(found, "train", 1) & (of(found, "val", 1) | of(found, "test", 1))
    assert assigned(asked[::-1], "recordings", {"val": share, "test": share}, seed) == found


@given(recordings=st.sets(st.tuples(st.integers(1, 9), st.integers(1, 3)), min_size=1), seed=st.integers(0, 9))
@settings(max_examples=30)
def test_held_out_subjects_are_nowhere_else(recordings, seed):
    asked = [(f"sub-{s}", f"story-{k}") for s, k in recordings]
    subjects = {subject for subject, _ in asked}
    if len(subjects) < 3:
        with pytest.raises(Refusal, match="at least three subjects"):
            assigned(asked, "subjects", SHARES, seed)
        return
    found = assigned(asked, "subjects", SHARES, seed)
    parts = [of(found, split, 0) for split in ("train", "val", "test")]
    assert all(parts)
    assert sum(map(len, parts)) == len(subjects)


@pytest.mark.parametrize(
    ("split", "size", "counts"),
    [
        ("recordings", (6, 10), (48, 6, 6)),
        ("recordings", (2, 3), (2, 2, 2)),
        ("recordings", (6, 2), (6, 3, 3)),
        ("recordings", (1, 3), (1, 1, 1)),
        ("subjects", (10, 3), (24, 3, 3)),
        ("subjects", (3, 2), (2, 2, 2)),
        ("subjects", (40, 1), (32, 4, 4)),
    ],
)
def test_shares_are_kept_as_nearly_as_whole_stimuli_and_subjects_allow(split, size, counts):
    found = assigned(study(*size), split, SHARES, 1717)
    assert tuple(list(found.values()).count(name) for name in ("train", "val", "test")) == counts


def test_val_and_test_share_a_stimulus_only_where_there_are_two():
    found = assigned(study(4, 2), "recordings", SHARES, 0)
    assert of(found, "val", 1) == of(found, "test", 1)
    assert not of(found, "val", 0) & of(found, "test", 0)
    found = assigned(study(4, 3), "recordings", SHARES, 0)
    assert not of(found, "val", 1) & of(found, "test", 1)


@pytest.mark.parametrize("size", [(1, 1), (1, 2), (5, 1)])
def test_too_few_recordings_to_hold_some_out_are_refused(size):
    with pytest.raises(Refusal, match=rf"with {size[0] * size[1]} recordings of {size[0]} subjects and {size[1]} stim"):
        assigned(study(*size), "recordings", SHARES, 0)


def test_others_are_held_out_with_another_seed_and_the_same_when_more_are_recorded():
    tests = {tuple(sorted(of(assigned(study(20, 1), "subjects", SHARES, seed), "test", 0))) for seed in range(8)}
    assert len(tests) > 5
    few, more = (assigned(study(n, 4), "recordings", SHARES, 3) for n in (3, 5))
    assert few.items() <= more.items()
