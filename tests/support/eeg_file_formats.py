"""Recordings in the formats of recorders, written byte by byte, and gaps found again in the bytes."""

import struct
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np

MICROVOLTS = 0.05  # of a digital unit
BEGUN = datetime(2026, 3, 1, 9, 30)


def edf(
    path: Path,
    signals: dict[str, np.ndarray],
    *,
    onsets: Sequence[str],
    seconds: str = "1",
    label: str = "EDF+D",
    promised: int | None = None,
    tals: bool = True,
) -> None:
    """Signals [T] in µV by label, each of them cut into records that begin at `onsets`; .bdf has 3 bytes a sample."""
    width, records = (3 if path.suffix == ".bdf" else 2), len(onsets)
    kind = "BDF" if width == 3 else "EDF"
    rows = [np.asarray(signal).reshape(records, -1) for signal in signals.values()]
    names, sizes = [*signals], [row.shape[1] for row in rows]
    if tals:
        names, sizes = [*names, f"{kind} Annotations"], [*sizes, 12]
    limit = 2 ** (8 * width - 1)
    top = MICROVOLTS * limit
    columns = [  # of the header, each for all signals: text and characters
        (names, 16), ([""] * len(names), 80), (["uV"] * len(names), 8),
        ([f"{-top:.8g}"[:8]] * len(names), 8), ([f"{top:.8g}"[:8]] * len(names), 8),
        ([-limit] * len(names), 8), ([limit - 1] * len(names), 8), ([""] * len(names), 80), (sizes, 8),
        ([""] * len(names), 32),
    ]  # fmt: skip
    version = b"\xffBIOSEMI" if width == 3 else b"0       "
    fixed = [("X X X X", 80), ("Startdate X X X X", 80), ("01.03.26", 8), ("09.30.00", 8), (256 * (len(names) + 1), 8)]
    fixed += [(label, 44), (records if promised is None else promised, 8), (seconds, 8), (len(names), 4)]
    header = "".join(f"{value:<{size}}" for value, size in fixed)
    header += "".join(f"{value:<{size}}" for values, size in columns for value in values)
    with path.open("wb") as file:
        file.write(version + header.encode("latin-1"))
        for record, onset in enumerate(onsets):
            for row in rows:
                digits = np.clip(np.round(row[record] / MICROVOLTS), -limit, limit - 1).astype("<i4")
                file.write(digits.view("u1").reshape(-1, 4)[:, :width].tobytes())
            if tals:
                file.write(f"+{onset}\x14\x14".encode().ljust(12 * width, b"\0"))


def edf_gaps(path: Path, samples: int, seconds: float) -> list[tuple[int, float]]:
    """Places (in samples, of so many a record) and lengths of gaps, as the bytes of a file have them."""
    content, found, last = path.read_bytes(), [], None
    onsets = [float(piece.split(b"+")[-1]) for piece in content[content.index(b"+") :].split(b"\x14\x14\0")[:-1]]
    for record, onset in enumerate(onsets):
        if last is not None and abs(onset - last - seconds) > 1e-9:
            found.append((record * samples, onset - last - seconds))
        last = onset
    return found


def brainvision(
    path: Path,
    signals: dict[str, np.ndarray],
    *,
    interval: str,
    markers: Sequence[str] = ("New Segment,,1,1,0,20260301093000000000",),
    called: str = "",
    more: Sequence[str] = (),
) -> None:
    """Signals [T] in µV by name as header, markers and data; the header points to files called `called`."""
    called = called or path.stem
    rows = np.stack(list(signals.values()), axis=1)
    lines = ["BrainVision Data Exchange Header File Version 1.0", "; made by a test", "", "[Common Infos]"]
    lines += [f"DataFile={called}.eeg", f"MarkerFile={called}.vmrk", "DataFormat=BINARY"]
    lines += ["DataOrientation=MULTIPLEXED", f"NumberOfChannels={rows.shape[1]}", f"SamplingInterval={interval}", *more]
    lines += ["", "[Binary Infos]", "BinaryFormat=IEEE_FLOAT_32", "", "[Channel Infos]"]
    lines += [f"Ch{k}={name},,1,µV" for k, name in enumerate(signals, 1)]
    path.write_text("\r\n".join(lines) + "\r\n", encoding="utf-8")
    path.with_suffix(".eeg").write_bytes(rows.astype("<f4").tobytes())
    text = ["BrainVision Data Exchange Marker File, Version 1.0", "", "[Common Infos]", f"DataFile={called}.eeg", ""]
    text += ["[Marker Infos]", *(f"Mk{k}={marker}" for k, marker in enumerate(markers, 1))]
    path.with_suffix(".vmrk").write_text("\r\n".join(text) + "\r\n", encoding="utf-8")


def segment(sample: int, seconds: float) -> str:
    """A marker of a segment that begins at a sample counted from 0, so long after the recording did."""
    return f"New Segment,,{sample + 1},1,0,{BEGUN + timedelta(seconds=seconds):%Y%m%d%H%M%S%f}"


