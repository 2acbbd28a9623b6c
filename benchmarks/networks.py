"""Networks of the benchmarks, with simulated examples and a loss for each example."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from nfa.seeding import untouched

CLASSES, VOCABULARY, POSITIONS = 10, 256, 128
Activation = Callable[[Tensor], Tensor]


class Examples(NamedTuple):
    """Inputs and targets, one row an example."""

    inputs: Tensor
    targets: Tensor


class Block(nn.Module):
    """Two 3 × 3 convolutions with GroupNorm, and a path around them."""

    def __init__(self, c_in: int, c_out: int, stride: int, activation: Activation) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False), nn.GroupNorm(8, c_out)
        self.conv2, self.norm2 = nn.Conv2d(c_out, c_out, 3, 1, 1, bias=False), nn.GroupNorm(8, c_out)
        same = c_in == c_out and stride == 1
        self.around = nn.Identity() if same else nn.Conv2d(c_in, c_out, 1, stride, bias=False)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm2(self.conv2(self.activation(self.norm1(self.conv1(x)))))
        return self.activation(h + self.around(x))


class ResNet(nn.Module):
    """A residual network for images of 32 × 32 pixels; every stage but the first starts with stride 2."""

    def __init__(self, widths: tuple[int, ...], blocks: int = 3, activation: Activation = F.relu) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, widths[0], 3, 1, 1, bias=False), nn.GroupNorm(8, widths[0])
        layers, before = [], widths[0]
        for stage, width in enumerate(widths):
            for place in range(blocks):
                layers.append(Block(before, width, 2 if stage and not place else 1, activation))
                before = width
        self.body, self.head, self.activation = nn.Sequential(*layers), nn.Linear(before, CLASSES), activation

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.body(self.activation(self.norm(self.stem(x)))).mean(dim=(2, 3)))
        return logits


class ConvNet(nn.Module):
    """Convolutions with GroupNorm, every second one with stride 2, for images of 32 × 32 pixels."""

    def __init__(
        self, widths: tuple[int, ...] = (32, 64, 64, 128, 128), activation: Callable[[], nn.Module] = nn.ReLU
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for index, (c_in, c_out) in enumerate(pairwise((3, *widths))):
            convolution = nn.Conv2d(c_in, c_out, 3, stride=1 + index % 2, padding=1)
            layers += [convolution, nn.GroupNorm(8, c_out), activation()]
        self.body, self.head = nn.Sequential(*layers), nn.Linear(widths[-1], CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.body(x).mean(dim=(2, 3)))
        return logits


class TransformerBlock(nn.Module):
    """Attention and a GELU network of four times the width, each after LayerNorm and with a path around it."""

    def __init__(self, d: int, heads: int, *, causal: bool) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.norm1, self.qkv, self.out = nn.LayerNorm(d), nn.Linear(d, 3 * d), nn.Linear(d, d)
        self.norm2, self.up, self.down = nn.LayerNorm(d), nn.Linear(d, 4 * d), nn.Linear(4 * d, d)

    def forward(self, x: Tensor) -> Tensor:
        n, t, d = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(n, t, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        x = x + self.out(attended.transpose(1, 2).reshape(n, t, d))
        after: Tensor = x + self.down(F.gelu(self.up(self.norm2(x))))
        return after


class ViT(nn.Module):
    """A vision transformer with 64 patches of 4 × 4 pixels and a class token."""

    def __init__(self, d: int, depth: int = 6, heads: int = 4) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, d, 4, 4)
        self.token = nn.Parameter(torch.randn(1, 1, d) * 0.02)
        self.position = nn.Parameter(torch.randn(1, 65, d) * 0.02)
        self.body = nn.Sequential(*[TransformerBlock(d, heads, causal=False) for _ in range(depth)])
        self.norm, self.head = nn.LayerNorm(d), nn.Linear(d, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        patches = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), patches], dim=1) + self.position
        logits: Tensor = self.head(self.norm(self.body(x))[:, 0])
        return logits


class GPT(nn.Module):
    """A causal transformer over bytes, with learned positions and a readout of its own."""

    def __init__(self, d: int = 128, depth: int = 4, heads: int = 4, length: int = POSITIONS) -> None:
        super().__init__()
        self.embedding, self.position = nn.Embedding(VOCABULARY, d), nn.Embedding(length, d)
        self.body = nn.Sequential(*[TransformerBlock(d, heads, causal=True) for _ in range(depth)])
        self.norm, self.head = nn.LayerNorm(d), nn.Linear(d, VOCABULARY, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        places = torch.arange(x.shape[1], device=x.device)
        logits: Tensor = self.head(self.norm(self.body(self.embedding(x) + self.position(places))))
        return logits


def mlp(
    sizes: tuple[int, ...] = (3072, *[1024] * 5, CLASSES), activation: Callable[[], nn.Module] = nn.ReLU
) -> nn.Module:
    """Linear layers without bias, with an activation after each but the last."""
    layers: list[nn.Module] = []
    for i, o in pairwise(sizes):
        layers += [nn.Linear(i, o, bias=False), activation()]
    return nn.Sequential(*layers[:-1])


def images(n: int, side: int = 32) -> Examples:
    """Simulated images with three channels."""
    return Examples(torch.randn(n, 3, side, side), torch.randint(0, CLASSES, (n,)))


def vectors(n: int, size: int = 3072) -> Examples:
    """Simulated vectors."""
    return Examples(torch.randn(n, size), torch.randint(0, CLASSES, (n,)))


def texts(n: int, length: int = POSITIONS) -> Examples:
    """Simulated bytes, and the byte after each."""
    drawn = torch.randint(0, VOCABULARY, (n, length + 1))
    return Examples(drawn[:, :-1], drawn[:, 1:])


def losses(outputs: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of each example [n]; of texts, the mean over positions."""
    if outputs.ndim == 3:
        return F.cross_entropy(outputs.transpose(1, 2), targets, reduction="none").mean(dim=1)
    return F.cross_entropy(outputs, targets, reduction="none")


@dataclass(frozen=True)
class Case:
    """A network and its examples."""

    network: Callable[[], nn.Module]
    examples: Callable[[int], Examples]

    def build(self, n: int, device: torch.device | str = "cpu") -> tuple[nn.Module, Examples]:
        """Return the model in evaluation mode and n examples, the same at every call and on every device."""
        with untouched():
            torch.manual_seed(0)
            model, examples = self.network(), self.examples(n)
        return model.eval().to(device), Examples(*(part.to(device) for part in examples))


CASES: Mapping[str, Case] = {
    "ResNet 16/32/64": Case(partial(ResNet, (16, 32, 64)), images),
    "ConvNet": Case(ConvNet, images),
    "ResNet 64/128/256": Case(partial(ResNet, (64, 128, 256), 2), images),
    "ResNet 64/128/256/512": Case(partial(ResNet, (64, 128, 256, 512), 2), images),
    "ViT, d = 64": Case(partial(ViT, 64), images),
    "ViT, d = 128": Case(partial(ViT, 128), images),
    "ViT, d = 192": Case(partial(ViT, 192), images),
    "GPT, d = 128": Case(GPT, texts),
    "MLP 3072-1024×5-10": Case(mlp, vectors),
}
