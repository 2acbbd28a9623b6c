"""What is measured: on an accelerator, and in the small version that the tests run on a processor."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import torch.nn as nn

from benchmarks.networks import CASES, CLASSES, Case, ConvNet, ViT, images, mlp, vectors


@dataclass(frozen=True)
class LlamaShape:
    """The shape of a language model, and of a step that fine-tunes it."""

    name: str
    hidden: int
    inner: int
    layers: int
    heads: int
    key_value_heads: int
    vocabulary: int
    questions: int
    tokens: int


@dataclass(frozen=True)
class Plan:
    """Networks and sizes.

    Attributes:
        values: Networks whose values are compared. They are smooth: a ReLU input that is nearly 0 has another sign on
            another device, and changes values by more than rounding does.
        examples: Their number of examples.
        speed: Networks whose Gram matrix is timed, small ones first.
        sizes: Their numbers of examples.
        agop: The network whose AGOP is timed, made of linear layers and ReLU.
        agop_examples: Its number of examples.
        language: The language model.
        seconds: After so many seconds nothing further is begun.
    """

    values: Mapping[str, Case]
    examples: int
    speed: Mapping[str, Case]
    sizes: tuple[int, ...]
    agop: Case
    agop_examples: int
    language: LlamaShape
    seconds: float


SMOOTH = {
    "MLP 256×3-10": Case(partial(mlp, (256, 256, 256, CLASSES), nn.GELU), partial(vectors, size=256)),
    "ConvNet": Case(partial(ConvNet, activation=nn.GELU), images),
    "ViT, d = 64": Case(partial(ViT, 64, 2), images),
}
SMALLEST_FIRST = (
    "MLP 3072-1024×5-10", "ResNet 16/32/64", "ConvNet", "ViT, d = 64", "ViT, d = 128", "GPT, d = 128", "ViT, d = 192",
    "ResNet 64/128/256", "ResNet 64/128/256/512",
)  # fmt: skip
FULL = Plan(
    values=SMOOTH,
    examples=32,
    speed={name: CASES[name] for name in SMALLEST_FIRST},
    sizes=(32, 128),
    agop=CASES["MLP 3072-1024×5-10"],
    agop_examples=2000,
    language=LlamaShape("SmolLM2-135M", 576, 1536, 30, 9, 3, 49152, questions=16, tokens=256),
    seconds=200,
)
TINY = Case(partial(mlp, (12, 8, 8, CLASSES)), partial(vectors, size=12))
SMALL = Plan(
    values={
        "MLP 12-8×2-10": Case(partial(mlp, (12, 8, 8, CLASSES), nn.GELU), partial(vectors, size=12)),
        "ConvNet": Case(partial(ConvNet, (16, 16), nn.GELU), partial(images, side=6)),
    },
    examples=6,
    speed={"MLP 12-8×2-10": TINY, "ViT, d = 16": Case(partial(ViT, 16, 1, 2), images)},
    sizes=(4,),
    agop=TINY,
    agop_examples=8,
    language=LlamaShape("tiny", 16, 32, 2, 2, 1, 64, questions=4, tokens=8),
    seconds=60,
)
