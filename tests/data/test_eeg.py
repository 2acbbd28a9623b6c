"""Windows of recordings against whole arrays: ids, normalisation, draws."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from nfa.registry.families.eeg import data as eeg
from nfa.registry.families.eeg import recording_files as eeg_facts
from nfa.seeding import generator
from tests.support.prepared_recordings import in_order, normalised, save, small, stem, write

WINDOW = 32


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch) -> None:
    monkeypatch.setenv("NFA_CACHE", str(tmp_path_factory.mktemp("cache")))


def whole(written: dict[str, tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """All samples of a data set, normalised, one part after the other: an id is an index into them."""
    pairs = [normalised(written, name) for name in in_order(written)]
    return np.concatenate([pair[0] for pair in pairs]), np.concatenate([pair[1] for pair in pairs])


def assert_windows(data: eeg.EEGData, written: dict, ids: list[int], window: int) -> None:
    found, (signal, envelope) = data.windows(ids, window), whole(written)
    assert found.eeg.dtype == found.envelope.dtype == torch.float32
    assert found.subjects.dtype == torch.int64
    for index, start in enumerate(ids):
        np.testing.assert_allclose(found.eeg[index], signal[start : start + window], rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(found.envelope[index], envelope[start : start + window], rtol=1e-6, atol=1e-6)


@given(
    channels=st.integers(1, 5),
    base=st.integers(1, 60),
    window=st.integers(1, 20),
    dtype=st.sampled_from(["float16", "float32", "float64", ">f4"]),
    order=st.sampled_from(["C", "F"]),
    seed=st.integers(0, 99),
)
@hypothesis_settings(max_examples=25)
def test_every_window_is_that_of_the_whole_arrays(tmp_path_factory, channels, base, window, dtype, order, seed):
    random = np.random.default_rng(seed)
    keys = [(split, subject, 1) for split in eeg.SPLITS for subject in (1, 2)]
    lengths = {key: max(16, window) + int(random.integers(base)) for key in keys}
    folder = tmp_path_factory.mktemp("set")
    written = write(folder, lengths, channels, dtype=dtype, order=order, seed=seed)
    data = eeg.load(folder, window=window)
    assert data.channels == channels
    for split in eeg.SPLITS:
        ids = data.ids(split, window)
        assert len(ids) == sum(length // window for key, length in lengths.items() if key[0] == split)
        assert_windows(data, written, ids, window)
    drawn = data.draw(window, 3, generator(seed, "order/1"))
    assert_windows(data, written, drawn.tolist(), window)


def test_parts_stand_one_after_the_other_train_first_each_by_name(tmp_path):
    written = write(tmp_path, small())
    data = eeg.load(tmp_path, window=WINDOW, name="stories")
    assert (data.name, data.folder, data.subjects) == ("stories", tmp_path, ("sub-001", "sub-002"))
    assert [f"{part.split}_-_{part.recording}" for part in data.parts] == in_order(written)
    firsts = np.cumsum([0] + [part.samples for part in data.parts])[:-1]
    assert [part.first for part in data.parts] == firsts.tolist()
    assert data.of("train") + data.of("val") + data.of("test") == data.parts
    with pytest.raises(ValueError, match="no split 'dev'"):
        data.of("dev")


def test_a_data_set_without_a_name_is_called_as_its_folder(tmp_path):
    write(tmp_path / "stories", small())
    assert eeg.load(tmp_path / "stories", window=WINDOW).name == "stories"


def test_windows_of_a_split_do_not_overlap_and_leave_less_than_one_over(tmp_path):
    write(tmp_path, small())
    data = eeg.load(tmp_path, window=WINDOW)
    for split in eeg.SPLITS:
        ids = data.ids(split, WINDOW)
        for part in data.of(split):
            own = [start - part.first for start in ids if part.first <= start < part.first + part.samples]
            assert own == list(range(0, part.samples - WINDOW + 1, WINDOW))
            assert part.samples - (own[-1] + WINDOW) < WINDOW
    assert len({start for split in eeg.SPLITS for start in data.ids(split, WINDOW)}) == sum(
        len(data.ids(split, WINDOW)) for split in eeg.SPLITS
    )


def test_windows_stand_in_the_order_of_their_ids_with_their_subjects_repeated_ones_too(tmp_path):
    written = write(tmp_path, small(subjects=3))
    data = eeg.load(tmp_path, window=WINDOW)
    ids = torch.cat([data.draw(WINDOW, 2, generator(0, "ids")), torch.tensor(data.ids("test", WINDOW)[:3])])
    ids = torch.cat([ids, ids[:2]])[torch.randperm(len(ids) + 2, generator=generator(0, "order"))]
    assert_windows(data, written, ids.tolist(), WINDOW)
    named = [data.subjects[index] for index in data.windows(ids, WINDOW).subjects]
    assert named == [part.subject for part in data.part_of(ids)]


def test_the_part_of_an_id_holds_it(tmp_path):
    write(tmp_path, small())
    data = eeg.load(tmp_path, window=WINDOW)
    for part in data.parts:
        assert data.part_of([part.first, part.first + part.samples - 1]) == [part, part]
    end = data.parts[-1].first + data.parts[-1].samples
    for outside in (-1, end):
        with pytest.raises(ValueError, match=f"within 0…{end - 1}"):
            data.part_of([0, outside])


def test_no_ids_are_no_windows(tmp_path):
    write(tmp_path, small())
    found = eeg.load(tmp_path, window=WINDOW).windows([], WINDOW)
    assert [tuple(tensor.shape) for tensor in found] == [(0, WINDOW, 3), (0, WINDOW, 1), (0,)]


def test_a_window_that_leaves_its_part_is_an_error_and_not_the_next_parts_samples(tmp_path):
    write(tmp_path, small())
    data = eeg.load(tmp_path, window=WINDOW)
    part = data.parts[0]
    last = part.first + part.samples - WINDOW
    assert len(data.windows([last], WINDOW).eeg) == 1
    with pytest.raises(ValueError, match=r"does not lie within train_-_sub-001_-_story-1_-_eeg\.npy"):
        data.windows([0, last + 1], WINDOW)
    with pytest.raises(ValueError, match="a window of 0 samples"):
        data.windows([0], 0)


def test_whole_parts_are_those_of_the_whole_arrays_in_float64(tmp_path):
    written = write(tmp_path, small())
    data = eeg.load(tmp_path, window=WINDOW)
    for part in data.parts:
        found, expected = data.arrays(part), normalised(written, f"{part.split}_-_{part.recording}")
        for one, other in zip(found, expected, strict=True):
            assert one.dtype == np.float64
            np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-12)


# ---- normalisation


def test_train_parts_have_mean_0_and_deviation_1_in_every_channel_and_others_do_not_move_that(tmp_path):
    written = write(tmp_path, small())
    data = eeg.load(tmp_path, window=WINDOW)
    for part in data.of("train"):
        for signal in data.arrays(part):
            np.testing.assert_allclose(signal.mean(axis=0), 0, atol=1e-12)
            np.testing.assert_allclose(signal.std(axis=0), 1, rtol=1e-12)
    before = data.windows(data.ids("train", WINDOW), WINDOW)
    signal, envelope = written[stem("val")]
    save(tmp_path, stem("val"), 1000 + 5 * signal, envelope)
    after = eeg.load(tmp_path, window=WINDOW).windows(data.ids("train", WINDOW), WINDOW)
    assert torch.equal(before.eeg, after.eeg)


def test_normalising_what_is_normalised_changes_nothing(tmp_path):
    written = write(tmp_path / "raw", small(), dtype="float64")
    for name in written:
        save(tmp_path / "normalised", name, *normalised(written, name))
    raw, again = (eeg.load(tmp_path / place, window=WINDOW) for place in ("raw", "normalised"))
    ids = raw.ids("train", WINDOW) + raw.ids("test", WINDOW)
    for one, other in zip(raw.windows(ids, WINDOW), again.windows(ids, WINDOW), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)


def test_statistics_are_exact_over_many_pieces_and_far_from_zero(tmp_path, monkeypatch):
    monkeypatch.setattr(eeg_facts, "CHUNK_BYTES", 8 * 4 * 13)
    signal = 1e6 + np.random.default_rng(0).standard_normal((1001, 4))
    np.save(tmp_path / "a.npy", signal)
    facts = eeg_facts.examine(tmp_path / "a.npy")
    np.testing.assert_allclose(facts.mean, signal.mean(axis=0), rtol=1e-14)
    np.testing.assert_allclose(facts.std, signal.std(axis=0), rtol=1e-9)


# ---- draws


def test_draws_are_decided_by_the_generator_and_each_recording_has_its_share(tmp_path):
    write(tmp_path, small())
    data = eeg.load(tmp_path, window=WINDOW)
    first, again, other = (data.draw(WINDOW, 5, generator(seed, "order/1")) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert first.dtype == torch.int64
    assert data.part_of(first) == [part for part in data.of("train") for _ in range(5)]


def test_windows_start_everywhere_with_equal_probability_and_stay_within_their_part(tmp_path):
    lengths = {(split, 1, 1): WINDOW + 9 for split in eeg.SPLITS} | {("train", 2, 1): WINDOW}
    write(tmp_path, lengths)
    data = eeg.load(tmp_path, window=WINDOW)
    drawn = data.draw(WINDOW, 20_000, generator(0, "order/1"))
    counts = torch.bincount(drawn[:20_000], minlength=10)
    assert len(counts) == 10  # starts 0…9
    assert (counts - 2000).abs().max() < 5 * np.sqrt(2000)
    assert drawn[20_000:].unique().tolist() == [WINDOW + 9]  # a part that is one window long


def test_a_longer_window_than_was_asked_for_at_first_is_an_error_of_its_own(tmp_path):
    write(tmp_path, small())
    with pytest.raises(ValueError, match="309 samples, fewer than a window of 310"):
        eeg.load(tmp_path, window=WINDOW).draw(310, 1, generator(0, "order/1"))


# ---- the digest


def test_the_digest_is_that_of_names_and_contents_not_of_the_place(tmp_path):
    digests = []
    for place, seed in (("one", 0), ("two", 0), ("three", 1)):
        write(tmp_path / place, small(), seed=seed)
        digests.append(eeg.load(tmp_path / place, window=WINDOW).digest())
    assert digests[0] == digests[1] != digests[2]
    for path in (tmp_path / "two").iterdir():
        path.rename(path.with_name(path.name.replace("story-2", "story-3")))
    assert eeg.load(tmp_path / "two", window=WINDOW).digest() != digests[0]
