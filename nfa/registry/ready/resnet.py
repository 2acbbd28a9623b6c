"""A residual network with batch normalisation that classifies images."""

import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

import nfa
from nfa.registry.datasets.tensor_datasets import image_datasets


def resnet(
    dataset: str = "digits", data_dir: str = "", width: int = 16, depth: int = 1, seed: int = 0
) -> nfa.Supervised:
    """Three stages of `depth` blocks, with `width`, 2 and 4 times as many channels; the images are those of `cnn`."""
    data = image_datasets(dataset, data_dir, seed)
    channels = data["train"][0][0].shape[0]
    return nfa.Supervised(
        model=lambda: ResNet(channels, width, depth),
        loss=loss,
        metrics={"accuracy": accuracy},
        seed=seed,
        **data,
    )


class Block(nn.Module):
    """Two convolutions beside a shortcut. He et al. 2016, arXiv 1512.03385."""

    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(channels, out, 3, stride, padding=1, bias=False), nn.BatchNorm2d(out))
        self.second = nn.Sequential(nn.Conv2d(out, out, 3, padding=1, bias=False), nn.BatchNorm2d(out))
        same = stride == 1 and channels == out
        self.shortcut = nn.Identity() if same else nn.Conv2d(channels, out, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Half as wide and high where the stride is 2."""
        return F.relu(self.second(F.relu(self.first(x))) + self.shortcut(x))


class ResNet(nn.Module):
    """Images shrink by half at the start of the second and the third stage."""

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
        """Logits from the mean over places."""
        logits: Tensor = self.readout(self.blocks(F.relu(self.stem(x))).mean(dim=(2, 3)))
        return logits


def loss(outputs: Tensor, labels: Tensor) -> Tensor:
    """Of each example."""
    return F.cross_entropy(outputs, labels, reduction="none")


def accuracy(outputs: Tensor, labels: Tensor) -> Tensor:
    """1 where the largest output is the label's."""
    return (outputs.argmax(dim=1) == labels).float()
