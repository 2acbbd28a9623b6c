"""Recurrent layers written out step by step, because the products in PyTorch's fused functions cannot be recorded."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Cell = Callable[[Tensor, tuple[Tensor, ...], Tensor, Tensor | None], tuple[Tensor, ...]]


def _lstm(gates: Tensor, state: tuple[Tensor, ...], w_hh: Tensor, b_hh: Tensor | None) -> tuple[Tensor, ...]:
    i, f, g, o = (gates + F.linear(state[0], w_hh, b_hh)).chunk(4, dim=-1)
    c = torch.sigmoid(f) * state[1] + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


def _gru(gates: Tensor, state: tuple[Tensor, ...], w_hh: Tensor, b_hh: Tensor | None) -> tuple[Tensor, ...]:
    (r, z, n), (r_h, z_h, n_h) = gates.chunk(3, dim=-1), F.linear(state[0], w_hh, b_hh).chunk(3, dim=-1)
    z = torch.sigmoid(z + z_h)
    return ((1 - z) * torch.tanh(n + torch.sigmoid(r + r_h) * n_h) + z * state[0],)


def _elman(activation: Callable[[Tensor], Tensor]) -> Cell:
    return lambda gates, state, w_hh, b_hh: (activation(gates + F.linear(state[0], w_hh, b_hh)),)


def _layer(x: Tensor, state: tuple[Tensor, ...], weights: Sequence[Tensor], cell: Cell, back: bool) -> Any:
    """Run [s, n, i] through one direction of a layer with weights W_ih, W_hh and, with biases, b_ih, b_hh."""
    w_ih, w_hh, b_ih, b_hh = [*weights, None, None][:4]
    steps = F.linear(x, w_ih, b_ih).unbind(0)  # type: ignore[arg-type]
    found = []
    for gates in reversed(steps) if back else steps:
        state = cell(gates, state, w_hh, b_hh)  # type: ignore[arg-type]
        found.append(state[0])
    return torch.stack(found[::-1] if back else found), state


def _sequence(cell: Cell) -> Callable[..., Any]:
    def run(
        x: Tensor, first: Any, weights: Sequence[Tensor], biases: bool, layers: int, dropout: float, train: bool,
        both: bool, batch_first: bool,
    ) -> Any:  # fmt: skip
        x = x.transpose(0, 1) if batch_first else x
        ends: list[tuple[Tensor, ...]] = []
        states, each = _tensors(first), 4 if biases else 2
        for layer in range(layers):
            x = F.dropout(x, dropout, train and layer > 0)
            made: list[Tensor] = []
            for place in range(layer * (1 + both), (layer + 1) * (1 + both)):
                own = weights[place * each : (place + 1) * each]
                out, end = _layer(x, tuple(state[place] for state in states), own, cell, both and place % 2 == 1)
                made, ends = [*made, out], [*ends, end]
            x = torch.cat(made, dim=-1)
        return x.transpose(0, 1) if batch_first else x, *(torch.stack(of) for of in zip(*ends, strict=True))

    return run


def _single(cell: Cell) -> Callable[..., Any]:
    def run(x: Tensor, first: Any, w_ih: Tensor, w_hh: Tensor, b_ih: Any = None, b_hh: Any = None) -> Any:
        state = cell(F.linear(x, w_ih, b_ih), _tensors(first), w_hh, b_hh)
        return state if len(state) > 1 else state[0]

    return run


def _tensors(state: Any) -> tuple[Tensor, ...]:
    return (state,) if isinstance(state, Tensor) else tuple(state)


def is_plain(args: Sequence[Any]) -> bool:
    """Tell whether a call can be written out: examples in one tensor, and no projection of the state."""
    if len(args) == 9 and isinstance(args[3], bool):  # a whole sequence; a packed one has its sizes first
        weights = len(args[2]) == args[4] * (1 + args[7]) * (4 if args[3] else 2)
        return weights and isinstance(args[0], Tensor) and args[0].ndim == 3
    return len(args) in (4, 6) and all(isinstance(one, Tensor | None) for one in args[2:])


def _cells() -> Iterator[tuple[str, Cell]]:
    yield from {"lstm": _lstm, "gru": _gru, "rnn_tanh": _elman(torch.tanh), "rnn_relu": _elman(torch.relu)}.items()


WRITTEN_OUT: dict[Callable[..., Any], Callable[..., Any]] = {
    **{getattr(torch, name): _sequence(cell) for name, cell in _cells()},
    **{getattr(torch, f"{name}_cell"): _single(cell) for name, cell in _cells()},
}
