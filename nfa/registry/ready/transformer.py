"""A small GPT for modular addition, or for predicting the next character of a text."""

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import TensorDataset

import nfa
from nfa.errors import Refusal, reading
from nfa.registry.folders import typed_folder


def transformer(
    task: str = "modular-addition", modulus: int = 31, text: str = "", context: int = 64, width: int = 64,
    heads: int = 4, depth: int = 2, seed: int = 0,
) -> nfa.Supervised:  # fmt: skip
    """Train a small GPT, with cross-entropy.

    80 % of the pairs (in random order) or of the text (in order) are trained on; 10 % each are for val and test.

    Args:
        task: "modular-addition" = predict a + b modulo `modulus` after "a b ="; "text" = predict the next character.
        modulus: The modulus of modular addition.
        text: A text file in UTF-8; empty = docstrings of Python's standard library, which come with nfa.
        context: Characters per example of text.
        width: Width of the residual stream, a multiple of `heads`.
        heads: Attention heads.
        depth: Transformer blocks.
        seed: Seed of the initial weights and of the order of pairs.
    """
    if task not in ("modular-addition", "text"):
        raise Refusal(f"task={task!r}", "modular-addition, text", "task=text")
    tokens, targets, vocabulary = _text(text, context) if task == "text" else _pairs(modulus, seed)
    parts = torch.arange(len(tokens)).tensor_split([len(tokens) * 8 // 10, len(tokens) * 9 // 10])
    train, val, test = (TensorDataset(tokens[ids], targets[ids]) for ids in parts)
    return nfa.Supervised(
        model=lambda: GPT(vocabulary, tokens.shape[1], width, heads, depth),
        loss=cross_entropy,
        train=train,
        val=val,
        test=test,
        metrics={"accuracy": accuracy},
        outputs=lambda model, inputs: model(inputs)[:, -targets.shape[1] :],  # only positions with a target
        present=lambda inputs: torch.ones_like(inputs, dtype=torch.bool),  # there is no padding
        seed=seed,
    )


def _pairs(modulus: int, seed: int) -> tuple[Tensor, Tensor, int]:
    pairs = torch.cartesian_prod(torch.arange(modulus), torch.arange(modulus))
    pairs = pairs[torch.randperm(len(pairs), generator=torch.Generator().manual_seed(seed))]
    return F.pad(pairs, (0, 1), value=modulus), pairs.sum(dim=1, keepdim=True) % modulus, modulus + 1


def _text(name: str, context: int) -> tuple[Tensor, Tensor, int]:
    file = typed_folder(name or f"{nfa.__path__[0]}/registry/families/language/stdlib/text.txt")
    with reading(f"text={file}", f"text in UTF-8, much longer than context={context} characters", "name another file"):
        letters, codes = torch.tensor([ord(letter) for letter in file.read_text("utf-8")]).unique(return_inverse=True)
        windows = codes.unfold(0, context + 1, context)
    return windows[:, :-1].contiguous(), windows[:, 1:].contiguous(), len(letters)


class GPT(nn.Module):
    """Causal transformer: tokens [n s] → logits [n s vocabulary] (Radford et al. 2019)."""

    def __init__(self, vocabulary: int, context: int, width: int, heads: int, depth: int) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(vocabulary, width), nn.Embedding(context, width)
        block = nn.TransformerEncoderLayer(width, heads, 4 * width, 0.0, "gelu", batch_first=True, norm_first=True)
        self.blocks = nn.TransformerEncoder(block, depth, enable_nested_tensor=False)
        self.readout = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, vocabulary))

    def forward(self, tokens: Tensor) -> Tensor:
        """Return logits [n s vocabulary]; there is no dropout."""
        hidden = self.tokens(tokens) + self.places.weight[: tokens.shape[1]]
        mask = nn.Transformer.generate_square_subsequent_mask(tokens.shape[1], tokens.device, hidden.dtype)
        logits: Tensor = self.readout(self.blocks(hidden, mask, is_causal=True))
        return logits


def cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the cross-entropy of each example, a mean over positions [n]."""
    return F.cross_entropy(outputs.transpose(1, 2), targets, reduction="none").mean(dim=1)


def accuracy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the share of positions of each example whose target has the largest output [n]."""
    return (outputs.argmax(dim=2) == targets).float().mean(dim=1)
