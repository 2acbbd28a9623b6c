"""The weights before the first update: they belong to the run, and are stored with it."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor

from nfa.errors import Refusal
from nfa.observe.found import Sites
from nfa.observe.passes import site_weights
from nfa.registry import tracking
from nfa.workload import Workload

FILE = "initial_weights.safetensors"
SITE, PARAMETER = "site/", "parameter/"


class Start:
    """Those that the run has stored, or, at step 0, those that the model has now; else they are not `known`.

    `again`: the run has been watched before under the same names.
    """

    def __init__(self, run: Any, prefix: str, workload: Workload, model: nn.Module, step: int, *, again: bool) -> None:
        self.run, self.path, self.workload, self.model = run, f"{prefix}{FILE}", workload, model
        self.prefix, self.step, self.again = prefix, step, again
        stored = again and tracking.has_artifact(run.info.run_id, self.path)
        self.stored = tracking.get_tensors(run.info.run_id, self.path)[0] if stored else {}
        self.taken: dict[str, Tensor] = {}

    @property
    def known(self) -> bool:
        """Whether there are any."""
        return bool(self.stored) or self.step == 0

    def of_sites(self, names: Sequence[str], sites: Sites) -> Mapping[str, Tensor]:
        """W⁽⁰⁾ of each."""
        return self._of(SITE, site_weights(self.workload, self.model, names, sites))

    def of_parameters(self) -> Mapping[str, Tensor] | None:
        """Those of everything that is trained, by their names in the model; None where they are not known."""
        trained = {name: weight for name, weight in self.model.named_parameters() if weight.requires_grad}
        return self._of(PARAMETER, {name: weight.detach() for name, weight in trained.items()}) if self.known else None

    def _of(self, kind: str, now: Mapping[str, Tensor]) -> dict[str, Tensor]:
        taken = {name: self._one(f"{kind}{name}", weight) for name, weight in now.items()}
        self.taken |= {f"{kind}{name}": weight for name, weight in taken.items()}
        return taken

    def _one(self, key: str, now: Tensor) -> Tensor:
        if not self.stored:
            return now.detach().clone()
        before = self.stored.get(key)
        if before is None or before.shape != now.shape or (self.step == 0 and not torch.equal(before.to(now), now)):
            raise self._another(f"whose initial weights of {key.partition('/')[2]} are not this model's")
        return before.to(now)

    def check(self) -> None:
        """`Refusal` where the run has been watched before and nothing says that this is the same training.

        Called when everything that is needed has been taken.
        """
        if self.again and self.step == 0 and not self.stored:
            raise self._another("that has been watched before")

    def _another(self, why: str) -> Refusal:
        named = f" with prefix={self.prefix!r}" if self.prefix else ""
        return Refusal(
            f"run {self.run.info.run_id[:12]}{named}, {why}",
            "one watch under each name of a run, or the same one going on",
            "another prefix= for another watch; step= (that of the model now) where a training goes on; or a new run",
        )

    def save(self) -> None:
        """Keep them with the run."""
        if self.taken and not self.stored:
            tensors = {name: tensor.cpu().contiguous() for name, tensor in self.taken.items()}
            tracking.put_tensors(self.run, self.path, tensors)
