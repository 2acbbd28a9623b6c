"""Models of images: ResNet, ViT, MLP-Mixer, U-Net."""

from typing import Any

import torch
import torch.nn as nn
from torch import Tensor

from nfa.workloads.probe import Probe
from tests.support.models.workloads import EXAMPLES, classifier, normal, squares
from tests.support.toy_models import seeded


class Block(nn.Module):
    def __init__(self, fewer: int, more: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(fewer, more, 3, stride, 1, bias=False), nn.BatchNorm2d(more)
        self.conv2, self.bn2 = nn.Conv2d(more, more, 3, 1, 1, bias=False), nn.BatchNorm2d(more)
        self.downsample = nn.Sequential(nn.Conv2d(fewer, more, 1, stride, bias=False), nn.BatchNorm2d(more))
        self.act = nn.GELU()

    def forward(self, x: Tensor) -> Tensor:
        z = self.bn2(self.conv2(self.act(self.bn1(self.conv1(x)))))
        outputs: Tensor = self.act(z + self.downsample(x))
        return outputs


class ResNet(nn.Module):
    """He et al. 2015, with two blocks and dropout before the readout; running statistics as after some training."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(2, 3, 3, 1, 1, bias=False), nn.BatchNorm2d(3)
        self.layer1, self.layer2 = Block(3, 3, 1), Block(3, 4, 2)
        self.dropout, self.fc = nn.Dropout(0.2), nn.Linear(4, 3)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                assert module.running_mean is not None
                assert module.running_var is not None
                nn.init.uniform_(module.running_mean, -0.5, 0.5)
                nn.init.uniform_(module.running_var, 0.5, 2)
                nn.init.uniform_(module.weight, 0.5, 1.5)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.layer2(self.layer1(torch.tanh(self.bn1(self.conv1(x)))))
        outputs: Tensor = self.fc(self.dropout(hidden.mean(dim=(2, 3))))
        return outputs


def resnet() -> Probe:
    return classifier(seeded(ResNet), normal(EXAMPLES, 2, 6, 6), 3)


def vit() -> Probe:
    from transformers import ViTConfig, ViTForImageClassification

    options: dict[str, Any] = {"num_labels": 3}
    config = ViTConfig(
        hidden_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=12,
        image_size=6,
        patch_size=3,
        num_channels=2,
        initializer_range=0.3,
        **options,
    )
    return classifier(seeded(ViTForImageClassification, config), normal(EXAMPLES, 2, 6, 6), 3)


class Mixing(nn.Module):
    def __init__(self, tokens: int, channels: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.token_mlp = nn.Sequential(nn.Linear(tokens, 5), nn.GELU(), nn.Linear(5, tokens))
        self.channel_mlp = nn.Sequential(nn.Linear(channels, 7), nn.GELU(), nn.Linear(7, channels))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.token_mlp(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        outputs: Tensor = x + self.channel_mlp(self.norm2(x))
        return outputs


class Mixer(nn.Module):
    """Tolstikhin et al. 2021: linear maps along the patches and along the channels in turn."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.blocks = nn.Conv2d(2, 4, 2, 2), nn.Sequential(Mixing(9, 4), Mixing(9, 4))
        self.norm, self.head = nn.LayerNorm(4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.blocks(self.embed(x).flatten(2).transpose(1, 2))
        outputs: Tensor = self.head(self.norm(hidden).mean(dim=1))
        return outputs


def mixer() -> Probe:
    return classifier(seeded(Mixer), normal(EXAMPLES, 2, 6, 6), 3)


class UNet(nn.Module):
    """Ronneberger et al. 2015: down by strides, up by transposed convolutions, with what was before beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.down1 = nn.Conv2d(1, 2, 3, padding=1), nn.Conv2d(2, 3, 3, 2, 1)
        self.down2, self.up2 = nn.Conv2d(3, 4, 2, 2), nn.ConvTranspose2d(4, 3, 2, 2)
        self.merge2, self.up1 = nn.Conv2d(6, 3, 3, padding=1), nn.ConvTranspose2d(3, 2, 3, 2, 1, output_padding=1)
        self.merge1, self.leave = nn.Conv2d(4, 2, 3, padding=1), nn.Conv2d(2, 1, 1)
        self.norm = nn.GroupNorm(1, 3)

    def forward(self, x: Tensor) -> Tensor:
        first = torch.tanh(self.enter(x))
        second = torch.tanh(self.norm(self.down1(first)))
        third = torch.tanh(self.down2(second))
        up = torch.tanh(self.merge2(torch.cat([self.up2(third), second], dim=1)))
        up = torch.tanh(self.merge1(torch.cat([self.up1(up), first], dim=1)))
        outputs: Tensor = self.leave(up)
        return outputs


def unet() -> Probe:
    """Segments images of 4 × 4."""
    return Probe(seeded(UNet), squares, normal(EXAMPLES, 1, 4, 4), normal(EXAMPLES, 1, 4, 4, seed=3))


class Volumes(nn.Module):
    """Conv3d and ConvTranspose3d, the latter in groups."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.up = nn.Conv3d(1, 2, 2, 2), nn.ConvTranspose3d(2, 2, 2, 2, groups=2)
        self.head = nn.Linear(2, 3)

    def forward(self, x: Tensor) -> Any:
        return self.head(torch.tanh(self.up(torch.tanh(self.down(x)))).mean(dim=(2, 3, 4)))


def volumes() -> Probe:
    return classifier(seeded(Volumes), normal(EXAMPLES, 1, 4, 4, 4), 3)
