"""The session of a named workload's training: its description and its optimizer."""

from typing import Any

from nfa.observe.answers import answers
from nfa.registry.families.custom.config import CustomConfig
from nfa.registry.families.custom.family import NamedWorkloads
from nfa.registry.families.custom.maker import find
from nfa.registry.families.custom.making import code_of, data_digest
from nfa.registry.families.protocol import Ready
from nfa.registry.stopwatch import Stopwatch
from nfa.registry.tracking import TrackedRun
from nfa.registry.training.alignment_session import AlignmentSession, fields_of
from nfa.registry.training.config_json import training_config
from nfa.registry.training.hidden_matrices import hidden_matrices
from nfa.registry.training.optimizers import Group, Optimizers, build

ANALYSED = 512  # examples at a checkpoint for max_samples=0


def described(config: CustomConfig, ready: Ready) -> dict[str, Any]:
    """Return the content of the run's config.json."""
    data = {"name": config.workload, "digest": data_digest(ready.workload, ready.example_ids)}
    stored = training_config("train", config.workload, CustomConfig, fields_of(config), data)
    return {**stored, "code": code_of(find(config.workload)), "loss": ready.workload.described_loss(plain=True)}


class CustomSession(AlignmentSession):
    """The training of a workload made by a function."""

    config: CustomConfig

    def __init__(self, run: TrackedRun, ready: Ready, clock: Stopwatch) -> None:
        analysed = ready.config.max_samples or min(ANALYSED, len(ready.example_ids["probe"]))
        super().__init__(run, ready, clock, max_samples=analysed)

    def described(self, ready: Ready) -> dict[str, Any]:
        return described(self.config, ready)

    def named_params(self) -> dict[str, Any]:
        """Return the arguments of the function."""
        return self.config.arguments()

    def sample_answers(self) -> list[float]:
        return answers(self.workload, self.model)

    def model_line(self) -> str:
        return f"{type(self.model).__name__}, {self.parameters():,} parameters"

    def title(self) -> str:
        return NamedWorkloads(self.config.workload).title(self.stored)

    def optimizers(self) -> Optimizers:
        """Return optimizers for all trained parameters; one with a companion takes only matrices of hidden sites."""
        config, named = self.config, dict(self.model.named_parameters())
        trained = {name: weight for name, weight in named.items() if weight.requires_grad}
        hidden = self._hidden() if config.entry.companion else list(trained)
        groups = [
            Group(
                [trained[name] for name in hidden],
                [weight for name, weight in trained.items() if name not in hidden],
            )
        ]
        return build(config, groups, config.rate_on(len(self.example_ids["train"])))

    def _hidden(self) -> list[str]:
        return hidden_matrices(self.workload, self.model, self.analysis.found if self.analysis else None)
