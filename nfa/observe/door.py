"""The check before work starts: a model runs on a few examples, and each of its sites is tested.

A site passes if ⟨δ, z⟩ = ⟨δ, W h + b⟩ for any δ, if a run with one example fewer shows which dimension is that of the
examples, and if its weight is the same for fewer examples. A site that fails is left out, or refused if it was asked
for by name; both say why, and what to do.
"""

from collections.abc import Mapping, Sequence

import torch
import torch.nn as nn
from torch import Tensor

from nfa.observe.composites import composites
from nfa.observe.example_axis import axis, near
from nfa.observe.found_sites import Site, Sites, Words
from nfa.observe.inertness import inert, without_fused_attention
from nfa.observe.layouts import Axis, Layout, LayoutError
from nfa.observe.moved import expect_finite, seen_moved
from nfa.observe.recording import Use, widened
from nfa.observe.single_examples import gradients
from nfa.observe.sites import SiteRecorder, public_names
from nfa.observe.trials import coarse, strided
from nfa.seeding import generator
from nfa.workload import Batch, Workload

EXAMPLES = 8
TOLERANCE = 1e-4  # relative to Σ|δ z|; the error of a wrong map is as large as the map
COMPLEX = "whose weights are complex"
FAINT = 1e-5  # relative to a site's largest gradient; more than this at padding is an influence


def few_of(workload: Workload) -> Batch:
    """Return a few of the examples that are analysed."""
    ids = list(workload.ids("probe"))[:EXAMPLES]
    return next(iter(workload.batches("train", batch_size=EXAMPLES, ids=ids)))


def find_sites(model: nn.Module, workload: Workload, batch: Batch) -> Sites:
    """Find the sites of a model and test them on `batch`, a few examples; the model is not changed."""
    public = public_names(model, workload.sites(model))
    adapted = {path for path, module in model.named_modules() if path and hasattr(module, "get_base_layer")}

    def tested(changed: bool) -> Sites:
        door = _Door(model, workload, batch, public, adapted)
        expect_finite(door.outputs, changed)
        return _sorted(door, {name: door.tried(name, uses) for name, uses in door.uses.items()})

    with inert(model):
        return seen_moved(model, tested)


