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
from tests.support.refusals import Prepare, Scene, table

TABLE = """
import_checkpoints --dataset digits | folder='' | a folder of old checkpoint files | set folder=FOLDER
import_checkpoints --dataset digits --folder nowhere | folder=…nowhere (No such file or directory)
    | a readable folder of old checkpoint files | check the path; relative paths start at the
[old_checkpoint]
import_checkpoints $as --folder one/model_epoch_0.pth | (Not a directory) | a readable folder of old checkpoint files
    | check the path; relative paths start at the
import_checkpoints $as --folder . | folder=. (no checkpoint file in it) | [models/]model_epoch_E.pth
    | choose a folder that holds such files
import_checkpoints --folder one --activation relu | model_epoch_0.pth, whose name does not state dataset
    | dataset: digits, svhn, fashion-mnist, cifar10 | give dataset=…
import_checkpoints --folder one --dataset digits | model_epoch_0.pth, whose name does not state activation
    | activation: relu, sigmoid, leaky_relu, sine | give activation=
import_checkpoints $as --folder one --epochs 0-2 | epochs=0-2 (no file for 1, 2) | epochs with a file: 0
    | choose from these, or epochs=all
import_checkpoints $as --folder one --epochs last | 'last' | numbers, a-b, a-b/step, comma-separated
    | write, for example, 0-20,40,60,80,100
import_checkpoints --folder one --dataset digits --activation rely | activation='rely'
    | relu, sigmoid, leaky_relu, sine, tanh | activation=relu
import_checkpoints $as --folder one --width 16 | model_epoch_0.pth: width 8 in its tensors | width=16
    | correct or leave out width, or select one
import_checkpoints $as --folder one --depth 2 | model_epoch_0.pth: depth 3 in its tensors | depth=2
    | correct or leave out depth, or select one
import_checkpoints --folder one --dataset digits --activation relu --device gpu | device='gpu'
    | auto, cpu, cuda, cuda:N, or another device that has float64 | device=auto
import_checkpoints --folder one | model_epoch_0.pth, whose name does not state dataset and activation
    | dataset: digits, svhn, fashion-mnist | give dataset=…, activation=…
[old_checkpoint: pickled object]
import_checkpoints $as --folder three
    | model_epoch_1.pth (it needs pickle for …Pickled, and unpickling can run arbitrary code)
    | undamaged files of torch.save with tensors | copy it again, or leave its epoch out with
[old_checkpoint: pickled module]
import_checkpoints $as --folder three
    | model_epoch_1.pth (it needs pickle for …OldNet, and
    | undamaged files of torch.save with tensors | copy it again, or leave its epoch out with
[old_checkpoint: cut short]
import_checkpoints $as --folder three | model_epoch_1.pth (truncated, damaged, or not written by torch.save)
    | undamaged files of torch.save with tensors | copy it again, or leave its epoch out with
[old_checkpoint: empty]
import_checkpoints $as --folder three | model_epoch_1.pth (truncated, damaged, or not written by torch.save)
    | undamaged files of torch.save with tensors | copy it again, or leave its epoch out with
[old_checkpoint: a page]
import_checkpoints $as --folder three | model_epoch_1.pth (truncated, damaged, or not written by torch.save)
    | undamaged files of torch.save with tensors | copy it again, or leave its epoch out with
[old_checkpoint: a tensor]
import_checkpoints $as --folder three | (Tensor inside) | {'state_dict' | choose such a file
[old_checkpoint: numbers]
import_checkpoints $as --folder three | epoch_1.pth (dict inside) | {'state_dict': tensors by name}
    | choose such a file
[old_checkpoint: no middle]
import_checkpoints $as --folder three | epoch_1.pth without middle.0.1.weight | first.weight or first.0.weight
    | choose a file with every layer's weight
[old_checkpoint: no readout]
import_checkpoints $as --folder three | epoch_1.pth without last.1.weight | first.weight or first.0.weight
    | choose a file with every layer's weight
[old_checkpoint: a bias]
import_checkpoints $as --folder three | key last.1.bias (unknown) | first.weight or first.0.weight
    | only bias-free MLPs can be imported
[old_checkpoint: shapes]
import_checkpoints $as --folder three | epoch_1.pth: shapes …9] | [[8, 64], [8, 8], [8, 8], [10, 8]] for this
    | choose files of one MLP
[old_checkpoint: not finite]
import_checkpoints $as --folder three | model_epoch_1.pth: middle.0.1.weight (not all values are finite)
    | finite weights | leave its epoch out with epochs
[old_checkpoint: sparse]
import_checkpoints $as --folder three | model_epoch_1.pth: middle.0.1.weight (torch.sparse_coo, torch.float32
    | dense float32 matrices [out, in] | save it again in this form; weights are
[old_checkpoint: meta]
import_checkpoints $as --folder three | model_epoch_1.pth: middle.0.1.weight (without values, torch.float32
    | dense float32 matrices [out, in] | save it again in this form; weights are
[old_checkpoint: another width]
import_checkpoints $as --folder three | model_epoch_1.pth: width 9 in its tensors | width=8
    | correct or leave out width, or select one
[old_checkpoint: another depth]
import_checkpoints $as --folder three | model_epoch_1.pth: depth 2 in its tensors | depth=3
    | correct or leave out depth, or select one
[old_checkpoint: of other data]
import_checkpoints $as --folder other | a network of 3072 inputs and 10 outputs) with dataset=digits | 64
    | name the dataset that the network was
"""


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


def changed(key: str, tensor: Tensor) -> Callable[[Path], object]:
    tensors: dict[str, Any] = {key: tensor}
    return lambda file: save(file, net(1), **tensors)


def dumped(content: Any) -> Callable[[Path], object]:
    return lambda file: torch.save(content, file)


def of_other_data(scene: Scene) -> None:
    save(scene.folder / "other/model_epoch_0.pth", OldNet(2, F.relu, inputs=3072))


PREPARED: dict[str, Prepare] = {
    "pickled object": spoil(dumped({"state_dict": net(1).state_dict(), "options": Pickled()})),
    "pickled module": spoil(dumped(net(1))),
    "cut short": spoil(lambda file: file.write_bytes(file.read_bytes()[:-500])),
    "empty": spoil(lambda file: file.write_bytes(b"")),
    "a page": spoil(lambda file: file.write_text("<html>not found</html>")),
    "a tensor": spoil(dumped(torch.ones(3))),
    "numbers": spoil(dumped({"state_dict": {"first.weight": 3}})),
    "no middle": spoil(dumped(without("middle.0.1.weight"))),
    "no readout": spoil(dumped(without("last.1.weight"))),
    "a bias": spoil(changed("last.1.bias", torch.ones(10))),
    "shapes": spoil(changed("last.1.weight", torch.ones(10, 9))),
    "not finite": spoil(changed("middle.0.1.weight", torch.full((8, 8), math.nan))),
    "sparse": spoil(changed("middle.0.1.weight", torch.eye(8).to_sparse())),
    "meta": spoil(changed("middle.0.1.weight", torch.empty(8, 8, device="meta"))),
    "another width": spoil(lambda file: save(file, OldNet(3, F.relu, width=9))),
    "another depth": spoil(lambda file: save(file, net(1, depth=2))),
    "of other data": of_other_data,
}
ROWS = table(TABLE, PREPARED)
