"""The records of one site made up without a network, what the measures make of them, and the same written out."""

from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from nfa import reference
from nfa.maths.standard_errors import Matrix
from nfa.measures.agop import Agop
from nfa.measures.agop_estimate import AgopEstimate
from nfa.measures.fact import Fact
from nfa.measures.nfm import nfm, nfm_init_removed
from nfa.measures.second_moments import GradientMoment, InputMoment, OutputMoment
from nfa.observe.records import Record
from nfa.parallel import World
from nfa.relations import RELATIONS
from tests.support.rotations import gaussian


@dataclass(frozen=True)
class Site:
    """W [o, i], W⁽⁰⁾, h [n, s, i], z [n, s, o], δ [n, s, o], K [n, s, k, o]."""

    W: Tensor
    initial: Tensor
    h: Tensor
    z: Tensor
    delta: Tensor
    K: Tensor

    def to(self, dtype: torch.dtype) -> "Site":
        return Site(*(part.to(dtype) for part in vars(self).values()))

    def of(self, chosen: Any) -> "Site":
        """Some of the examples."""
        return Site(self.W, self.initial, *(part[chosen] for part in (self.h, self.z, self.delta, self.K)))

    def padded(self, positions: int) -> "Site":
        """With further positions of zeros, as those that shorter examples lack."""
        h, z, delta = (F.pad(part, (0, 0, 0, positions)) for part in (self.h, self.z, self.delta))
        return Site(self.W, self.initial, h, z, delta, F.pad(self.K, (0, 0, 0, 0, 0, positions)))


def site(o: int, i: int, *, n: int = 40, s: int = 1, rank: int = 0, bias: bool = False, seed: int = 0) -> Site:
    """Of random numbers in which gradients have to do with inputs, and W with both."""
    W = gaussian(o, rank, seed=seed) @ gaussian(rank, i, seed=seed + 1) if rank else gaussian(o, i, seed=seed)
    h = gaussian(n, s, i, seed=seed + 2) * torch.linspace(0.3, 1.5, i, dtype=torch.float64) + 0.2
    z = h @ W.T + (1 if bias else 0)
    delta = gaussian(n, s, o, seed=seed + 3) * torch.linspace(1.5, 0.5, o, dtype=torch.float64) + 0.3 * z
    K = gaussian(n, s, 3, o, seed=seed + 4) * torch.linspace(0.2, 1.2, o, dtype=torch.float64) + 0.4
    return Site(W, W - gaussian(o, i, seed=seed + 5) / 2, h, z, delta, K)


def measured(
    made: Site,
    *,
    positions: Any = "each",
    centre: Any = "none",
    keep: int = 256,
    batch_size: int = 9,
    world: World | None = None,
    signs: Tensor | None = None,
) -> dict[str, Matrix]:
    """All matrices of a site; AGOP from random directions where signs [n, R, k] are given."""
    W, options = made.W, {"positions": positions, "keep": keep}
    agop: Any = Agop(W, centre=centre, **options)
    if signs is not None:
        agop = AgopEstimate(W, signs.shape[1], positions=positions)
        made = replace(made, K=torch.einsum("nrk,nsko->nsro", signs.to(W), made.K))
    moments: dict[str, Any] = {
        "agop": agop,
        "g": GradientMoment(W, output_side=True, **options),
        "h": InputMoment(W, **options),
        "fact": Fact(W, **options),
        "out_h": OutputMoment(W, **options),
    }
    for chosen in torch.arange(len(made.h)).split(batch_size):
        part = made.of(chosen)
        for direction in range(made.K.shape[2]):
            agop.update(Record(gradient=part.K[:, :, direction], direction=direction))
        for name in ("g", "h", "fact", "out_h"):
            moments[name].update(Record(part.h, part.z, part.delta))
    for moment in moments.values():
        moment.reduce(world or World())
    found: dict[str, Matrix] = {name: moment.value() for name, moment in moments.items()}
    found |= {"out_g": moments["g"].output_side(), "nfm": nfm(W), "out_m": nfm(W.T)}
    return found | {"nfm_init_removed": nfm_init_removed(W, made.initial)}


def of_examples(made: Site, positions: Any = "each", centre: Any = "none") -> dict[str, Tensor]:
    """The matrix of each example [n, i, i] by the reference; those of weights are the same for all."""
    n, g = len(made.h), -made.delta @ made.W
    pairs = {"g": (g, g), "h": (made.h, made.h), "fact": (g, made.h), "out_g": (made.delta, made.delta)}
    pairs["out_h"] = (made.z, made.z)
    found = {
        name: torch.stack([reference.second_moment(x[k : k + 1], y[k : k + 1], positions=positions) for k in range(n)])
        for name, (x, y) in pairs.items()
    }
    J = made.K @ made.W
    if centre == "jacobian":
        J = J.sum(dim=1, keepdim=True) if positions == "sum" else J
        J = J - J.mean(dim=(0, 1))
    found["agop"] = torch.stack([reference.agop(one[None], positions=positions) for one in J])
    found["fact"] = (found["fact"] + found["fact"].mT) / 2
    weights = {"nfm": reference.nfm(made.W), "out_m": reference.nfm(made.W.T)}
    weights["nfm_init_removed"] = reference.nfm_init_removed(made.W, made.initial)
    return found | {name: matrix.expand(n, *matrix.shape) for name, matrix in weights.items()}


def compared(name: str, *, centre: Any = "none", power: float = 1, k: int = 2) -> Any:
    """A relation as a function of its two dense matrices."""
    relation = RELATIONS[name]
    rooted = power == 0.5 and "agop" in relation.matrices

    def of(A: Tensor, B: Tensor) -> float:
        A = reference.square_root(A) if rooted else A
        if relation.kind == "overlap":
            return reference.subspace_overlap(A, B, k)
        return reference.exponent(B, A)[0] if relation.kind == "exponent" else reference.cosine(A, B, centre=centre)

    return of
