"""Watch a network in a training loop with accelerate, in one process or several, and store checkpoints of it."""

import sys
from contextlib import nullcontext

import mlflow
import torch
import torch.nn as nn
import torch.nn.functional as F
from accelerate import Accelerator
from torch.utils.data import DataLoader, TensorDataset

import nfa
from nfa.registry.datasets import image_files, images


def loss(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(outputs, labels, reduction="none")


def main(dataset: str = "fashion-mnist", examples: int = 4000, epochs: int = 2, mixed_precision: str = "no") -> None:
    data = images.load(dataset, image_files.locate(dataset))
    x = torch.tensor(data.train_images[:examples] / data.scale).float()
    y = torch.tensor(data.train_labels[:examples])
    torch.manual_seed(0)
    layers = nn.Linear(data.features, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, data.classes)
    model = nn.Sequential(*layers)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.003)
    accelerator = Accelerator(gradient_accumulation_steps=2, mixed_precision=mixed_precision)
    loader = DataLoader(TensorDataset(x, y), batch_size=32, shuffle=True)
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    run = mlflow.start_run(run_name=f"mlp on {dataset}") if accelerator.is_main_process else nullcontext()
    with run, nfa.watch(model, loss, (x[:256], y[:256]), every=20, checkpoints=True) as watch:
        step = 0
        watch.record(step)
        for _ in range(epochs):
            for inputs, labels in loader:
                with accelerator.accumulate(model):
                    accelerator.backward(loss(model(inputs), labels).mean())
                    optimizer.step()
                    optimizer.zero_grad()
                if accelerator.sync_gradients:  # an optimizer step has been made
                    step += 1
                    watch.record(step)
        watch.record_last(step)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "fashion-mnist")
