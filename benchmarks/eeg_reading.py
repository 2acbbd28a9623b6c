"""An epoch over 10 GB of recordings: memory, waiting for data, and the check of the files, first and again."""

import os
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks.record import peak_above_now, store
from nfa.parallel import World
from nfa.registry.families.eeg.config import TrainEEGConfig
from nfa.registry.families.eeg.data import EEGData, load
from nfa.registry.families.eeg.session import training_of
from nfa.registry.families.eeg.training import decide
from nfa.registry.families.eeg.workload import EEGDecoder

RECORDINGS, SAMPLES, CHANNELS, HEADER = 160, 256_000, 64, 128  # 66 MB each, 10.5 GB together
EPOCHS, BATCH = 10, 64  # of reading alone
STEPS = 3


def write(folder: Path) -> None:
    """Recordings that are sparse but for random numbers in places; val and test are one window long."""
    random = np.random.default_rng(0)
    for index in range(RECORDINGS):
        for split, samples in (("train", SAMPLES), ("val", 640), ("test", 640)):
            for what, channels in (("eeg", CHANNELS), ("envelope", 1)):
                name = f"{split}_-_sub-{index // 8:03d}_-_story-{index % 8}_-_{what}.npy"
                array = np.lib.format.open_memmap(folder / name, "w+", np.float32, (samples, channels))
                for start in random.integers(samples - 639, size=20 if split == "train" else 1):
                    array[start : start + 640] = random.standard_normal((640, channels), dtype=np.float32)
                array.flush()


def decoder(data: EEGData) -> EEGDecoder:
    """The workload of the published size at 8 windows a step."""
    config = TrainEEGConfig(size="paper", batch_size=8, epochs=1)
    return EEGDecoder(config, data, decide(data, config))


def waiting(workload: EEGDecoder) -> tuple[float, float]:
    """Seconds spent waiting for batches, and seconds of the steps, of `STEPS` training steps."""
    training, _ = training_of(workload, World())
    ids, waited, start = workload.draw(0)[: 8 * STEPS], 0.0, time.perf_counter()
    batches = workload.batches("train", batch_size=8, ids=ids)
    for _ in range(STEPS):
        before = time.perf_counter()
        batch = next(batches)
        waited += time.perf_counter() - before
        training._step([batch], 8, lambda: None, watch=False)
    return waited, time.perf_counter() - start


def main() -> None:
    """Write, measure and record."""
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["NFA_CACHE"] = str(Path(scratch, "cache"))
        folder = Path(scratch, "split_data")
        folder.mkdir()
        write(folder)
        seconds = []
        for _ in range(2):
            start = time.perf_counter()
            data = load(folder, window=640)
            seconds.append(time.perf_counter() - start)
        workload = decoder(data)
        for _ in workload.batches("train", batch_size=BATCH, ids=workload.draw(0)):
            pass
        start, windows = time.perf_counter(), 0
        with peak_above_now() as peak:
            for epoch in range(EPOCHS):
                for batch in workload.batches("train", batch_size=BATCH, ids=workload.draw(epoch)):
                    windows += len(batch)
            memory = peak()
        reading = (time.perf_counter() - start) / windows
        waited, stepped = waiting(workload)
    total = RECORDINGS * SAMPLES * (CHANNELS + 1) * 4
    results = {
        "recordings, GB": round(total / 1e9, 1),
        "first check of all files, s": round(seconds[0], 1),
        "check again, s": round(seconds[1], 2),
        "reading and normalising a window, ms": round(1000 * reading, 2),
        f"memory above the start, MB, {windows:,} windows in batches of {BATCH}": round(memory),
        "waiting for data, share of a step's time": f"{waited / stepped:.2%}",
    }
    notes = [
        "The files are sparse, with random numbers in some places, so they come from the page cache and not from a "
        f"disk. Steps are those of the model of published size, with 8 windows on {torch.get_num_threads()} "
        f"threads. A batch itself takes {BATCH * 640 * 65 * 4 / 1e6:.0f} MB, and the next one is read ahead.",
    ]
    store("eeg_reading", "Reading recordings of EEG", results, notes)


if __name__ == "__main__":
    main()