class _Door:
    """Passes over a few examples, and over one fewer."""

    def __init__(
        self, model: nn.Module, workload: Workload, batch: Batch, public: Mapping[str, str], whole: set[str]
    ) -> None:
        self.model, self.workload, self.batch, self.public, self.whole = model, workload, batch, public, whole
        self.names = list(workload.sites(model))
        self.copied: frozenset[str] = frozenset()
        self.recorder = self._recorded(batch)
        if more := self._without_uses() - self.whole:
            self.whole = self.whole | more
            self.recorder = self._recorded(batch)
        self._take_whole()
        self.copied = frozenset(name for name, uses in self.recorder.found().items() if any(use.edited for use in uses))
        if self.copied:
            self.recorder = self._recorded(batch)
        self.uses = self.recorder.found()
        self.outputs = self.recorder.result
        self.fewer = self._recorded(batch.take(range(len(batch) - 1))).found() if len(batch) > 1 else {}
        self.places = {name: self._place(uses, self.fewer.get(name, [])) for name, uses in self.uses.items()}
        self.deltas = self._deltas()
        self.misread = self._misread()

    def _recorded(self, batch: Batch, *, cut: bool = False) -> SiteRecorder:
        recorder = SiteRecorder(self.model, self.public, len(batch), whole=self.whole, cut=cut)
        recorder.copied, recorder.copies_outputs = self.copied, True
        with torch.enable_grad(), without_fused_attention(), recorder:
            recorder.result = self.workload.outputs(self.model, batch)
        return recorder

    def _take_whole(self) -> None:
        """Treat a module that adds something to a product of its input, as W h + B A h, as one linear map."""
        if found := composites(self.recorder.calls, self.public, self.whole):
            self.whole = self.whole | found
            self.recorder = self._recorded(self.batch)

    def unrecorded(self) -> dict[str, Words]:
        """Return why named modules are not sites."""
        found = {}
        for path, name in self.public.items():
            if not path or any(_begins(one, name) for one in self.uses):
                continue
            module = self.model.get_submodule(path)
            if name in self.recorder.silent:
                got, allowed = "which is called inside torch.no_grad()", "layers that gradients flow through"
                found[name] = _words(name, got, allowed)
            elif path not in self.recorder.called:
                got, allowed = "which the forward pass never calls", "modules that are called"
                found[name] = _words(name, got, allowed)
            elif module._parameters:
                got = f"a {type(module).__name__}, in which no product with a weight is recorded"
                found[name] = _words(name, got, "layers that multiply by a weight: linear, convolution, attention")
        return found

    def _without_uses(self) -> set[str]:
        """Return modules that a workload names one by one and that are called, but use no weight of their own."""
        if "" in self.public:
            return set()
        recorded = {*self.recorder.found(), *self.recorder.silent}
        named = {path: name for path, name in self.public.items() if path in self.recorder.called}
        return {
            path
            for path, name in named.items()
            if not any(one == name or one.startswith(f"{name}.") for one in recorded)
        }

    def _deltas(self) -> dict[str, list[Tensor | None]]:
        """Return ∂⟨f, c⟩/∂z of every use, for a random direction c of the outputs."""
        nodes = [use.node for uses in self.uses.values() for use in uses]
        made = iter(gradients(self.outputs, nodes, self._direction(self.outputs), keep=True))
        return {name: [next(made) for _ in uses] for name, uses in self.uses.items()}

    def _direction(self, outputs: Tensor) -> Tensor:
        return torch.randn(outputs.shape, generator=generator(0, "door")).to(outputs)

    def _misread(self) -> set[str]:
        """Return the parameters whose Σ_s δ_s h_sᵀ, with what bypasses all products, is not the gradient of autograd.
        """
        trained = {name: of for name, of in self.model.named_parameters() if of.requires_grad and not of.is_complex()}
        expected = self._by_autograd(self.outputs, trained)
        found = self._by_autograd(self._recorded(self.batch, cut=True).result, trained)
        unread: set[str] = set()
        for name, uses in self.uses.items():
            for use, delta in zip(uses, self.deltas[name], strict=True):
                try:
                    self._add(found, use, self.places[name], delta)
                except LayoutError:
                    unread |= {region.parameter for region in use.regions.values()}
        largest = {name: float(one.abs().max()) if one.numel() else 0.0 for name, one in expected.items()}
        faint, rounding = FAINT * max(largest.values(), default=0.0), coarse(self.uses)
        least = {name: max(faint, rounding * largest[name]) for name in found}
        return {name for name in found if not near(found[name], expected[name], least[name])} - unread

    def _by_autograd(self, outputs: Tensor, trained: Mapping[str, Tensor]) -> dict[str, Tensor]:
        made = gradients(outputs, list(trained.values()), self._direction(outputs), keep=True)
        pairs = zip(trained.items(), made, strict=True)
        found = ((name, torch.zeros_like(of) if value is None else strided(value)) for (name, of), value in pairs)
        return {name: one.clone(memory_format=torch.contiguous_format) for name, one in found}

    def _add(self, totals: Mapping[str, Tensor], use: Use, place: Axis | None, delta: Tensor | None) -> None:
        """Add a use's part of its parameters' gradients to the totals; LayoutError where it cannot be read."""
        if delta is None:
            return
        for name, region in use.regions.items():
            if region.parameter not in totals:
                continue
            whole = totals[region.parameter]
            part = use.widened().gradient(name, widened(use.own(delta)), use.at(place, len(self.batch)))
            total = part.total(torch.ones(len(self.batch), device=whole.device)).to(whole)
            if total.numel() != region.view(whole).numel():
                raise LayoutError  # repeated along its only dimension
            region.view(whole).add_(total.view(region.shape))

    def tried(self, name: str, uses: Sequence[Use]) -> Site | Words:
        """Return a site that passes, or the parts of its refusal."""
        weights = [use.widened().matrix().detach() for use in uses]
        if any(weight.is_complex() for weight in weights):
            return _words(name, COMPLEX, "real weights")
        fewer = self.fewer.get(name, [])
        others = [*weights[1:], *(use.widened().matrix().detach() for use in fewer)]
        if any(not near(one, weights[0]) for one in others):
            return _words(name, "whose weight is not the same in every use", "one weight for all uses and examples")
        place = self.places[name]
        if self.recorder.made_of[name] & self.misread:
            return _words(name, "whose gradient does not match autograd's", "layers that gradients flow through")
        try:
            layouts = [use.at(place, len(self.batch)) for use in uses]
            pairs = list(zip(uses, layouts, strict=True))
            if not all(_is_map(use, weights[0], at) for use, at in pairs):
                return _words(name, "whose output is not W h + b of its input", "linear maps")
        except LayoutError:
            allowed = "layers whose tensors have the examples along one dimension, with equal sizes"
            return _words(name, "in whose tensors the examples cannot be told apart", allowed)
        for number, pair in enumerate(pairs if self.batch.present is not None else ()):
            if got := self._padding(self.deltas[name][number], *pair):
                return _words(name, got, "layers that see every position and are not influenced by padding")
        return Site(place, name in self.copied, frozenset(self.recorder.made_of[name]), self._is_inside(name))

    def _is_inside(self, name: str) -> bool:
        """Tell whether it is part of a module that is a site as a whole."""
        return any(name.startswith(f"{self.public[path]}.") for path in self.whole if path in self.public)

    def _place(self, uses: Sequence[Use], fewer: Sequence[Use]) -> Axis | None:
        """Return the axis of the examples, which must be the same in every use."""
        n = len(self.batch)
        if n == 1:
            return Axis(1)
        if any(use.picked for use in uses) or len(uses) != len(fewer):
            return None
        pairs = [([use.tensors() for use in pair]) for pair in zip(uses, fewer, strict=True)]
        found = {axis(many, less, n) for many, less in pairs}
        return found.pop() if len(found) == 1 else None

    def _padding(self, found: Tensor | None, use: Use, at: Layout) -> str:
        """Return what is wrong with a use in which examples are padded; empty if nothing is."""
        present = self.batch.present
        assert present is not None
        delta = use.delta(at, found)
        try:
            padding = ~at.own(present, delta.shape[1])
        except LayoutError:
            return f"which sees {delta.shape[1]} positions of examples padded to {present.shape[1]}"
        through = bool((delta.abs().amax(dim=2) * padding).max() > FAINT * delta.abs().max())
        return "whose output at padding influences the model's outputs" if through else ""