def persyst(path: Path, signals: dict[str, np.ndarray], *, rate: float, times: Sequence[tuple[int, float]]) -> None:
    """Signals [T] in µV by name, and the seconds at which stretches of samples begin."""
    lines = ["[FileInfo]", f"File={path.stem}.dat", f"SamplingRate={rate:g}", f"Calibration={MICROVOLTS}"]
    lines += [f"WaveformCount={len(signals)}", "FileType=Interleaved", "DataType=0", "[ChannelMap]"]
    lines += [f"{name}-Ref={k}" for k, name in enumerate(signals, 1)]
    lines += ["[SampleTimes]", *(f"{sample}={seconds:.6f}" for sample, seconds in times)]
    lines += ["[Patient]", "First=", "BirthDate=01/02/90", "Sex=", "Hand=", "TestDate=01/03/2026", "TestTime=09:30:00"]
    path.write_text("\n".join(lines) + "\n", encoding="latin-1")
    rows = np.stack(list(signals.values()), axis=1)
    path.with_suffix(".dat").write_bytes(np.round(rows / MICROVOLTS).astype("<i2").tobytes())


def neuroscan(path: Path, signals: dict[str, np.ndarray], *, rate: int, breaks: Sequence[int]) -> None:
    """Signals [T] in units by name, and events of breaks before samples counted from 0."""
    rows = np.stack(list(signals.values()), axis=1).round().astype("<i2")
    begin, frame = 900 + 75 * len(signals), 2 * len(signals)
    setup = bytearray(begin)
    table = begin + rows.nbytes
    for kind, at, value in (("<H", 370, len(signals)), ("<H", 376, rate), ("<i", 864, len(rows)), ("<i", 886, table)):
        struct.pack_into(kind, setup, at, value)
    for k, name in enumerate(signals):
        setup[900 + 75 * k : 900 + 75 * k + len(name)] = name.encode()
        struct.pack_into("<f", setup, 900 + 75 * k + 59, 1.0)
        struct.pack_into("<f", setup, 900 + 75 * k + 71, 204.8)
    events = [struct.pack("<HBBi", 0, 0, 14 << 4, begin + sample * frame) for sample in breaks]
    events.append(struct.pack("<HBBi", 7, 0, 0, begin + 5 * frame))  # one of a stimulus
    path.write_bytes(bytes(setup) + rows.tobytes() + struct.pack("<Bii", 1, 8 * len(events), 0) + b"".join(events))


def gdf(path: Path, signals: dict[str, np.ndarray], *, rate: int, begins: Sequence[int]) -> None:
    """Signals [T] in digital units by name, and events of new segments at samples counted from 0."""
    rows, n = np.stack(list(signals.values()), axis=1).round().astype("<i2"), len(signals)
    fixed = b"GDF 1.25" + b"".ljust(160) + b"2026030109300000" + struct.pack("<q", 256 * (n + 1)) + bytes(44)
    fixed += struct.pack("<qIII", len(rows) // rate, 1, 1, n)
    labels = b"".join(name.encode().ljust(16, b"\0") for name in signals)
    limits = struct.pack(f"<{n}d", *[-32768.0] * n) + struct.pack(f"<{n}d", *[32767.0] * n)
    limits += struct.pack(f"<{n}q", *[-32768] * n) + struct.pack(f"<{n}q", *[32767] * n)
    sizes = struct.pack(f"<{n}i", *[rate] * n) + struct.pack(f"<{n}i", *[3] * n)
    header = fixed + labels + bytes(80 * n) + b"uV".ljust(8, b"\0") * n + limits + bytes(80 * n) + sizes + bytes(32 * n)
    records = rows[: len(rows) // rate * rate].reshape(-1, rate, n).transpose(0, 2, 1)
    events = struct.pack("<BBBBI", 1, 0, 0, 0, len(begins)) + (1 + np.array(begins, "<u4")).tobytes()
    path.write_bytes(header + records.tobytes() + events + np.full(len(begins), 0x7FFE, "<u2").tobytes())


def eeglab(
    path: Path, rows: np.ndarray, *, rate: float, events: Sequence[tuple[str, float, float]] = (), data: str = ""
) -> None:
    """EEG [T, C] in µV and events: kind, latency counted from 1, duration in samples; `data` names a file for them."""
    from scipy.io import savemat

    channels = np.zeros(rows.shape[1], dtype=[("labels", object), ("type", object)])
    channels[:] = [(f"C{k}", "EEG") for k in range(rows.shape[1])]
    listed = np.zeros(len(events), dtype=[("type", object), ("latency", object), ("duration", object)])
    listed[:] = list(events)
    lasting = {"pnts": len(rows), "trials": 1, "srate": float(rate), "xmin": 0.0, "xmax": len(rows) / rate}
    values = {"data": data or rows.T.astype(np.float32), "chanlocs": channels, "event": listed, "nbchan": rows.shape[1]}
    savemat(path, {"EEG": {"setname": "made by a test", "icawinv": [], "ref": "common", **lasting, **values}})
    if data:
        path.with_suffix(".fdt").write_bytes(rows.astype("<f4").tobytes())
