"""Record where a model uses its parameters while it runs.

Everything that nfa knows of a model comes from this module, and it is the place to start reading. A model runs as it
is; meanwhile every PyTorch function that it calls is seen by a `Recorder`, whatever class of layer calls it. A function
that uses a parameter, and for which there is a rule, leaves a `Use`: its arguments, which parts of which parameters are
among them, and the position of its output in the autograd graph, so that δ = ∂ℓ/∂(output) can be requested when the
pass is over.

Two more things give a use its meaning. The *layout* (layouts.py) says where the examples are in its tensors: along
which dimension, folded with how many positions, or scattered by a router. The *rule* (rules.py, products.py,
convolutions.py; one for each function, and none elsewhere) computes from both, for a linear map z = W h + b, the rows h
[n, s, i] and δ [n, s, o] and the matrix W [o, i] that was applied; and for any parameter its per-example gradients.
Everything that is measured follows from these: AGOP = E[Wᵀ KᵀK W], G = E[Wᵀ δδᵀ W], H = E[h hᵀ], FACT, and the Gram
matrix of gradients, ⟨γ_a, γ_b⟩ = Σ_st ⟨δ_as, δ_bt⟩⟨h_as, h_bt⟩.

There are two kinds of recorder. `ParameterRecorder` (here) keeps uses of given parameters, for per-example gradients.
`SiteRecorder` (sites.py) keeps linear maps by the name of their layer, including frozen ones and those whose weight is
first computed from parameters: W is what the function received.

No layer is trusted because of its class. Before work starts, a check (door.py, gradient_door.py) runs a few examples,
and the same without the last one: the dimension that has become shorter is that of the examples. It compares z with W h
+ b, and sums over the uses with the gradients of autograd; a recorder that cuts the recorded uses off shows what
bypasses them. Parameters that are zero have other values meanwhile (moved.py), and modules that add something to a
product are looked for (composites.py). What does not agree is left out with a notice, refused with a remedy, or, for
per-example gradients, computed exactly and slowly (single_examples.py). Then passes.py and example_gradients.py run one
batch after another, and inertness.py restores the model.
"""

import dataclasses
import types
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.overrides import TorchFunctionMode

from nfa.observe.layouts import Axis, Layout, LayoutError, Picked
from nfa.observe.parameter_regions import Region, Regions
from nfa.observe.products import Linear, Product
from nfa.observe.recurrent import WRITTEN_OUT, is_plain
from nfa.observe.rules import RULES, Embedding


@dataclass(frozen=True)
class Use:
    """One call of a function with a parameter, and the position of its output in the autograd graph.

    `place` says which entries of its output belong to it, where one call makes several products; `given` is the
    position of a product's input, None where it depends on no trainable parameter; `picked` from how many others rows
    were chosen, where a router chose them.
    """

    rule: Any
    regions: Mapping[str, Region]  # by name of the argument
    node: GradientEdge
    output: Tensor
    versions: tuple[tuple[Tensor, int], ...]
    place: Any
    picked: tuple[Tensor, int] | None
    given: GradientEdge | None
    version: int  # of the output

    @property
    def fixed(self) -> bool:
        """Whether its input depends on no trainable parameter."""
        return self.given is None and isinstance(self.rule, Product)

    @property
    def edited(self) -> bool:
        """Whether an argument of the function has been changed in place since."""
        return any(tensor._version != version for tensor, version in self.versions)

    def at(self, place: Axis | None, n: int) -> Layout:
        """Return where the n examples are; LayoutError where that is not known."""
        if self.picked:
            index, total = self.picked
            return Picked(n, index[self.place], total)
        if place is None:
            raise LayoutError
        return dataclasses.replace(place, n=n)

    def tensors(self) -> list[Tensor]:
        """Return the tensors that hold the examples: the output and, if it has as many dimensions, the input."""
        given = self.rule.data if isinstance(self.rule, Product) else self.output
        return [self.own(self.output), *([given] if given.ndim == self.output.ndim else [])]

    def inputs(self, at: Layout) -> Tensor:
        """Return h [n, s, i]."""
        return cast(Tensor, self.widened().inputs(at))

    def delta(self, at: Layout, gradient: Tensor | None) -> Tensor:
        """Return δ [n, s, o]; it is zero for an output on which nothing depends."""
        whole = torch.zeros_like(self.output) if gradient is None else gradient
        return cast(Tensor, self.rule.outputs(widened(self.own(whole)), at))

    def values(self, at: Layout) -> Tensor:
        """Return z [n, s, o], computed again if it was edited in place."""
        rule = self.widened()
        edited = self.output._version != self.version
        return cast(Tensor, rule.again(at) if edited else rule.values(widened(self.own(self.output)), at))

    def own(self, value: Tensor) -> Tensor:
        """Return its part of a tensor shaped like the function's output."""
        return value if self.place is ... else value[self.place]

    def widened(self) -> Any:
        """Return the rule with half precision converted to float32."""
        return with_tensors(self.rule, widened)


