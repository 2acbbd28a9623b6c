"""The table of all entry points."""

from tests.support.refused import analyses, eeg, import_checkpoints, lora_steps, train, train_lora, tune

ROWS = [row for file in (train, tune, analyses, import_checkpoints, eeg, train_lora, lora_steps) for row in file.ROWS]
