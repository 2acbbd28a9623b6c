"""What the check before work starts has found out about the sites of a model."""

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass

import torch.nn as nn

from nfa.errors import Refusal
from nfa.observe.layouts import Axis
from nfa.observe.sites import SiteRecorder, public_names

Words = tuple[str, str, str]  # the parts of a refusal: what was given, what is allowed, what to do


@dataclass(frozen=True)
class Site:
    """A site of a model, for all passes of a run.

    `place` is the axis of its examples (None if a router picks its rows), `copied` whether its input is edited in place
    after the call, `parameters` what it is made of, and `inside` whether it is part of another site.
    """

    place: Axis | None
    copied: bool
    parameters: frozenset[str]
    inside: bool


@dataclass(frozen=True)
class Sites:
    """The sites of a model that can be read, in the order in which they are called, and why the others cannot.

    `never` are sites that must be excluded by name, `whole` modules that are sites together with everything inside
    them, and `last` is the site that was called last.
    """

    seen: Mapping[str, Site]
    unseen: Mapping[str, Words]
    never: frozenset[str]
    whole: frozenset[str]
    last: str | None

    def parameters(self, names: Iterable[str]) -> set[str]:
        """Return all parameters of some sites."""
        return {parameter for name in names for parameter in self.seen[name].parameters}

    def is_inside(self, name: str) -> bool:
        """Tell whether a site is part of another, such as a factor of an adapter."""
        return name in self.seen and self.seen[name].inside

    def check(self, names: Iterable[str]) -> None:
        """Raise `Refusal` for the first name that is not a site, or a site that cannot be read."""
        for name in names:
            if name in self.unseen:
                raise Refusal(*self.unseen[name])
            if name not in self.seen:
                raise Refusal(f"site {name!r}", ", ".join(self.seen) or "a model with linear maps", "name one of them")

    def recorder(
        self, model: nn.Module, sites: Mapping[str, nn.Module], n: int, wanted: Container[str]
    ) -> SiteRecorder:
        """Return a recorder of the `wanted` sites for a pass of n examples."""
        recorder = SiteRecorder(model, public_names(model, sites), n, wanted=wanted, whole=self.whole)
        recorder.copied = frozenset(name for name, site in self.seen.items() if site.copied)
        return recorder
