"""Networks and checkpoint files of the older programs, and the words that import them."""

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nfa.registry.families.mlp.config import ImportConfig

NAME = "import_checkpoints"
NAMED = ":digits:width:8:depth:3:act:LeakyReLU:nn.pth"
FILES = {
    0: "model_epoch_0.pth",
    1: "models/model_epoch_1.pth",
    2: "models/model_epoch_2.pt",
    3: f"model_epoch_3{NAMED}",
    4: f"models/model_epoch_4{NAMED}",
    20: "models/model_epoch_20_digits_width_8_depth_3_act_leaky_relu_nn.pth",
}
EPOCHS = list(FILES)


class Activation(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, z: Tensor) -> Tensor:
        return self.function(z)


class OldNet(nn.Module):
    """A network as the older programs built it."""

    def __init__(self, depth: int, act: Callable[[Tensor], Tensor], *, width: int = 8, inputs: int = 64) -> None:
        super().__init__()

        def layer(outputs: int) -> nn.Sequential:
            return nn.Sequential(Activation(act), nn.Linear(width, outputs, bias=False))

        self.depth, first = depth, nn.Linear(inputs, width, bias=False)
        self.first: nn.Module
        if depth == 1:
            self.first, self.fc = first, layer(10)
        else:
            self.first = nn.Sequential(first)
            self.middle = nn.ModuleList([layer(width) for _ in range(depth - 1)])
            self.last = layer(10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for layer in [self.fc] if self.depth == 1 else [*self.middle, self.last]:
            x = layer(x)
        return x


def net(epoch: int, depth: int = 3, act: Callable[[Tensor], Tensor] = F.leaky_relu) -> OldNet:
    """The same network for an epoch at every call."""
    with torch.random.fork_rng():
        torch.manual_seed(epoch)
        return OldNet(depth, act)


def save(file: Path, model: nn.Module, *, prefix: str = "", **changed: Tensor) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    state = {prefix + key: tensor for key, tensor in model.state_dict().items()} | changed
    torch.save({"state_dict": OrderedDict(state)}, file)


def old_folder(folder: Path) -> Path:
    """One file by each pattern, the one of epoch 2 from a compiled model, that of epoch 3 a bare state dict."""
    for epoch, name in FILES.items():
        save(folder / name, net(epoch), prefix="_orig_mod." if epoch == 2 else "")
    torch.save(net(3).state_dict(), folder / FILES[3])
    (folder / "notes.txt").write_text("nothing")
    return folder


def given(place: Path, **more: Any) -> ImportConfig:
    return ImportConfig(**{"folder": str(place), "dataset": "digits", "activation": "relu", "device": "cpu", **more})
