"""A Conformer in evaluation mode, one example and one time step at a time, computed from its parameters alone."""

import math
from collections.abc import Mapping

import torch
from jaxtyping import Float, Int
from torch import Tensor

from nfa.reference.attention import relative_attention

State = Mapping[str, Tensor]


def conformer(
    state: State,
    eeg: Float[Tensor, "n s c"],
    subjects: Int[Tensor, " n"],
    *,
    blocks: int,
    heads: int,
    positions: bool,
    squeeze_excitation: bool,
    subject: bool,
    residual: str,
    mlp_head: bool,
) -> Float[Tensor, "n s 1"]:
    """Return the decoded envelope of each window.

    Gradients flow to `state` and `eeg`, without any factor.

    Args:
        state: The network's parameters and running statistics by name.
        eeg: Windows of EEG [n, s, c].
        subjects: The subject of each window [n]; −1 is an unknown subject, whose vector is the mean of all.
        blocks: The number of Conformer blocks.
        heads: The number of attention heads.
        positions: Whether sinusoidal positions are added.
        squeeze_excitation: Whether channels are rescaled by squeeze and excitation.
        subject: Whether a vector of the subject is added.
        residual: What becomes of the stack's input c and output y: "none" for y, "sum" for y + c, "gate" for g·y + (1 −
            g)·c.
        mlp_head: Whether the readout has a hidden layer.

    Returns:
        The envelope [n, s, 1].
    """
    double = {name: value.double() if value.is_floating_point() else value for name, value in state.items()}
    decoded = []
    for x, who in zip(eeg.double(), subjects.tolist(), strict=True):
        x = _embedded(x, who, double, squeeze_excitation=squeeze_excitation, subject=subject)
        x = x + _waves(*x.shape) if positions else x
        y = x
        for index in range(blocks):
            y = _block(y, _inside(double, f"layer_stack.{index}"), heads)
        if residual == "sum":
            y = y + x
        if residual == "gate":
            hidden = _linear(y.mean(dim=0), _inside(double, "gate.reduce")).clamp(min=0)
            gate = 1 / (1 + torch.exp(-_linear(hidden, _inside(double, "gate.expand"))))
            y = gate * y + (1 - gate) * x
        decoded.append(_mlp_head(y, _inside(double, "head")) if mlp_head else _linear(y, _inside(double, "head")))
    return torch.stack(decoded)


def _embedded(x: Tensor, who: int, state: State, *, squeeze_excitation: bool, subject: bool) -> Float[Tensor, "s d"]:
    for layer in range(3):
        x = _convolution(x, _inside(state, f"cnn.convs.{layer}"))
        x = _leaky(_layer_norm(x, _inside(state, f"cnn.norms.{layer}")))
    if squeeze_excitation:
        squeezed = _leaky(state["se.squeeze.weight"] @ x.mean(dim=0))
        x = x / (1 + torch.exp(-(state["se.excite.weight"] @ squeezed)))
    if not subject:
        return x
    vectors = state["subject.weight"]
    return x + (vectors[:, who] if who >= 0 else vectors.mean(dim=1)) + state["subject.bias"]


def _block(x: Float[Tensor, "s d"], state: State, heads: int) -> Float[Tensor, "s d"]:
    x = x + 0.5 * _feed_forward(x, _inside(state, "ffn_in"))
    normal = _layer_norm(x, _inside(state, "attention_norm"))
    x = x + relative_attention(normal[None], _inside(state, "attention"), heads)[0]
    x = x + _convolution_module(x, _inside(state, "convolution"))
    x = x + 0.5 * _feed_forward(x, _inside(state, "ffn_out"))
    return _layer_norm(x, _inside(state, "norm"))


def _feed_forward(x: Tensor, state: State) -> Tensor:
    hidden = _linear(_layer_norm(x, _inside(state, "norm")), _inside(state, "expand"))
    return _linear(_swish(hidden), _inside(state, "contract"))


def _convolution_module(x: Tensor, state: State) -> Tensor:
    wide = _linear(_layer_norm(x, _inside(state, "norm")), _inside(state, "expand"))
    half = wide.shape[1] // 2
    gated = wide[:, :half] / (1 + torch.exp(-wide[:, half:]))
    depthwise = _inside(state, "depthwise")
    full = {"weight": torch.diag_embed(depthwise["weight"][:, 0].T).permute(1, 2, 0), "bias": depthwise["bias"]}
    x = _convolution(gated, full)
    batch = _inside(state, "batch_norm")
    x = (x - batch["running_mean"]) / torch.sqrt(batch["running_var"] + 1e-5) * batch["weight"] + batch["bias"]
    return _linear(_swish(x), _inside(state, "contract"))


def _mlp_head(x: Tensor, state: State) -> Tensor:
    hidden = _linear(_layer_norm(x, _inside(state, "norm")), _inside(state, "hidden"))
    return _linear(hidden * (1 + torch.erf(hidden / math.sqrt(2))) / 2, _inside(state, "out"))


def _convolution(x: Float[Tensor, "s i"], state: State) -> Float[Tensor, "s o"]:
    """Return Σ_k W[:, :, k] x_{t + k − K//2} + b, with x zero before the start and after the end."""
    width, rows = state["weight"].shape[2], []
    for t in range(len(x)):
        total = state["bias"]
        for k in range(width):
            if 0 <= t + k - width // 2 < len(x):
                total = total + state["weight"][:, :, k] @ x[t + k - width // 2]
        rows.append(total)
    return torch.stack(rows)


def _linear(x: Tensor, state: State) -> Tensor:
    return x @ state["weight"].T + state["bias"]


def _layer_norm(x: Float[Tensor, "s d"], state: State) -> Float[Tensor, "s d"]:
    centred = x - x.mean(dim=1, keepdim=True)
    spread = torch.sqrt(centred.square().mean(dim=1, keepdim=True) + 1e-5)
    return centred / spread * state["weight"] + state["bias"]


def _leaky(x: Tensor) -> Tensor:
    return torch.where(x > 0, x, 0.01 * x)


def _swish(x: Tensor) -> Tensor:
    return x / (1 + torch.exp(-x))


def _waves(length: int, width: int) -> Float[Tensor, "s d"]:
    waves = torch.zeros(length, width, dtype=torch.float64)
    for t in range(length):
        for column in range(width):
            angle = t / 10_000 ** (2 * (column // 2) / width)
            waves[t, column] = math.cos(angle) if column % 2 else math.sin(angle)
    return waves


def _inside(state: State, path: str) -> State:
    return {name.removeprefix(f"{path}."): value for name, value in state.items() if name.startswith(f"{path}.")}
