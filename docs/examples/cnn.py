"""Watch a convolutional network in your own training loop: only three lines belong to nfa."""

import sys

import mlflow
import torch
import torch.nn as nn
import torch.nn.functional as F

import nfa
from nfa.registry.datasets import image_files, images


def network(classes: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(),
        nn.Conv2d(16, 16, 3, padding=1, groups=16), nn.ReLU(), nn.AdaptiveAvgPool2d(2),
        nn.Flatten(), nn.Linear(64, classes),
    )  # fmt: skip


def loss(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(outputs, labels, reduction="none")


def main(dataset: str = "fashion-mnist", examples: int = 4000, epochs: int = 4) -> None:
    data = images.load(dataset, image_files.locate(dataset))
    side = int(data.features**0.5)
    x = torch.tensor(data.train_images[:examples] / data.scale).float().view(-1, 1, side, side)
    y = torch.tensor(data.train_labels[:examples])
    torch.manual_seed(0)
    model = network(data.classes)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.003)
    run = mlflow.start_run(run_name=f"cnn on {dataset}")
    with run, nfa.watch(model, loss, (x[:256], y[:256])) as watch:
        watch.record(0)
        for epoch in range(1, epochs + 1):
            for batch in torch.randperm(len(x)).split(64):
                optimizer.zero_grad()
                loss(model(x[batch]), y[batch]).mean().backward()
                optimizer.step()
            values = watch.record(epoch)
            print(f"epoch {epoch}: loss {values['probe/loss']:.3f}, AGOP vs NFM {values['3/agop_nfm']:.3f}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "fashion-mnist")
