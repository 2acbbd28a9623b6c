"""Published images as torch Datasets."""

import math
from collections.abc import Sequence

import torch
from torch.utils.data import TensorDataset

from nfa.errors import Refusal
from nfa.registry.datasets import image_files, images, splits
from nfa.registry.datasets.image_sizes import PUBLISHED
from nfa.registry.datasets.images import Images, Labels


def image_datasets(dataset: str, data_dir: str = "", seed: int = 0) -> dict[str, TensorDataset]:
    """Images [channels, side, side] with pixels from 0 to 1, and their labels: "train", "val" and "test".

    The examples of each split, and their order, are those that `train` takes for this seed.
    """
    if dataset not in PUBLISHED:
        raise Refusal(f"dataset={dataset!r}", ", ".join(PUBLISHED), "dataset=digits")
    data = images.load(dataset, image_files.locate(dataset, data_dir))
    ids = splits.decide(data.train_labels, data.test_labels, seed=seed, label_noise=0, classes=data.classes)
    train = data.train_images, data.train_labels
    chosen = {"train": train, "val": train, "test": (data.test_images, data.test_labels)}
    return {name: _tensors(*arrays, ids[name], data.scale) for name, arrays in chosen.items()}


def _tensors(pixels: Images, labels: Labels, ids: Sequence[int], scale: float) -> TensorDataset:
    channels = 3 if pixels.shape[1] % 3 == 0 else 1
    side = math.isqrt(pixels.shape[1] // channels)
    scaled = torch.tensor(pixels[list(ids)], dtype=torch.float32).div_(scale)
    return TensorDataset(scaled.view(-1, channels, side, side), torch.tensor(labels[list(ids)]))
