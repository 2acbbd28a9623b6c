"""The weights before the first update, which an MLflow run stores."""

from collections.abc import Mapping, Sequence

import torch
import torch.nn as nn
from torch import Tensor

from nfa.errors import Refusal
from nfa.observe.found_sites import Sites
from nfa.observe.passes import site_weights
from nfa.workload import Workload

SITE, PARAMETER = "site/", "parameter/"


class Start:
    """The weights before the first update: those that are `stored`, or at step 0 those of the model now; otherwise
    unknown.

    `run` names the run if it has been watched before under the same names; it is empty otherwise.
    """

    def __init__(
        self,
        workload: Workload,
        model: nn.Module,
        step: int | None = None,
        *,
        stored: Mapping[str, Tensor] = {},
        run: str = "",
    ) -> None:
        self.workload, self.model, self.step, self.stored, self.run = workload, model, step, stored, run
        self._taken: dict[str, Tensor] = {}

    @property
    def known(self) -> bool:
        """Whether the initial weights are known."""
        return bool(self.stored) or self.step == 0

    @property
    def new(self) -> Mapping[str, Tensor]:
        """The initial weights that have been used and are not stored yet."""
        return {} if self.stored else self._taken

    def of_sites(self, names: Sequence[str], sites: Sites) -> Mapping[str, Tensor]:
        """Return W⁽⁰⁾ of each site."""
        return self._of(SITE, site_weights(self.workload, self.model, names, sites))

    def of_parameters(self) -> Mapping[str, Tensor] | None:
        """Return the initial value of each trainable parameter by name; None if they are not known."""
        trained = {name: weight for name, weight in self.model.named_parameters() if weight.requires_grad}
        return self._of(PARAMETER, {name: weight.detach() for name, weight in trained.items()}) if self.known else None

    def _of(self, kind: str, now: Mapping[str, Tensor]) -> dict[str, Tensor]:
        taken = {name: self._one(f"{kind}{name}", weight) for name, weight in now.items()}
        self._taken |= {f"{kind}{name}": weight for name, weight in taken.items()}
        return taken

    def _one(self, key: str, now: Tensor) -> Tensor:
        if not self.stored:
            return now.detach().clone()
        before = self.stored.get(key)
        if before is None or before.shape != now.shape or (self.step == 0 and not torch.equal(before.to(now), now)):
            raise self._another(f"whose initial weights of {key.partition('/')[2]} differ from this model's")
        return before.to(now)

    def check(self) -> None:
        """Raise `Refusal` if the run has been watched before and nothing shows that this is the same training.

        It is called once all initial weights that are needed have been taken.
        """
        if self.run and self.step == 0 and not self.stored:
            raise self._another("which has been watched before")

    def _another(self, why: str) -> Refusal:
        return Refusal(
            f"{self.run}, {why}",
            "one watch for each prefix in a run, or the continuation of the same watch",
            "pass another prefix= for another watch, or step= (the model's step now) to continue; or start a new run",
        )