def with_tensors(rule: Any, change: Callable[[Tensor], Tensor], **more: Any) -> Any:
    """Return a rule with more fields filled in and every tensor changed, sooner than dataclasses.replace does."""
    made, fields = object.__new__(type(rule)), vars(rule) | more
    vars(made).update({name: change(of) if isinstance(of, Tensor) else of for name, of in fields.items()})
    return made


def widened(tensor: Tensor) -> Tensor:
    """Convert half precision to float32."""
    return tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor


def _own_tensor(view: Tensor, rule: Any) -> Tensor:
    """Return a result that is a view as a tensor of its own, because an in-place edit of a view changes its node."""
    return torch.ops.aten._unsafe_view(view, view.shape) if isinstance(rule, Linear) else view.clone()


def _detached(values: Iterable[Any], chosen: list[Tensor]) -> tuple[Any, ...]:
    return tuple(value.detach() if any(value is one for one in chosen) else value for value in values)


@cache
def _without_dispatch(func: Callable[..., Any]) -> Callable[..., Any]:
    """Return the same PyTorch function without its dispatch to recorders, so that the functions it calls are recorded.
    """
    within = {**func.__globals__, "has_torch_function": lambda *_: False}
    made = types.FunctionType(func.__code__, within, func.__name__, func.__defaults__, func.__closure__)
    made.__kwdefaults__ = func.__kwdefaults__
    return made


SUMS = frozenset({torch.add, torch.Tensor.add, torch.Tensor.add_})
PICKS = frozenset({torch.Tensor.__getitem__, torch.index_select, torch.Tensor.index_select})


