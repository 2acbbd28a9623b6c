"""Simulated recordings: what they are made of has the spectrum, support and power that is said, from the seed alone."""

import multiprocessing
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nfa.registry.families.eeg import data as eeg
from nfa.registry.families.eeg import simulated
from nfa.registry.families.eeg.simulated import RATE, Simulation

SMALL = Simulation(subjects=3, stimuli=2, seconds=20, channels=5)
LONG = Simulation()


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch) -> Path:
    place = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("NFA_CACHE", str(place))
    return place


def shares(signal: np.ndarray, low: float, high: float) -> float:
    """Share of the power, mean left out, between two frequencies in Hz."""
    power = (np.abs(np.fft.rfft(signal - signal.mean(axis=0), axis=0)) ** 2).sum(axis=1)
    frequencies = np.fft.rfftfreq(len(signal), 1 / RATE)
    return float(power[(frequencies >= low) & (frequencies <= high)].sum() / power.sum())


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


# ---- envelopes


@pytest.mark.parametrize("stimulus", range(3))
def test_envelopes_are_modulated_within_2_to_8_hz_not_negative_and_skewed(stimulus):
    envelope = simulated.envelope(LONG, stimulus)
    assert envelope.shape == (LONG.seconds * RATE, 1)
    assert shares(envelope, 2, 8) > 0.85
    assert shares(envelope, 3, 6) > 0.5
    assert envelope.min() >= 0
    standard = (envelope - envelope.mean()) / envelope.std()
    assert (standard**3).mean() > 1
    assert envelope.mean() == pytest.approx(1)


def test_stimuli_are_independent():
    one, other = (simulated.envelope(LONG, stimulus)[:, 0] for stimulus in range(2))
    assert abs(np.corrcoef(one, other)[0, 1]) < 0.05


# ---- responses


@pytest.mark.parametrize("subject", range(4))
def test_responses_last_from_100_to_400_ms(subject):
    functions = simulated.responses(LONG, subject)
    seconds = np.arange(len(functions)) / RATE
    assert functions.shape[1] == LONG.channels
    assert seconds[-1] <= 0.4
    assert not functions[seconds < 0.1].any()
    within = functions[(seconds > 0.11) & (seconds < 0.39)]
    assert (within != 0).all()
    assert np.square(functions[(seconds > 0.13) & (seconds < 0.36)]).sum() > 0.9 * np.square(functions).sum()


def test_subjects_are_alike_but_not_equal():
    functions = np.array([simulated.responses(LONG, subject).ravel() for subject in range(8)])
    alike = np.corrcoef(functions)[~np.eye(8, dtype=bool)]
    assert alike.mean() > 0.5
    assert alike.max() < 0.99


def test_the_response_is_the_convolution_with_the_centred_envelope():
    envelope, functions = simulated.envelope(SMALL, 0), simulated.responses(SMALL, 1)
    found = simulated.response(envelope, functions)
    for channel in range(SMALL.channels):
        expected = np.convolve((envelope - envelope.mean())[:, 0], functions[:, channel])[: len(envelope)]
        np.testing.assert_allclose(found[:, channel], expected, atol=1e-12)


# ---- noise


def test_noise_falls_as_1_over_f():
    noise = simulated.noise(LONG, 0, 0)
    per_octave = [shares(noise, low, 2 * low) for low in (0.5, 1, 2, 4, 8, 16)]
    np.testing.assert_allclose(per_octave, 1 / 6, rtol=0.1)  # every octave has as much
    assert shares(noise, 0, 0.49) < 1e-12


def test_neighbouring_channels_share_noise_and_distant_ones_do_not():
    alike = np.corrcoef(simulated.noise(LONG, 0, 0).T)
    assert alike[0, 1] > 0.5
    assert abs(alike[0, 8]) < 0.1


@pytest.mark.parametrize("snr_db", [-30.0, -10.0, 0.0, 12.5])
@pytest.mark.parametrize("settings", [SMALL, LONG], ids=["small", "long"])
def test_the_measured_snr_is_the_asked_one(settings, snr_db):
    made = simulated.recording(replace(settings, snr_db=snr_db), 1, 1)
    response, noise = (signal.var(axis=0).mean() for signal in (made.response, made.noise))
    assert 10 * np.log10(response / noise) == pytest.approx(snr_db, abs=0.1)


# ---- seeds


def test_data_are_bitwise_the_same_again_and_others_with_another_seed(tmp_path):
    for place, seed in (("one", 0), ("two", 0), ("three", 1)):
        simulated.simulate(replace(SMALL, seed=seed), tmp_path / place)
    one, two, three = (content(tmp_path / place) for place in ("one", "two", "three"))
    assert one == two
    assert one.keys() == three.keys()
    assert all(one[name] != three[name] for name in one)


def test_more_subjects_and_stimuli_leave_the_others_data_as_they_are(tmp_path):
    simulated.simulate(SMALL, tmp_path / "few")
    simulated.simulate(replace(SMALL, subjects=4, stimuli=3), tmp_path / "many")
    few, many = content(tmp_path / "few"), content(tmp_path / "many")
    assert len(many) == 2 * len(few)
    assert few.items() <= many.items()


