"""What `import_checkpoints` refuses."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.support.old_checkpoints import OldNet, net, save
from tests.support.refusals import Scene, cases, table

WORDS = table("""
import_checkpoints --dataset digits | folder='' | … | give folder=FOLDER
import_checkpoints --dataset digits --folder nowhere | folder=…nowhere (No such file or directory)
""")
ASKED = table(
    """
import_checkpoints $as --folder one/model_epoch_0.pth | (Not a directory)
import_checkpoints $as --folder . | folder=. (no checkpoint file in it)
import_checkpoints --folder one --activation relu | model_epoch_0.pth without dataset in its name
import_checkpoints --folder one --dataset digits | without activation in its name | … | give activation=
import_checkpoints $as --folder one --epochs 0-2 | epochs=0-2 (no file for 1, 2) | epochs with a file: 0
import_checkpoints $as --folder one --epochs last | 'last'
import_checkpoints --folder one --dataset digits --activation rely | activation='rely' | … | activation=relu
import_checkpoints $as --folder one --width 16 | model_epoch_0.pth: width 8 in its tensors | width=16
import_checkpoints $as --folder one --depth 2 | model_epoch_0.pth: depth 3 in its tensors | depth=2
import_checkpoints --folder one --dataset digits --activation relu --device gpu | device='gpu'
import_checkpoints --folder one | model_epoch_0.pth without …in its name
""",
    scene="old_checkpoint",
)


@dataclass
class Pickled:
    """Something that only pickle can bring back."""

    learning_rate: float = 0.1


def without(key: str) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in net(1).state_dict().items() if name != key}


def spoil(damage: Callable[[Path], object]) -> Callable[[Scene], object]:
    """Three files, the second of which is damaged."""

    def make(scene: Scene) -> None:
        for epoch in (0, 1, 2):
            save(scene.folder / f"three/model_epoch_{epoch}.pth", net(epoch))
        damage(scene.folder / "three/model_epoch_1.pth")

    return make


def changed(**tensors: Tensor) -> Callable[[Path], object]:
    return lambda file: save(file, net(1), **{name.replace("_", "."): tensor for name, tensor in tensors.items()})


def dumped(content: Any) -> Callable[[Path], object]:
    return lambda file: torch.save(content, file)


BROKEN = "model_epoch_1.pth (truncated, damaged, or not written by torch.save)"
DAMAGED: dict[str, tuple[Callable[[Path], object], str]] = {
    "pickled object": (
        lambda file: torch.save({"state_dict": net(1).state_dict(), "options": Pickled()}, file),
        "model_epoch_1.pth (it needs pickle for …Pickled, and unpickling can run arbitrary code)",
    ),
    "pickled module": (lambda file: torch.save(net(1), file), "it needs pickle for …OldNet"),
    "truncated": (lambda file: file.write_bytes(file.read_bytes()[:-500]), BROKEN),
    "empty": (lambda file: file.write_bytes(b""), BROKEN),
    "a page": (lambda file: file.write_text("<html>not found</html>"), BROKEN),
    "a tensor": (dumped(torch.ones(3)), "(Tensor inside) | {'state_dict'"),
    "numbers": (dumped({"state_dict": {"first.weight": 3}}), "epoch_1.pth (dict inside)"),
    "no middle": (
        lambda file: torch.save(without("middle.0.1.weight"), file),
        "epoch_1.pth without middle.0.1.weight",
    ),
    "no readout": (lambda file: torch.save(without("last.1.weight"), file), "epoch_1.pth without last.1.weight"),
    "a bias": (changed(last_1_bias=torch.ones(10)), "key last.1.bias (unknown)"),
    "shapes": (changed(last_1_weight=torch.ones(10, 9)), "epoch_1.pth: shapes …9]"),
    "not finite": (
        changed(middle_0_1_weight=torch.full((8, 8), math.nan)),
        "model_epoch_1.pth: middle.0.1.weight (not all values are finite)",
    ),
    "sparse": (
        changed(middle_0_1_weight=torch.eye(8).to_sparse()),
        "model_epoch_1.pth: middle.0.1.weight (torch.sparse_coo, torch.float32",
    ),
    "meta": (
        changed(middle_0_1_weight=torch.empty(8, 8, device="meta")),
        "model_epoch_1.pth: middle.0.1.weight (without values, torch.float32",
    ),
    "another width": (
        lambda file: save(file, OldNet(3, F.relu, width=9)),
        "model_epoch_1.pth: width 9 in its tensors | width=8",
    ),
    "another depth": (lambda file: save(file, net(1, depth=2)), "model_epoch_1.pth: depth 2 in its tensors | depth=3"),
}


def of_other_data(scene: Scene) -> None:
    save(scene.folder / "other/model_epoch_0.pth", OldNet(2, F.relu, inputs=3072))


ROWS = [
    *WORDS,
    *ASKED,
    *cases(
        "import_checkpoints $as --folder three",
        {name: (spoil(damage), said) for name, (damage, said) in DAMAGED.items()},
        scene="old_checkpoint",
    ),
    *table(
        "import_checkpoints $as --folder other | a network of 3072 inputs and 10 outputs) with dataset=digits | 64",
        scene="old_checkpoint",
        prepare=of_other_data,
    ),
]
