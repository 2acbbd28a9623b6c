"""Watch a small transformer that reads images line by line; every projection inside its attention is a site."""

import sys

import mlflow
import torch
import torch.nn as nn
import torch.nn.functional as F

import nfa
from nfa.registry.datasets import image_files, images


class LineReader(nn.Module):
    """A transformer whose tokens are the lines of an image; the readout sees the mean over lines."""

    def __init__(self, side: int, classes: int, width: int = 32) -> None:
        super().__init__()
        self.embedding = nn.Linear(side, width)
        self.position = nn.Parameter(0.1 * torch.randn(side, width))
        layer = nn.TransformerEncoderLayer(width, 4, 2 * width, dropout=0.1, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2)
        self.readout = nn.Linear(width, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.readout(self.encoder(self.embedding(x) + self.position).mean(dim=1))
        return logits


def loss(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(outputs, labels, reduction="none")


def main(dataset: str = "fashion-mnist", examples: int = 2000, steps: int = 60) -> None:
    data = images.load(dataset, image_files.locate(dataset))
    side = int(data.features**0.5)
    x = torch.tensor(data.train_images[:examples] / data.scale).float().view(-1, side, side)
    y = torch.tensor(data.train_labels[:examples])
    torch.manual_seed(0)
    model = LineReader(side, data.classes)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.003)
    run = mlflow.start_run(run_name=f"transformer on {dataset}")
    with run, nfa.watch(model, loss, (x[:128], y[:128]), schedule=f"0-{steps}/20") as watch:
        for step in range(steps + 1):
            watch.record(step)
            batch = torch.randint(len(x), (64,))
            optimizer.zero_grad()
            loss(model(x[batch]), y[batch]).mean().backward()
            optimizer.step()


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "fashion-mnist")