class Recorder(TorchFunctionMode):
    """Record functions that have a rule; `uses` are those of the pass so far, by the keys that `wants` returns.

    With `cut`, functions receive detached values of the recorded parameters, so that only unrecorded uses connect the
    parameters to the outputs.
    """

    rules: Mapping[Callable[..., Any], Any] = RULES

    def __init__(self, regions: Regions, n: int, *, cut: bool = False) -> None:
        super().__init__()
        self.regions, self.n, self.cut = regions, n, cut
        self.uses: dict[Hashable, list[Use]] = {}
        self.copied: frozenset[Hashable] = frozenset()
        self.copies_outputs, self.keeps_outputs = False, True
        self.in_attention = False
        self._picks: dict[int, tuple[Tensor, Tensor, int]] = {}
        self._lookups: dict[int, tuple[Tensor, Embedding]] = {}

    def wants(self, rule: Any, regions: Mapping[str, Region]) -> Hashable:
        """Return the key under which to keep a use; None if nobody wants it."""
        raise NotImplementedError

    def rooted(self, output: Tensor) -> Tensor | None:
        """Return the output if it has a place in the autograd graph, else None."""
        return output if output.requires_grad else None

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        del types
        if func is F.multi_head_attention_forward:
            before, self.in_attention = self.in_attention, True
            try:
                with self:
                    return _without_dispatch(func)(*args, **(kwargs or {}))
            finally:
                self.in_attention = before
        if func in WRITTEN_OUT and not kwargs and is_plain(args):
            with self:
                return WRITTEN_OUT[func](*args)
        return self.call(func, args, kwargs or {})

    def call(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call a function, and keep the call if it is wanted."""
        if func in SUMS and len(args) == 2:
            first = args[0] if func is torch.Tensor.add_ else self._row_each(args[0], args[1])
            args = (first, self._row_each(args[1], args[0]))
        if func is F.group_norm and args:  # with channels last, PyTorch crashes if only its weight has a gradient
            args = args[0].contiguous(), *args[1:]
        recorded = self._recorded(func, args, kwargs)
        if recorded and self.cut:
            rule = self._rule(func, args, kwargs)
            given = [getattr(rule, name) for name in rule.PARAMETERS if self.regions.of(getattr(rule, name))]
            args, kwargs = _detached(args, given), dict(zip(kwargs, _detached(kwargs.values(), given), strict=True))
        output = func(*args, **kwargs)
        self._follow(func, args, output)
        if not recorded or self.cut or not isinstance(output, Tensor):
            return output
        return self._kept(recorded, args, output)

    def _recorded(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
        rule = self._rule(func, args, kwargs)
        recorded = []
        for part, place in self.parts(rule) if rule else ():
            found = {name: self.regions.of(getattr(part, name)) for name in part.PARAMETERS}
            regions = {name: region for name, region in found.items() if region}
            if (key := self.wants(part, regions)) is not None:
                recorded.append((part, place, regions, key))
        return recorded

    def parts(self, rule: Any) -> Iterable[tuple[Any, Any]]:
        """Return the uses that one call makes, and which entries of its output each gives."""
        return rule.parts() if isinstance(rule, Product) else [(rule, ...)]

    def _rule(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        try:
            return self.rules[func](*args, **kwargs)
        except (KeyError, TypeError):  # no rule, or a call that the rule does not know, such as with out=
            return None

    def _kept(self, recorded: list[Any], args: tuple[Any, ...], output: Tensor) -> Tensor:
        inside = torch._C._functorch.is_functorch_wrapped_tensor(output)  # in torch.vmap, without a graph
        rooted = None if inside else self.rooted(output)
        if rooted is None:
            return output
        output = _own_tensor(rooted, recorded[0][0]) if rooted._is_view() else rooted
        node, picked = get_gradient_edge(output), self._picked(args)
        z = output.detach() if self.keeps_outputs else output.new_empty(0)
        z = z.clone() if self.copies_outputs else z
        for rule, place, regions, key in recorded:
            moves = isinstance(rule, Product) and rule.data.requires_grad
            given = get_gradient_edge(rule.data) if moves else None
            saved = rule.saved(output) if hasattr(rule, "saved") else {}
            change = (lambda tensor: tensor.detach().clone()) if key in self.copied else Tensor.detach
            kept = with_tensors(rule, change, **saved)
            versions = tuple((tensor, tensor._version) for tensor in vars(kept).values() if isinstance(tensor, Tensor))
            self.uses.setdefault(key, []).append(
                Use(kept, regions, node, z, versions, place, picked, given, z._version)
            )
            if isinstance(rule, Embedding):
                self._lookups[id(output)] = output, rule
        return output

    # ---- rows that a router picks, and what is computed from each of them

    def _follow(self, func: Callable[..., Any], args: tuple[Any, ...], output: Any) -> None:
        found = self._chosen(args) if func in PICKS else self._picked(args) if self._picks else None
        for one in output if found and isinstance(output, tuple | list) else [output] if found else []:
            if found and isinstance(one, Tensor) and one.ndim and len(one) == len(found[0]):
                self._picks[id(one)] = one, *found

    def _chosen(self, args: tuple[Any, ...]) -> tuple[Tensor, int] | None:
        source, index = args[0], args[-1]
        if not (isinstance(index, Tensor) and isinstance(source, Tensor)) or (len(args) == 3 and args[1] != 0):
            return None
        total = source.shape[:-1].numel()
        if index.dtype is torch.bool and index.shape == source.shape[:-1]:
            index = index.flatten().nonzero().squeeze(1)
        elif source.ndim != 2 or index.ndim != 1 or index.dtype not in (torch.int64, torch.int32):
            return None
        if before := self._picked([source]):
            return before[0][index], before[1]
        return (index, total) if len(source) % self.n == 0 and self.regions.of(source) is None else None

    def _picked(self, args: Iterable[Any]) -> tuple[Tensor, int] | None:
        found = next((self._picks[id(one)] for one in args if id(one) in self._picks), None) if self._picks else None
        return found[1:] if found else None

    def _row_each(self, value: Any, other: Any) -> Any:
        """Look up rows of a table that all examples share, such as positions, separately for each example where they
        are added.
        """
        _, lookup = self._lookups.get(id(value), (None, None))
        if lookup is None or not isinstance(other, Tensor) or other.ndim != 3 or len(other) != self.n:
            return value
        if value.ndim < 2 or value.shape[:-2].numel() > 1:
            return value
        index = lookup.input.reshape(1, -1).expand(self.n, -1)
        options = {item.name: getattr(lookup, item.name) for item in dataclasses.fields(lookup)}
        return self.call(F.embedding, (), {**options, "input": index})


class ParameterRecorder(Recorder):
    """Keep the uses of some parameters, by what uses them and how."""

    def wants(self, rule: Any, regions: Mapping[str, Region]) -> Hashable:
        if not regions or not torch.is_grad_enabled():
            return None
        return tuple((type(rule), name, region.parameter) for name, region in regions.items())