def _words(name: str, got: str, allowed: str) -> Words:
    return f"site {name!r}, {got}", allowed, f"exclude it with sites=!{name}"


def _is_map(use: Use, weight: Tensor, at: Layout) -> bool:
    """Tell whether ⟨δ, z⟩ = ⟨δ, W h + b⟩ for each example and a random δ."""
    rule, z = use.widened(), widened(use.own(use.output))
    delta = torch.randn(z.shape, generator=generator(0, "door")).to(z)
    terms = at.sums(delta * z)
    through = (rule.outputs(delta, at) * (rule.inputs(at).to(weight) @ weight.T)).sum(dim=(1, 2))
    allowed = max(TOLERANCE, 16 * torch.finfo(use.output.dtype).eps) * at.sums((delta * z).abs())
    wrong = (terms - through - rule.offset(delta, at)).abs() > allowed
    return not bool(wrong.any())  # values that are not finite cannot be compared


def _sorted(door: _Door, tried: Mapping[str, Site | Words]) -> Sites:
    """Return the sites in the order of the model's modules, including matrices of a stack that no example uses."""
    seen = {name: site for name, site in tried.items() if isinstance(site, Site)}
    for base, count in door.recorder.stacks.items():
        kinds = [site for name, site in seen.items() if name.startswith(f"{base}.")]
        seen.update({name: seen.get(name, kinds[0]) for k in range(count if kinds else 0) for name in [f"{base}.{k}"]})
    unseen = {name: words for name, words in tried.items() if not isinstance(words, Site) and name not in seen}
    unseen |= {name: words for name, words in door.unrecorded().items() if name not in tried}
    never = frozenset(name for name, words in unseen.items() if COMPLEX in words[0])
    places = {name: place for place, name in enumerate(door.names)}
    order = sorted(seen, key=lambda name: max((places[one] for one in places if _begins(name, one)), default=-1))
    last = next(reversed(list(tried)), None)
    return Sites({name: seen[name] for name in order}, unseen, never, frozenset(door.whole), last)


def _begins(name: str, module: str) -> bool:
    return not module or name == module or name.startswith(f"{module}.")
