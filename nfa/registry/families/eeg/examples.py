"""Which windows a run uses."""

import torch

from nfa.registry.families.eeg.config import TrainEEGConfig
from nfa.registry.families.eeg.data import SPLITS, EEGData
from nfa.seeding import generator


def decide(data: EEGData, config: TrainEEGConfig) -> dict[str, list[int]]:
    """The content of a run's example_ids.json: all non-overlapping windows of each split; "probe" = those of the train
    part in random order. Training itself draws windows anywhere in the train part, anew in each epoch."""
    ids = {split: data.ids(split, config.window) for split in SPLITS}
    order = torch.randperm(len(ids["train"]), generator=generator(config.seed, "probe")).tolist()
    return {**ids, "probe": [ids["train"][place] for place in order]}
