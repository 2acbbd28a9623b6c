"""A convolutional network that classifies images."""

import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

import nfa
from nfa.registry.datasets.tensor_datasets import image_datasets


def cnn(dataset: str = "digits", data_dir: str = "", width: int = 16, depth: int = 3, seed: int = 0) -> nfa.Supervised:
    """Train a convolutional network on images, with cross-entropy.

    The first convolution has `width` channels and the others twice as many; the readout is linear.

    Args:
        dataset: Images to classify: "digits", "fashion-mnist", "cifar10" or "svhn".
        data_dir: Folder with the dataset's files; empty = search the known folders, else download.
        width: Channels of the first convolution.
        depth: Number of convolutions.
        seed: Seed of the initial weights, and of the split into training and validation examples.
    """
    data = image_datasets(dataset, data_dir, seed)
    channels = data["train"][0][0].shape[0]
    return nfa.Supervised(
        model=lambda: network(channels, width, depth),
        loss=cross_entropy,
        metrics={"accuracy": accuracy},
        seed=seed,
        **data,
    )


def network(channels: int, width: int, depth: int, classes: int = 10) -> nn.Sequential:
    """Return the network; each of the first two convolutions is followed by pooling, which halves the image."""
    layers: list[nn.Module] = []
    for index in range(depth):
        out = width if index == 0 else 2 * width
        layers += [nn.Conv2d(channels, out, 3, padding=1), nn.ReLU()]
        layers += [nn.MaxPool2d(2)] if index < 2 else []
        channels = out
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * channels, classes))


def cross_entropy(outputs: Tensor, labels: Tensor) -> Tensor:
    """Return the cross-entropy of each example [n]."""
    return F.cross_entropy(outputs, labels, reduction="none")


def accuracy(outputs: Tensor, labels: Tensor) -> Tensor:
    """Return 1 for each example whose label has the largest output, else 0 [n]."""
    return (outputs.argmax(dim=1) == labels).float()
