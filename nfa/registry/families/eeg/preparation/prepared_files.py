"""Files of prepared recordings, first normalised by their own scale and then by that of their subject, if needed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nfa.content import file_sha256, read_array, write_array
from nfa.registry.families.eeg.preparation.config import PrepareEEGConfig
from nfa.registry.families.eeg.preparation.filters import FilterSettings, PreparedSignals, Span, check_flat, prepare
from nfa.registry.families.eeg.preparation.recordings import Recording
from nfa.registry.families.eeg.preparation.signals import Array, Signal
from nfa.registry.families.eeg.prepared_names import prepared_name
from nfa.registry.families.eeg.scales import Scale, pooled


@dataclass(frozen=True)
class Written:
    """The files of a signal by span, normalised by `own`; `first_minute` and `largest` [C] are of what that is of."""

    signal: Signal
    files: Mapping[Span, Path]
    own: Scale
    first_minute: Scale
    largest: Array

    def check(self, over: str, scale: Scale | None = None, largest: Array | None = None) -> None:
        """Raise `Refusal` for channels that are constant over what a scale is of, the recording's own unless given."""
        largest = self.largest if largest is None else largest
        check_flat(self.signal.name, self.signal.channels, scale or self.own, largest, over)

    def described(self, scale: Scale) -> dict[str, Any]:
        """Return the entry of `preparation.json`: the source, and the SHA-256 of each file."""
        signal = self.signal
        gaps = {"segments": [[each.start, each.stop, each.onset] for each in signal.segments]}
        return {
            "source": signal.name,
            "rate": signal.rate,
            "samples": signal.samples,
            **(gaps if len(signal.segments) > 1 else {}),
            "channels": list(signal.channels),
            "mean": scale.mean.tolist(),
            "deviation": scale.deviation.tolist(),
            "files": {path.name: file_sha256(path) for path in self.files.values()},
        }


def write(
    folder: Path, recording: str, kind: str, signal: Signal, spans: Sequence[Span], settings: FilterSettings
) -> Written:
    """Prepare a signal of a recording, `kind` eeg or envelope, into a folder."""
    made: PreparedSignals = prepare(signal, spans, settings, filtered=kind == "eeg")
    files = {}
    for span, part in made.parts.items():
        files[span] = folder / prepared_name(span.split, recording, kind, span.piece)
        write_array(files[span], part)
    return Written(signal, files, made.scale, made.start, made.largest)


def normalise(
    written: Mapping[str, Written], recordings: Sequence[Recording], held: Mapping[str, str], config: PrepareEEGConfig
) -> dict[str, Scale]:
    """Give the files of every recording, by name, the scale that is theirs (see `normalised_by`), and return it.

    Where nothing is held out that is their own. `Refusal` for channels that are constant over what their scale is of.
    """
    if not held:
        return {name: one.own for name, one in written.items()}
    found, training = {}, [each.name for each in recordings if held[each.name] == "train"]
    for recording in recordings:
        own = {each.name for each in recordings if each.heard[0] == recording.heard[0]}
        basis = [name for name in training if name in own]
        start = not basis and config.unseen == "first_minute"
        sources = basis or ([min(own)] if start else training)
        scale = pooled([written[name].first_minute if start else written[name].own for name in sources])
        one = written[recording.name]
        largest = np.max([written[name].largest for name in sources], axis=0)
        one.check(f"the first minute of {sources[0]}" if start else ", ".join(sources), scale, largest)
        if scale is not one.own:
            _rescale(one, scale)
        found[recording.name] = scale
    return found


def _rescale(one: Written, scale: Scale) -> None:
    """Rescale files in place from their own scale to another one."""
    for path in one.files.values():
        before = one.own.restored(read_array(path).content.astype(np.float64))
        write_array(path, scale.normalised(before).astype(np.float32))
