"""The readout: the site whose outputs W h + b are the outputs of the network, all of them and nothing else.

Where W [C, d] has more outputs than features h, its QR decomposition W = Q R gives d rows R, and Σ_k J_kᵀ J_k over the
C outputs W h is that over the d numbers R h: d backward passes from the features take the place of C. Where a function
turns the output z of another site into h entry by entry, K_k = ∂f_k/∂z is W_k ∘ σ′, so that Σ_k K_kᵀ K_k is
(WᵀW) ∘ σ′σ′ᵀ, and σ′ is one backward pass.

Neither is believed because of a name or a class. The network's outputs must be the very tensor that the product has
returned, the gradients of outputs and of features are compared on a few examples in float64, and whether a function
acts on each entry alone is tested in every batch as well.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn as nn
from jaxtyping import Float
from torch import Tensor
from torch.autograd.graph import get_gradient_edge

from nfa.errors import Refusal
from nfa.observe.found_sites import Sites
from nfa.observe.inertness import doubled, inert, without_fused_attention
from nfa.observe.moved import expect_finite, seen_moved
from nfa.observe.recording import Use
from nfa.observe.single_examples import gradients
from nfa.seeding import generator
from nfa.workload import Batch, Workload

FEW = 3  # outputs, of which so many backward passes cost no more than σ′ and its test
ROUNDING = 64  # times the resolution of numbers, within which gradients agree


@dataclass(frozen=True)
class Readout:
    """The readout of a model: the `name` of its site, the `shape` of W [C, d], and the sites directly `behind` it.

    A site is behind it if a function turns its output into h entry by entry.
    """

    name: str
    shape: tuple[int, int]
    behind: frozenset[str]

    @property
    def passes(self) -> int:
        """The number of backward passes for each position of the features."""
        return min(self.shape)


class Features:
    """The features h of one batch, [n, …, d], in the autograd graph of the outputs W h + b [n, …, C]."""

    def __init__(self, use: Use, outputs: Tensor) -> None:
        self.use, self.outputs = use, outputs
        self.shape = use.rule.data.shape

    @classmethod
    def of(cls, uses: Sequence[Use], outputs: Tensor) -> "Features | None":
        """Return the features of a site's only use, if its output is what the network has returned; else None."""
        if len(uses) != 1 or uses[0].given is None or not outputs.requires_grad:
            return None
        edge, own, shape = get_gradient_edge(outputs), uses[0].node, uses[0].rule.data.shape
        if edge.node is not own.node or edge.output_nr != own.output_nr or outputs.shape[:-1] != shape[:-1]:
            return None
        return cls(uses[0], outputs)

    def gradients(self, nodes: Sequence[object], cotangent: Tensor, *, keep: bool = True) -> Sequence[Tensor | None]:
        """Return ∂⟨h, c⟩/∂(each node), for c that has the features' shape or is the same for all examples."""
        assert self.use.given is not None
        return gradients(self.use.given, nodes, cotangent.expand(self.shape), keep=keep)

    def slopes(self, sites: Mapping[str, Sequence[Use]], places: Sites) -> dict[str, Float[Tensor, "n o"]]:
        """Return σ′ of the sites, of one use each, whose output a function turns into h entry by entry.

        Such a function is told by ∂⟨h, u⟩/∂z = u ∘ ∂⟨h, 1⟩/∂z for a random u, which no other has at any example.
        """
        n, d, like = len(self.outputs), self.shape[-1], self.use.rule.data
        uses = {name: of[0] for name, of in sites.items() if len(of) == 1 and places.seen[name].place}
        if self.shape.numel() != n * d or like.dtype not in (torch.float32, torch.float64):
            return {}
        if not self.outputs.isfinite().all():
            return {}  # which has no gradient, although a function such as ReLU gives it one
        u = torch.randn(d, generator=generator(0, "readout"), dtype=like.dtype).to(like.device)
        nodes, found = [use.node for use in uses.values()], {}
        made = [self.gradients(nodes, c) for c in (u.new_ones(d), u)]
        for (name, use), *both in zip(uses.items(), *made, strict=True):
            slope, along = (use.delta(use.at(places.seen[name].place, n), one) for one in both)
            if slope.shape == (n, 1, d) and _same(along[:, 0], slope[:, 0] * u):
                found[name] = slope[:, 0]
        return found


def _same(a: Float[Tensor, "n d"], b: Float[Tensor, "n d"]) -> bool:
    """Tell whether rows agree up to rounding; rows that are not finite do not."""
    allowed = ROUNDING * torch.finfo(a.dtype).eps * b.abs().amax(dim=1, keepdim=True)
    return bool(((a - b).abs() <= allowed).all())


