"""What the door has found out about the sites of a model."""

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass

import torch.nn as nn

from nfa.errors import Refusal
from nfa.observe.layouts import Axis
from nfa.observe.sites import SiteRecorder, public_names

Words = tuple[str, str, str]  # of a refusal: what was got, what is allowed, what to do


@dataclass(frozen=True)
class Site:
    """What is known of a site, for all passes of a run: where its examples are (None: rows are picked), whether its
    input is edited in place after the call, the parameters that it is made of, and whether it is part of another."""

    place: Axis | None
    copied: bool
    parameters: frozenset[str]
    inside: bool


@dataclass(frozen=True)
class Sites:
    """The sites of a model that can be read, in the order in which they are called, and for the others why not.

    `never`: those that have to be left out by name. `whole`: modules that are sites with all that is inside them.
    `last`: the one that was called last.
    """

    seen: Mapping[str, Site]
    unseen: Mapping[str, Words]
    never: frozenset[str]
    whole: frozenset[str]
    last: str | None

    def parameters(self, names: Iterable[str]) -> set[str]:
        """All that some sites are made of."""
        return {parameter for name in names for parameter in self.seen[name].parameters}

    def is_inside(self, name: str) -> bool:
        """Whether a site is part of another, such as a factor of an adapter."""
        return name in self.seen and self.seen[name].inside

    def check(self, names: Iterable[str]) -> None:
        """`Refusal` for the first name that is no site, or one that cannot be read."""
        for name in names:
            if name in self.unseen:
                raise Refusal(*self.unseen[name])
            if name not in self.seen:
                raise Refusal(f"site {name!r}", ", ".join(self.seen) or "a model with linear maps", "name one of them")

    def recorder(
        self, model: nn.Module, sites: Mapping[str, nn.Module], n: int, wanted: Container[str]
    ) -> SiteRecorder:
        """What records some of them in a pass of n examples."""
        recorder = SiteRecorder(model, public_names(model, sites), n, wanted=wanted, whole=self.whole)
        recorder.copied = frozenset(name for name, site in self.seen.items() if site.copied)
        return recorder
