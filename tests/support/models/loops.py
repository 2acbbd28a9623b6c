"""Alignment of one layer by loops over examples, in float64, from tensors of a graph that the test has made itself."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn as nn
from torch import Tensor

from nfa.analyses.alignment import Analysis
from nfa.levels import is_beside
from nfa.registry.analyses.config import AnalyzeConfig


class Pass(NamedTuple):
    """One example: what goes into the layer [s i] and comes out [s o], the outputs, and the loss."""

    h: Tensor
    z: Tensor
    outputs: Tensor
    loss: Tensor


def cosine(A: Tensor, B: Tensor) -> float:
    return float((A * B).sum() / A.norm() / B.norm())


def alignment(W: Tensor, passes: Sequence[Pass], *, together: bool = False, exact: float = 1e-9) -> dict[str, float]:
    """The relations of a layer that applies `W` [o i]; `together` sums over an example's positions first.

    `exact` is how far z may be from W h and a bias.
    """
    W = W.detach().double()
    rest = torch.cat([_rows(one.z, False) - _rows(one.h, False) @ W.T for one in passes])
    assert (rest - rest[0]).abs().max() <= exact  # the test's own W: z = W h + a bias
    H = torch.zeros(W.shape[1], W.shape[1], dtype=torch.float64)
    G, A, FACT = (torch.zeros_like(H) for _ in range(3))
    out_H = torch.zeros(len(W), len(W), dtype=torch.float64)
    out_G = torch.zeros_like(out_H)
    for one in passes:
        (delta,) = torch.autograd.grad(one.loss, one.z, retain_graph=True)
        rows = _rows(one.h, together), _rows(one.z, together), _rows(delta, together)
        for h, z, d in zip(*rows, strict=True):
            g = -d @ W
            H += torch.outer(h, h)
            out_H += torch.outer(z, z)
            G += torch.outer(g, g)
            out_G += torch.outer(d, d)
            FACT += (torch.outer(g, h) + torch.outer(h, g)) / 2
        for output in one.outputs.flatten():
            (K,) = torch.autograd.grad(output, one.z, retain_graph=True)
            for k in _rows(K, together):
                A += torch.outer(k @ W, k @ W)
    M, out_M = W.T @ W, W @ W.T
    return {
        "agop_nfm": cosine(A, M),
        "g_vs_h": cosine(G, H),
        "g_vs_m": cosine(G, M),
        "h_vs_m": cosine(H, M),
        "out_g_vs_h": cosine(out_G, out_H),
        "out_g_vs_m": cosine(out_G, out_M),
        "out_h_vs_m": cosine(out_H, out_M),
        "fact_nfm": cosine(FACT, M),
    }


def _rows(x: Tensor, together: bool) -> Tensor:
    rows = x.detach().double().reshape(-1, x.shape[-1])
    return rows.sum(dim=0, keepdim=True) if together else rows


def heard(model: nn.Module, layer: str, workload: Any, examples: Sequence[Any]) -> list[Pass]:
    """A pass for each of `examples`, batches of one, through a model whose `layer` is called once."""
    passes = []
    for example in examples:
        kept: list[tuple[Tensor, Tensor]] = []
        module = model.get_submodule(layer)
        hook = module.register_forward_hook(lambda _module, args, z, kept=kept: kept.append((args[0], z)))
        outputs = workload.outputs(model, example)
        hook.remove()
        passes.append(Pass(*kept[0], outputs, workload.losses(outputs, example).squeeze()))
    return passes


RELATIONS = "agop_nfm,g_vs_h,g_vs_m,h_vs_m,out_g_vs_h,out_g_vs_m,out_h_vs_m,fact_nfm"


def analysis(workload: Any, model: nn.Module, **options: Any) -> Analysis:
    """As a user asks for it: float32, unless said otherwise; batches smaller than the probe."""
    chosen = {"relations": RELATIONS, "sites": "*", "directions": "all", "batch_size": 3, **options}
    return Analysis(workload, model, AnalyzeConfig(**chosen), None)


def measured(workload: Any, site: str, model: nn.Module | None = None, **options: Any) -> dict[str, float]:
    """The relations of one site."""
    model = workload.model() if model is None else model
    values = analysis(workload, model, sites=site, **options).values(model)
    return {key.rpartition("/")[2]: value for key, value in values.items() if key.rpartition("/")[0] == site}


def agree(found: dict[str, float], right: dict[str, float], tolerance: float = 1e-5) -> None:
    names = {name for name in right if not is_beside(name)}
    assert {name for name in found if not is_beside(name)} == names
    apart = {name: abs(found[name] - right[name]) for name in names}
    assert max(apart.values()) <= tolerance, (apart, found, right)