class ThroughReadout:
    """The gradients of all outputs through the rows of the readout's own matrix, over one pass of the data.

    Args:
        readout: The readout.
    """

    def __init__(self, readout: Readout) -> None:
        self.readout = readout
        self.weight: Tensor | None = None

    def features(self, uses: Mapping[str, Sequence[Use]], outputs: Tensor) -> Features | None:
        """Return the features of a batch; None where its outputs are not those of the readout.

        `Refusal` if the readout has more outputs than features, because directions are not the same then.
        """
        found = Features.of(uses.get(self.readout.name, []), outputs)
        outnumbered = self.readout.shape[0] > self.readout.shape[1]
        if found is None and outnumbered:
            got = f"outputs that are those of site {self.readout.name!r} for some of the examples only"
            raise Refusal(got, "one readout for all examples", "directions=2, which needs no readout")
        if found is not None and self.weight is None:
            self.weight = found.use.widened().matrix().detach()
        return found

    @cached_property
    def factors(self) -> tuple[Float[Tensor, "C d"], Float[Tensor, "d d"]] | None:
        """Q and R where there are fewer features than outputs and W is finite."""
        assert self.weight is not None
        if self.readout.passes == len(self.weight) or not self.weight.isfinite().all():
            return None
        q, r = torch.linalg.qr(self.weight.double())
        return q.to(self.weight), r.to(self.weight)

    @property
    def rows(self) -> Float[Tensor, "r d"]:
        """R, or W where it has no more rows."""
        assert self.weight is not None
        return self.factors[1] if self.factors else self.weight

    def gradients(
        self, features: Features, nodes: Sequence[object], undefined: Tensor
    ) -> Iterator[list[Tensor | None]]:
        """Yield the gradients of R h at all nodes, and those of the outputs along Q at the readout's own.

        `undefined` has the outputs' shape; it is 0, and NaN where there is no gradient.
        """
        assert self.factors is not None
        q, r = self.factors
        own = [node is features.use.node for node in nodes]
        blank, passes = undefined.sum(dim=-1, keepdim=True), len(r) * features.shape[1:-1].numel()
        for place in range(passes):
            position, row = divmod(place, len(r))
            c = _at(position, r[row], features.shape) + blank
            made = features.gradients(nodes, c, keep=place < passes - 1)
            of_outputs = _at(position, q[:, row], undefined.shape) + undefined if any(own) else None
            yield [of_outputs if mine else one for mine, one in zip(own, made, strict=True)]


def _at(position: int, row: Tensor, shape: torch.Size) -> Tensor:
    """Return a tensor [n, …, d] that is the row at one position of every example and 0 elsewhere."""
    if shape[1:-1].numel() == 1:
        return row.expand(shape)
    made = row.new_zeros(shape[0], shape[1:-1].numel(), shape[-1])
    made[:, position] = row
    return made.view(shape)


def find_readout(model: nn.Module, workload: Workload, batch: Batch, sites: Sites) -> Readout | None:
    """Return the readout of a model, tested on `batch`, a few examples; None where there is none that saves anything.

    The model is not changed. A model that has no copy that runs in float64 counts as having none.
    """
    try:
        with inert(model):
            found = _returned(model, workload, batch, sites)
            if found is None or found[1].outputs.shape[-1] <= FEW:
                return None
        copy = doubled(model)
        with inert(copy):
            return seen_moved(copy, lambda changed: _tested(copy, workload, batch.double(), sites, changed))
    except Exception:  # some kernels exist for float32 only, and some attributes cannot be copied
        return None


def _returned(
    model: nn.Module, workload: Workload, batch: Batch, sites: Sites
) -> tuple[str, Features, dict[str, list[Use]]] | None:
    """Return the site whose output the network returns, its features, and the uses of all sites."""
    recorder = sites.recorder(model, workload.sites(model), len(batch), sites.seen.keys())
    with torch.enable_grad(), without_fused_attention(), recorder:
        outputs = workload.outputs(model, batch)
    uses = recorder.found()
    for name in uses:
        if features := Features.of(uses[name], outputs):
            return name, features, uses
    return None


def _tested(model: nn.Module, workload: Workload, batch: Batch, sites: Sites, changed: bool) -> Readout | None:
    found = _returned(model, workload, batch, sites)
    if found is None:
        return None
    name, features, uses = found
    expect_finite(features.outputs, changed)
    weight = features.use.widened().matrix().detach()
    others = {site: of for site, of in uses.items() if site != name}
    nodes = [use.node for of in others.values() for use in of]
    c = torch.randn(features.outputs.shape, generator=generator(0, "outputs")).to(features.outputs)
    by_outputs = gradients(features.outputs, nodes, c, keep=True)
    if not all(map(_agree, by_outputs, features.gradients(nodes, c @ weight))):
        return None
    slopes = features.slopes(others, sites)
    return Readout(name, (len(weight), weight.shape[1]), frozenset(site for site in slopes if slopes[site].any()))


def _agree(a: Tensor | None, b: Tensor | None) -> bool:
    """Tell whether two gradients are the same up to rounding."""
    if a is None or b is None:
        return not any(bool(one.any()) for one in (a, b) if one is not None)
    return bool(((a - b).abs() <= 1e-9 * b.abs().max()).all())
