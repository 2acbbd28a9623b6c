"""A convolutional network that classifies images."""

import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

import nfa
from nfa.registry.datasets.tensor_datasets import image_datasets


def cnn(dataset: str = "digits", data_dir: str = "", width: int = 16, depth: int = 3, seed: int = 0) -> nfa.Supervised:
    """`depth` convolutions of `width` channels and more, on digits, fashion-mnist, cifar10 or svhn."""
    data = image_datasets(dataset, data_dir, seed)
    channels = data["train"][0][0].shape[0]
    return nfa.Supervised(
        model=lambda: network(channels, width, depth),
        loss=loss,
        metrics={"accuracy": accuracy},
        seed=seed,
        **data,
    )


def network(channels: int, width: int, depth: int, classes: int = 10) -> nn.Sequential:
    """Images shrink by half after each of the first two convolutions, of which the second doubles the channels."""
    layers: list[nn.Module] = []
    for index in range(depth):
        out = width if index == 0 else 2 * width
        layers += [nn.Conv2d(channels, out, 3, padding=1), nn.ReLU()]
        layers += [nn.MaxPool2d(2)] if index < 2 else []
        channels = out
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * channels, classes))


def loss(outputs: Tensor, labels: Tensor) -> Tensor:
    """Of each example."""
    return F.cross_entropy(outputs, labels, reduction="none")


def accuracy(outputs: Tensor, labels: Tensor) -> Tensor:
    """1 where the largest output is the label's."""
    return (outputs.argmax(dim=1) == labels).float()
