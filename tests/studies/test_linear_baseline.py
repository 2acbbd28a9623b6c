"""The linear decoder beside every model: what it fits, chooses, scores and leaves out."""

from dataclasses import dataclass, field

import numpy as np
import pytest

from nfa import reference
from nfa.registry.families.eeg import data as split_data
from nfa.registry.families.eeg.layout import SPLITS
from nfa.registry.families.eeg.linear_baseline import PENALTIES, Baseline, linear_baseline
from nfa.registry.families.eeg.prepared_names import prepared_name
from tests.support.prepared_recordings import prepared_in_memory

WINDOW, LAGS = 100, 5


@dataclass(frozen=True)
class Part:
    split: str
    subject: str
    stimulus: str
    piece: str = ""

    @property
    def recording(self):
        return f"{self.subject}_-_{self.stimulus}"


@dataclass
class Data:
    """Parts in memory; `asked` is what was read, in order."""

    content: dict[Part, tuple[np.ndarray, np.ndarray]]
    channels: int = 3
    asked: list[Part] = field(default_factory=list)

    def of(self, split):
        return tuple(part for part in self.content if part.split == split)

    def arrays(self, part):
        self.asked.append(part)
        return self.content[part]


def heard(seed, samples, noise=1.0, channels=3):
    """EEG that answers to an envelope two samples later, and that envelope."""
    random = np.random.default_rng(seed)
    envelope = random.standard_normal(samples)
    answer = np.concatenate([np.zeros(2), envelope[:-2]])[:, None] * np.arange(1, channels + 1)
    return answer + noise * random.standard_normal((samples, channels)), envelope[:, None]


def data(subjects=("s1", "s2"), stimuli=("a", "b"), noise=1.0, **lengths):
    lengths = {"train": 800, "val": 250, "test": 350, **lengths}
    keys = [Part(split, subject, stimulus) for split in SPLITS for subject in subjects for stimulus in stimuli]
    return Data({part: heard(index, lengths[part.split], noise) for index, part in enumerate(keys)})


def expected_r(weights, part, data):
    """Window by window, with the slow version."""
    eeg, envelope = data.content[part]
    values = []
    for first in range(0, len(eeg) - WINDOW + 1, WINDOW):
        predicted = reference.lagged_prediction(weights, eeg[first : first + WINDOW])
        values.append(np.corrcoef(predicted, envelope[first : first + WINDOW, 0])[0, 1])
    return values


def test_it_is_what_the_slow_version_fits_chooses_and_scores():
    made = data(noise=4.0)
    found = linear_baseline(made, window=WINDOW, lags=LAGS)
    for subject in ("s1", "s2"):
        by_split = {split: [part for part in made.of(split) if part.subject == subject] for split in SPLITS}
        train = [(made.content[part][0], made.content[part][1][:, 0]) for part in by_split["train"]]
        weights = [reference.lagged_ridge(train, LAGS, penalty) for penalty in PENALTIES]
        means = [np.mean([r for part in by_split["val"] for r in expected_r(one, part, made)]) for one in weights]
        best = int(np.argmax(means))
        assert found.penalties[subject] == PENALTIES[best]
        for split, values in (("val", found.recordings["val"]), ("test", found.recordings["test"])):
            for part in by_split[split]:
                assert values[part.recording] == pytest.approx(np.mean(expected_r(weights[best], part, made)), rel=1e-8)
    assert set(found.recordings["test"]) == set(found.recordings["val"]) == {part.recording for part in made.content}
    assert found.pearson_of("test") == pytest.approx(np.mean(list(found.recordings["test"].values())), rel=1e-12)
    assert found.undefined == 0


def test_clear_answer_is_decoded_and_noise_is_not():
    clear = linear_baseline(data(noise=0.1), window=WINDOW, lags=LAGS).pearson_of("test")
    assert clear > 0.98  # what of a window is answered after its end is lost
    made = data()
    noise = Data({part: (heard(999 + i, len(eeg))[0], y) for i, (part, (eeg, y)) in enumerate(made.content.items())})
    assert abs(linear_baseline(noise, window=WINDOW, lags=LAGS).pearson_of("test")) < 0.15


def test_test_part_is_only_scored_and_subjects_do_not_meet():
    made, other = data(noise=4.0), data(noise=4.0)
    part = Part("test", "s1", "a")
    other.content[part] = heard(77, 350)
    before, after = (linear_baseline(one, window=WINDOW, lags=LAGS) for one in (made, other))
    assert (before.penalties, before.recordings["val"]) == (after.penalties, after.recordings["val"])
    one, two = before.recordings["test"], after.recordings["test"]
    assert {name for name in one if one[name] != two[name]} == {"s1_-_a"}


def test_each_part_is_read_once_and_those_of_test_last():
    made = data()
    linear_baseline(made, window=WINDOW, lags=LAGS)
    assert len(made.asked) == len(set(made.asked)) == len(made.content)
    assert [part.split for part in made.asked] == ["train"] * 4 + ["val"] * 4 + ["test"] * 4