# ---- files


def test_the_reader_reads_what_is_written(tmp_path):
    simulated.simulate(SMALL, tmp_path)
    data = eeg.load(tmp_path, window=64)
    assert (data.channels, data.subjects) == (5, ("sub-001", "sub-002", "sub-003"))
    assert [len(data.of(split)) for split in eeg.SPLITS] == [6, 6, 6]
    assert {part.samples for part in data.of("train")} == {768}
    assert {part.samples for part in data.of("val") + data.of("test")} == {256}
    assert np.load(data.parts[0].eeg, mmap_mode="r").dtype == np.float32
    parts = [part for part in data.parts if part.recording == "sub-002_-_simulated-02"]
    assert sum(part.samples for part in parts) == SMALL.seconds * RATE


@pytest.mark.parametrize(("split", "counts"), [("recordings", [3, 3, 3]), ("subjects", [3, 3, 3])])
def test_whole_recordings_and_subjects_can_be_held_out_and_hold_the_same(tmp_path, split, counts):
    settings = replace(SMALL, stimuli=3)
    for how in ("time", split):
        simulated.simulate(replace(settings, split=how), tmp_path / how)
    data = eeg.load(tmp_path / split, window=64, split=split)
    assert [len(data.of(each)) for each in eeg.SPLITS] == counts
    assert dict(data.held_out("test")) == {split: 3}
    for part in data.parts:
        divided = [np.load(tmp_path / "time" / f"{each}_-_{part.recording}_-_eeg.npy") for each in eeg.SPLITS]
        assert np.array_equal(np.concatenate(divided), np.load(part.eeg))


def test_parts_are_contiguous_and_everybody_hears_the_same(tmp_path):
    simulated.simulate(SMALL, tmp_path)
    made = simulated.recording(SMALL, 2, 1)
    for kind, expected in (("eeg", made.response + made.noise), ("envelope", made.envelope)):
        parts = [np.load(tmp_path / f"{split}_-_sub-003_-_simulated-02_-_{kind}.npy") for split in eeg.SPLITS]
        assert np.array_equal(np.concatenate(parts), expected.astype(np.float32))
    for split in eeg.SPLITS:
        heard = {path.read_bytes() for path in tmp_path.glob(f"{split}_-_*_-_simulated-02_-_envelope.npy")}
        assert len(heard) == 1


@pytest.mark.parametrize("channels", [1, 2, 7])
@pytest.mark.parametrize("seconds", [1, 3])
def test_the_smallest_sets_are_finite(tmp_path, channels, seconds):
    simulated.simulate(Simulation(1, 1, seconds, channels), tmp_path)
    assert all(np.isfinite(np.load(path)).all() for path in tmp_path.iterdir())
    assert eeg.load(tmp_path, window=12).channels == channels


@pytest.mark.parametrize("name", ["subjects", "stimuli", "seconds", "channels"])
def test_nothing_to_simulate_is_an_error(name):
    with pytest.raises(ValueError, match=f"{name} is at least 1, not 0"):
        Simulation(**{name: 0})


# ---- the cache


def test_a_set_is_made_once_for_each_of_its_settings(own_cache, monkeypatch):
    folder = simulated.simulated_folder(SMALL)
    assert folder.parent == own_cache / "simulated-eeg"
    other = simulated.simulated_folder(replace(SMALL, snr_db=-9.0))
    assert sorted(folder.parent.iterdir()) == sorted([folder, other])
    monkeypatch.setattr(simulated, "simulate", None)
    assert simulated.simulated_folder(SMALL) == folder


def test_a_set_that_was_interrupted_is_not_there(own_cache, monkeypatch):
    write, written = simulated.write_array, []

    def failing(path: Path, array: np.ndarray) -> None:
        written.append(path)
        if len(written) == 5:
            raise OSError(28, "No space left on device")
        write(path, array)

    monkeypatch.setattr(simulated, "write_array", failing)
    with pytest.raises(OSError, match="No space left"):
        simulated.simulated_folder(SMALL)
    assert not (own_cache / "simulated-eeg").exists()
    assert len(content(simulated.simulated_folder(SMALL))) == 36


def made(barrier, results) -> None:
    barrier.wait()
    results.put(str(simulated.simulated_folder(SMALL)))


def test_two_processes_at_once_make_one_set(own_cache, tmp_path):
    context = multiprocessing.get_context("fork")
    barrier, results = context.Barrier(2), context.Queue()
    children = [context.Process(target=made, args=(barrier, results)) for _ in range(2)]
    for child in children:
        child.start()
    folders = {results.get(timeout=60) for _ in children}
    for child in children:
        child.join()
        assert child.exitcode == 0
    assert [Path(folder) for folder in folders] == list((own_cache / "simulated-eeg").iterdir())
    simulated.simulate(SMALL, tmp_path)
    assert content(tmp_path) == content(Path(folders.pop()))
    assert os.environ["NFA_CACHE"] == str(own_cache)
