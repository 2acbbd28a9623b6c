"""How a preparation ends whose recordings turn out to be bad while they are read."""

from pathlib import Path

import numpy as np
import pytest

from nfa.errors import Refusal
from nfa.registry import cli
from tests.support.raw_recordings import RECORDINGS, given, recorded_folder, save, signals
from tests.support.stores import Store

start = cli.starter("prepare_eeg")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return recorded_folder(tmp_path / "recorded")


CONTENTS = {
    "nan": (lambda a: a.__setitem__((4999, 2), np.nan), r"tale_-_eeg.npy \(nan at sample 4999 of channel 2\)"),
    "constant": (
        lambda a: a.__setitem__(np.s_[:, 1], 0),
        r"tale_-_eeg.npy \(constant over the train part: channel 1\)",
    ),
}


@pytest.mark.parametrize("case", CONTENTS)
def test_bad_value_fails_the_run_and_leaves_no_file(case: str, store: Store, source: Path, tmp_path: Path) -> None:
    damage, message = CONTENTS[case]
    recorded = signals(1)[0]
    damage(recorded)
    save(source, f"{RECORDINGS[1]}_-_eeg.npy", recorded)
    with pytest.raises(Refusal, match=message):
        start(given(source, tmp_path / "out"))
    (run_id,) = store.runs()
    assert store.tags(run_id)["nfa.state"] == "failed"
    assert not (tmp_path / "out").exists()