def test_windows_without_an_r_are_counted_and_left_out():
    made, silent = data(), data()
    silent.content[Part("test", "s1", "a")][1][:WINDOW] = 0.25
    silent.content[Part("val", "s2", "b")][1][:] = 0.25
    before, found = (linear_baseline(one, window=WINDOW, lags=LAGS, penalties=[0.1]) for one in (made, silent))
    assert found.undefined == 1 + 2
    assert "s2_-_b" not in found.recordings["val"]
    assert found.recordings["test"].keys() == before.recordings["test"].keys()
    r = expected_r(reference.lagged_ridge(train_of(made, "s1"), LAGS, 0.1), Part("test", "s1", "a"), made)
    assert before.recordings["test"]["s1_-_a"] == pytest.approx(np.mean(r), rel=1e-8)
    assert found.recordings["test"]["s1_-_a"] == pytest.approx(np.mean(r[1:]), rel=1e-8)


def train_of(made, subject):
    return [
        (eeg, y[:, 0]) for part, (eeg, y) in made.content.items() if (part.split, part.subject) == ("train", subject)
    ]


def without(made, *left_out):
    """Without the parts of some splits and subjects."""
    return Data({part: both for part, both in made.content.items() if (part.split, part.subject) not in left_out})


def expected_means(made, train, split, subject, penalty):
    weights = reference.lagged_ridge(train, LAGS, penalty)
    parts = [part for part in made.of(split) if part.subject == subject]
    return {part.recording: np.mean(expected_r(weights, part, made)) for part in parts}


def test_unseen_subject_has_the_decoder_of_all_others_with_the_penalty_that_its_own_val_chooses():
    made = without(data(subjects=("s1", "s2", "s3"), noise=4.0), ("train", "s3"))
    found = linear_baseline(made, window=WINDOW, lags=LAGS)
    train = [pair for subject in ("s1", "s2") for pair in train_of(made, subject)]
    of_penalty = [list(expected_means(made, train, "val", "s3", penalty).values()) for penalty in PENALTIES]
    assert found.penalties["s3"] == PENALTIES[int(np.argmax(np.mean(of_penalty, axis=1)))]
    expected = expected_means(made, train, "test", "s3", found.penalties["s3"])
    assert {name: found.recordings["test"][name] for name in expected} == pytest.approx(expected, rel=1e-8)
    assert found.recordings["test"].keys() == {part.recording for part in made.content}


def test_subject_without_val_has_the_penalty_that_is_best_for_all_who_have():
    made = without(data(subjects=("s1", "s2", "s3"), noise=4.0), ("val", "s3"))
    found = linear_baseline(made, window=WINDOW, lags=LAGS)
    means = [
        [r for s in ("s1", "s2") for r in expected_means(made, train_of(made, s), "val", s, penalty).values()]
        for penalty in PENALTIES
    ]
    assert found.penalties["s3"] == PENALTIES[int(np.argmax(np.mean(means, axis=1)))]
    expected = expected_means(made, train_of(made, "s3"), "test", "s3", found.penalties["s3"])
    assert {name: found.recordings["test"][name] for name in expected} == pytest.approx(expected, rel=1e-8)


def test_pieces_of_a_recording_are_scored_as_one():
    made = data(subjects=("s1",), stimuli=("a",))
    whole, rest = made.content[Part("test", "s1", "a")], heard(9, 250)
    made.content[Part("test", "s1", "a", "2")] = rest
    found = linear_baseline(made, window=WINDOW, lags=LAGS)
    weights = reference.lagged_ridge(train_of(made, "s1"), LAGS, found.penalties["s1"])
    r = [r for key in ("", "2") for r in expected_r(weights, Part("test", "s1", "a", key), made)]
    assert len(r) == len(whole[0]) // WINDOW + len(rest[0]) // WINDOW == 5
    assert found.recordings["test"] == {"s1_-_a": pytest.approx(np.mean(r), rel=1e-8)}


def test_without_any_val_nothing_is_chosen_and_scored():
    made = without(data(), ("val", "s1"), ("val", "s2"))
    found = linear_baseline(made, window=WINDOW, lags=LAGS)
    assert found == Baseline(undefined=2 * 2 * 3)


def test_nothing_to_score_has_no_mean():
    assert Baseline().pearson_of("test") is None
    assert linear_baseline(data(test=WINDOW - 1), window=WINDOW, lags=LAGS).pearson_of("test") is None
    with pytest.raises(ValueError, match="window of 0"):
        linear_baseline(data(), window=0)


def test_folder_of_prepared_recordings_is_data(tmp_path):
    for seed, name in enumerate(["s1_-_a", "s1_-_b", "s2_-_a"]):
        eeg, envelope = heard(seed, 64 * 100)
        for split, pair in prepared_in_memory(eeg, envelope, eeg_rate=64, envelope_rate=64).items():
            for kind, array in zip(("eeg", "envelope"), pair, strict=True):
                np.save(tmp_path / prepared_name(split, name, kind), array)
    found = linear_baseline(split_data.load(tmp_path, window=128), window=128)
    assert set(found.penalties) == {"s1", "s2"}
    assert set(found.recordings["test"]) == {"s1_-_a", "s1_-_b", "s2_-_a"}
    assert found.pearson_of("test") > 0.9
