"""Train a convolutional network on Fashion-MNIST: `mlflow run . -e train -P workload=my_lab:make`."""

from torch import nn

import nfa
from nfa.registry.datasets.tensor_datasets import image_datasets


def make(width: int = 16, images: str = "fashion-mnist") -> nfa.Supervised:
    def net() -> nn.Module:
        first, second = nn.Conv2d(1, width, 3, padding=1), nn.Conv2d(width, 2 * width, 3, padding=1)
        convolved = nn.Sequential(first, nn.ReLU(), nn.MaxPool2d(2), second, nn.ReLU(), nn.AdaptiveAvgPool2d(4))
        return nn.Sequential(convolved, nn.Flatten(), nn.Linear(32 * width, 64), nn.ReLU(), nn.Linear(64, 10))

    loss, right = nn.CrossEntropyLoss(reduction="none"), lambda outputs, labels: (outputs.argmax(1) == labels).float()
    return nfa.Supervised(model=net, loss=loss, metrics={"accuracy": right}, **image_datasets(images))
