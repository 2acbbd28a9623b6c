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
    """Load a published image dataset as torch Datasets.

    Each split has the examples, and the order, that the entry point `train` uses for this seed.

    Args:
        dataset: "digits", "svhn", "fashion-mnist" or "cifar10".
        data_dir: Folder that holds the dataset's files; empty = search the known folders, else download.
        seed: Seed of the split into training and validation examples.

    Returns:
        Datasets "train", "val" and "test" of pairs: an image [channels side side], float32 with pixels from 0 to 1,
        and its label, int64.

    Raises:
        Refusal: The dataset is unknown, or a file is missing or damaged.
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
