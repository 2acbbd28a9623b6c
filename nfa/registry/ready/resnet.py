"""A residual network with batch normalisation that classifies images."""

import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

import nfa
from nfa.registry.datasets.tensor_datasets import image_datasets


def resnet(
    dataset: str = "digits", data_dir: str = "", width: int = 16, depth: int = 1, seed: int = 0
) -> nfa.Supervised:
    """Train a residual network with batch normalisation on images, with cross-entropy.

    It has three stages with `width`, 2 × `width` and 4 × `width` channels (He et al. 2016, arXiv 1512.03385).

    Args:
        dataset: Images to classify: "digits", "fashion-mnist", "cifar10" or "svhn".
        data_dir: Folder with the dataset's files; empty = search the known folders, else download.
        width: Channels of the first stage.
        depth: Residual blocks per stage.
        seed: Seed of the initial weights, and of the split into training and validation examples.
    """
    data = image_datasets(dataset, data_dir, seed)
    channels = data["train"][0][0].shape[0]
    return nfa.Supervised(
        model=lambda: ResNet(channels, width, depth),
        loss=cross_entropy,
        metrics={"accuracy": accuracy},
        seed=seed,
        **data,
    )


class Block(nn.Module):
    """Two convolutions with a shortcut (He et al. 2016, arXiv 1512.03385)."""

    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(channels, out, 3, stride, padding=1, bias=False), nn.BatchNorm2d(out))
        self.second = nn.Sequential(nn.Conv2d(out, out, 3, padding=1, bias=False), nn.BatchNorm2d(out))
        same = stride == 1 and channels == out
        self.shortcut = nn.Identity() if same else nn.Conv2d(channels, out, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return features of the same size, or of half the width and height for stride 2."""
        return F.relu(self.second(F.relu(self.first(x))) + self.shortcut(x))


class ResNet(nn.Module):
    """A residual network; the second and third stage start by halving the image."""

    def __init__(self, channels: int, width: int, depth: int, classes: int = 10) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width))
        sizes = [(width, width, 1), (width, 2 * width, 2), (2 * width, 4 * width, 2)]
        blocks = [
            Block(size if index == 0 else out, out, stride if index == 0 else 1)
            for size, out, stride in sizes
            for index in range(depth)
        ]
        self.blocks = nn.Sequential(*blocks)
        self.readout = nn.Linear(4 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits [n classes], computed from the mean over positions."""
        logits: Tensor = self.readout(self.blocks(F.relu(self.stem(x))).mean(dim=(2, 3)))
        return logits


def cross_entropy(outputs: Tensor, labels: Tensor) -> Tensor:
    """Return the cross-entropy of each example [n]."""
    return F.cross_entropy(outputs, labels, reduction="none")


def accuracy(outputs: Tensor, labels: Tensor) -> Tensor:
    """Return 1 for each example whose label has the largest output, else 0 [n]."""
    return (outputs.argmax(dim=1) == labels).float()
