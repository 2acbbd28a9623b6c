"""Self-attention with relative positions, one example, head and query at a time."""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor


def relative_attention(
    inputs: Float[Tensor, "n s i"], parameters: Mapping[str, Tensor], heads: int
) -> Float[Tensor, "n s i"]:
    """Compute W_o z + b_o with z_i = Σ_j softmax_j(q_i·(k_j + E_{i−j})/√d) v_j in each head of d = i/heads features.

    Shaw et al. 2018, arXiv 1803.02155. Gradients flow to inputs and parameters.

    Args:
        inputs: The inputs [n, s, i].
        parameters: {query|key|value|output}.{weight|bias}, and positions [2m+1, d], whose row m − (i − j) is E_{i−j}.
        heads: The number of heads.

    Returns:
        The outputs [n, s, i].
    """
    double = {name: parameter.double() for name, parameter in parameters.items()}
    rows = []
    for x in inputs.double():
        q, k, v = (x @ double[f"{part}.weight"].T + double[f"{part}.bias"] for part in ("query", "key", "value"))
        parts = zip(q.chunk(heads, dim=1), k.chunk(heads, dim=1), v.chunk(heads, dim=1), strict=True)
        mixed = torch.cat([_head(*part, double["positions"]) for part in parts], dim=1)
        rows.append(mixed @ double["output.weight"].T + double["output.bias"])
    return torch.stack(rows)


def _head(q: Tensor, k: Tensor, v: Tensor, positions: Tensor) -> Float[Tensor, "s d"]:
    furthest = (len(positions) - 1) // 2
    mixed = []
    for i in range(len(q)):
        E = torch.stack([positions[furthest - (i - j)] for j in range(len(k))])
        scores = (k + E) @ q[i] / q.shape[1] ** 0.5
        weights = torch.exp(scores - scores.max())
        mixed.append(weights @ v / weights.sum())
    return torch.stack(mixed)
