"""Parameters of the entry point that prepares EEG recordings."""

from dataclasses import dataclass

from nfa.errors import Refusal
from nfa.options import check_fields, option
from nfa.registry.families.eeg.config import SPLITTINGS, UNSEEN, UNSEEN_HELP, check_unseen


@dataclass(frozen=True)
class PrepareEEGConfig:
    """Resample, split and normalise EEG recordings and speech envelopes, and write the files that train_eeg reads."""

    source: str = option(
        "",
        "folder with pairs SUBJECT_-_STIMULUS_-_eeg.npy ([T, C]; or .bdf, .edf, .vhdr and others that MNE reads) and "
        "SUBJECT_-_STIMULUS_-_envelope.npy ([T] or [T, 1]); required",
    )
    target: str = option("", "folder for the prepared files, created if it does not exist; required")
    overwrite: bool = option(False, "replace prepared files of the same recordings in target; other files stay")
    eeg_rate: float = option(0.0, "sampling rate of the EEG in Hz; 0 = from the file (.npy has none)", at_least=0)
    envelope_rate: float = option(0.0, "sampling rate of the envelopes in Hz; 0 = that of the EEG", at_least=0)
    rate: int = option(64, "sampling rate of the prepared files in Hz", at_least=1, below=10**5)
    channels: str = option(
        "auto",
        "channels to use: names or globs, comma-separated, with ! before those to leave out; auto = EEG channels, by "
        "the type stated in the file and the type implied by the name",
    )
    gaps: str = option(
        "refuse",
        "what to do with recordings with gaps in their time stamps: refuse them, or cut them at the gaps",
        choices=("refuse", "cut"),
    )
    split: str = option(
        "time",
        "what is held out: time = the end of each recording, recordings = whole recordings, subjects = whole subjects",
        choices=SPLITTINGS,
    )
    unseen: str = option("first_minute", UNSEEN_HELP, choices=UNSEEN)
    train_share: float = option(0.8, "share for training, the first part of each recording", above=0, below=1)
    val_share: float = option(0.1, "share for validation, the part after; the rest is for testing", above=0, below=1)
    seed: int = option(1717, "seed of the choice of held-out recordings or subjects", at_least=0, below=2**63)
    highpass: float = option(0.0, "cut-off of a zero-phase high-pass filter on the EEG, in Hz; 0 = none", at_least=0)
    lowpass: float = option(0.0, "cut-off of a zero-phase low-pass filter on the EEG, in Hz; 0 = none", at_least=0)
    run_name: str = option("", "name of the run in MLflow; empty = named by what ran")

    def __post_init__(self) -> None:
        check_fields(self)
        for name in ("source", "target"):
            if not getattr(self, name):
                raise Refusal(f"{name}=''", f"a folder ({self._help(name)})", f"give {name}=FOLDER")
        for name in ("eeg_rate", "envelope_rate"):
            if not (getattr(self, name) == 0 or 1 <= getattr(self, name) <= 10**6):
                raise Refusal(f"{name}={getattr(self, name)}", "0, or 1 to 1000000 Hz", f"leave {name} out")
        check_unseen(self.split, self.unseen)
        self._check_shares()
        self._check_filters()

    def _help(self, name: str) -> str:
        return str(self.__dataclass_fields__[name].metadata["help"])

    def _check_shares(self) -> None:
        if self.train_share + self.val_share > 1 - 1e-9:
            got = f"train_share={self.train_share} with val_share={self.val_share}"
            raise Refusal(got, "shares that leave something to test on: a sum < 1", "train_share=0.8 val_share=0.1")

    def _check_filters(self) -> None:
        if self.highpass and self.highpass >= (self.lowpass or self.rate / 2):
            limit = f"lowpass={self.lowpass}" if self.lowpass else f"{self.rate / 2} Hz, half of rate={self.rate}"
            raise Refusal(f"highpass={self.highpass}", f"a cut-off below {limit}", "highpass=0.5, or 0 for none")
