"""Self-attention with learnable relative positions, without a tensor of a vector for each pair of positions."""

import math

import torch
import torch.nn as nn
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

QUERIES = 64  # of a block


class RelativeAttention(nn.Module):
    """Multi-head self-attention with learnable relative positions: score_ij = q_i·(k_j + E_{i−j})/√d_k.

    z_i = W_o (Σ_j softmax_j(score_ij) v_j, heads side by side) + b_o. `query`, `key`, `value` and `output` are Linear
    layers [d_model d_model] with biases. `positions` is E [2·max_distance + 1, d_k], one table for all heads, drawn
    from N(0, 1/d_k); row r is of distance i − j = max_distance − r, keys furthest in the past first. Shaw et al. 2018,
    arXiv 1803.02155, for keys, without a limit on distances.
    """

    def __init__(self, d_model: int, n_head: int, max_distance: int = 999) -> None:
        super().__init__()
        if d_model % n_head:
            raise ValueError(f"d_model {d_model} does not divide into {n_head} heads")
        self.n_head, self.max_distance, self.block = n_head, max_distance, QUERIES
        self.query, self.key, self.value, self.output = (nn.Linear(d_model, d_model) for _ in range(4))
        d_k = d_model // n_head
        self.positions = nn.Parameter(torch.empty(2 * max_distance + 1, d_k))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the table anew."""
        nn.init.normal_(self.positions, std=self.positions.shape[1] ** -0.5)

    def forward(self, x: Tensor) -> Tensor:
        """z [n T d_model] of x [n T d_model], T from 1 to max_distance + 1; ValueError for others."""
        n, length, d_model = x.shape
        if not 1 <= length <= self.max_distance + 1:
            raise ValueError(f"{length} positions, where there may be 1 to {self.max_distance + 1}")
        q, k, v = (self._heads(layer(x)) for layer in (self.query, self.key, self.value))
        mixed = relative_attention(q, k, v, self.positions, block=self.block)
        merged = mixed.reshape(n, self.n_head, length, d_model // self.n_head).transpose(1, 2)
        z: Tensor = self.output(merged.reshape(n, length, d_model))
        return z

    def _heads(self, x: Float[Tensor, "n T d"]) -> Float[Tensor, "nh T k"]:
        n, length, d_model = x.shape
        split = x.reshape(n, length, self.n_head, d_model // self.n_head).transpose(1, 2)
        return split.reshape(n * self.n_head, length, d_model // self.n_head)


def relative_attention(
    q: Float[Tensor, "b T k"],
    k: Float[Tensor, "b T k"],
    v: Float[Tensor, "b T o"],
    positions: Float[Tensor, "r k"],
    *,
    block: int = QUERIES,
) -> Float[Tensor, "b T o"]:
    """Σ_j softmax_j(q_i·(k_j + E_{i−j})/√k) v_j for b heads, E as in `RelativeAttention`, `block` queries at a time.

    Memory beside the attention weights [b T T], which the gradients need: one block's scores [b block T+block−1].
    """
    length, zero = q.shape[1], len(positions) // 2  # the row of distance 0
    keys, mixed = k.transpose(1, 2), []
    for start, some in zip(range(0, length, block), (q / math.sqrt(q.shape[2])).split(block, dim=1), strict=True):
        furthest = zero + 1 - start - some.shape[1]  # the row for the last query and the first key
        scores = _shifted(F.linear(some, positions[furthest : zero - start + length]))
        mixed.append(torch.bmm(torch.baddbmm(scores, some, keys).softmax(dim=2), v))
    return torch.cat(mixed, dim=1)


def _shifted(scores: Float[Tensor, "b q w"]) -> Float[Tensor, "b q T"]:
    """Entries (i, q − 1 − i + j) of products of q queries with the w = T + q − 1 rows that they need, as views.

    In memory these are i·(w − 1) + j after entry q − 1: a matrix with rows of w − 1 entries.
    """
    queries, rows = scores.shape[1:]
    if queries == 1:
        return scores
    flat = scores.flatten(1)[:, queries - 1 : queries - 1 + queries * (rows - 1)]
    shifted: Tensor = flat.unflatten(1, (queries, rows - 1))[:, :, : rows - queries + 1]
    return shifted
