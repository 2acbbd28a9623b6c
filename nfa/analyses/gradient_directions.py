"""The study `gradient_directions`: its options are checked against a workload, and one model after another is measured.
"""

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor

from nfa.analyses.parameters import DirectionsParameters
from nfa.console import stage
from nfa.errors import Refusal
from nfa.maths import embedding
from nfa.maths.permuted_labels import PERMUTATIONS
from nfa.measures.evaluation import record_outputs
from nfa.measures.gradient_gram import BUDGET, GradientGram, choose_parameters
from nfa.measures.mean_gradient import Losses
from nfa.measures.sketch_sizes import Sketches, choose_sketches
from nfa.memory import check_free_memory, free_memory
from nfa.observe.checks import check_model, check_trained
from nfa.observe.coverage import coverage
from nfa.observe.door import EXAMPLES
from nfa.observe.passes import per_example
from nfa.plain_text import counted
from nfa.studies.gradient_directions import DRAWS, ProbeExamples, correlation_with, gradient_directions
from nfa.studies.result import Result
from nfa.workload import Batch, Workload

CHANCE = f"permuted classes or wrong labels ({PERMUTATIONS} draws for the silhouette); mean_cosine: random signs"
DEFAULT_N = DirectionsParameters().n
CPU = torch.device("cpu")
MATRICES, MATRICES_OF_SHIFT = 10, 5  # in float64 at a time: a Gram matrix, cosines and what they are made of
FEWER = "1. a smaller n; 2. fewer parameters by sites=…"


class GradientAnalysis:
    """Measure the directions of per-example gradients of one model after another.

    Creating one checks the model. If the default number of examples exceeds what the probe has, all examples are used.

    Args:
        workload: The workload.
        model: The model in any of its states.
        config: The options.

    Raises:
        Refusal: Model and options do not fit together.
    """

    def __init__(self, workload: Workload, model: nn.Module, config: DirectionsParameters) -> None:
        self.workload, self.config = workload, config
        self.ids = self._examples()
        self._check_memory({}, CPU)
        few = next(iter(self._batches(self.ids[:EXAMPLES])))
        check_model(model, workload, few)
        check_trained(model, workload, few)
        self.parameters = choose_parameters(workload, model, config.sites)
        device = next(model.parameters()).device
        self.gram = GradientGram(workload, self.ids, self.parameters, budget=self._budget(device))
        self.coverage = coverage(model, self.parameters)
        self.sketches = self._sketches(model)
        self._check_memory(self.gram.memory(model), device, self.gram.groups())
        named = dict(model.named_parameters())
        self.count = sum(named[name].numel() for name in self.parameters)
        self.classes = self._classes()
        noisy = set(workload.noisy())
        self.noisy = torch.tensor([example in noisy for example in self.ids]) if noisy else None
        self._announced = False

    def _sketches(self, model: nn.Module) -> Sketches:
        """Choose sketches for this model and all that follow."""
        asked, seed = self.config.sketch, self.config.seed
        found = choose_sketches(self.gram, model, lambda: self._losses(model)[0], asked=asked, seed=seed)
        self.gram.sketches = found.projections
        return found

    def _examples(self) -> list[int]:
        """Return the first examples of the stored probe."""
        probe, n = list(self.workload.ids("probe")), self.config.n
        if n > len(probe) and n == DEFAULT_N:
            self.config = dataclasses.replace(self.config, n=len(probe))  # or Refusal
        elif n > len(probe):
            raise Refusal(f"n={n}", f"2 to {len(probe)}, the run's training examples", f"n={len(probe)}")
        return probe[:n]

    def _pairs(self, shifts: int = 0) -> float:
        """Return the bytes of matrices of all pairs of examples, which lie in the processor's memory."""
        return 8.0 * len(self.ids) ** 2 * (MATRICES + MATRICES_OF_SHIFT * shifts)

    def _budget(self, device: torch.device) -> int:
        """Return the memory for gradients: little of it means more passes. It has steps, so that it is mostly the same.
        """
        free, budget = free_memory(device), BUDGET
        left = math.inf if free is None else free - self._pairs() * (device.type == "cpu")
        while budget > max(1.0, left / 2):
            budget //= 2
        return budget

    def _check_memory(self, gradients: Mapping[str, float], device: torch.device, shifts: int = 0) -> None:
        """Raise `Refusal` where matrices of all pairs of examples, or gradients, need more memory than is free."""
        pairs = {"matrices of all pairs": self._pairs(shifts)}
        what = f"the gradients of {counted(len(self.ids), 'example')}"
        if device.type != "cpu":
            check_free_memory(pairs, CPU, what, FEWER)
        check_free_memory({**gradients, **(pairs if device.type == "cpu" else {})}, device, what, FEWER)

    def _batches(self, ids: Sequence[int]) -> Iterator[Batch]:
        return self.workload.batches("train", batch_size=self.workload.examples_at_once, ids=ids)

    def _classes(self) -> Tensor | None:
        found = [self.workload.classes(batch) for batch in self._batches(self.ids)]
        classes = [part.cpu() for part in found if part is not None]
        return torch.cat(classes) if classes else None

    def described(self) -> Mapping[str, Any]:
        """Return examples, parameters and conventions, to be stored beside the values."""
        config = self.config
        said = {
            "unit": config.unit if config.unit == "sample" else f"batch of {config.batch_size}",
            "loss": self._loss_name(),
            "bootstrap_draws": DRAWS,
            "perplexity": self.perplexity(config.units),
            "distance": "sqrt(2 - 2 cos)",
            "noise_scale": "tr(Sigma)/|G|^2 of an example's gradient, stratified by class where there are classes",
        }
        said |= {"chance": CHANCE} if config.chance else {}
        said["sketch"] = self.sketches.said
        return {
            "examples": self.ids,
            "classes": None if self.classes is None else self.classes.tolist(),
            "noisy": None if self.noisy is None else self.noisy.tolist(),
            "parameters": self.parameters,
            "coverage": self.coverage,
            "random_vectors": self.sketches.vectors,
            "conventions": {**said, "seed": config.seed},
        }

    def _loss_name(self) -> str:
        return self.workload.described_loss(plain=self.config.loss == "plain")

    def correlation(self, before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, float]:
        """Compare the cosines of two models; errors of sketches would make the correlation too small, so none then."""
        return {} if self.sketches.projections else correlation_with(before, now)

    def perplexity(self, units: int) -> float:
        """Return the perplexity of a t-SNE map of so many gradients."""
        fitting = embedding.fitting_perplexity(units)
        return fitting if self.config.perplexity == "auto" else min(self.config.perplexity, max(1.0, units - 1.0))

    def __call__(self, model: nn.Module, *, progress: str = "") -> Result:
        """Measure a model.

        Args:
            model: The model.
            progress: The label of a progress bar; empty shows none.

        Returns:
            Series and arrays, including the plain losses of the examples.
        """
        losses, plain = self._losses(model)
        gram = self.gram(model, losses, progress=progress)
        self._tell_exact(model)
        size = self.config.batch_size if self.config.unit == "batch" else 1
        probe = ProbeExamples(plain, self.classes, self.noisy, size)
        seed, chance = self.config.seed, self.config.chance
        result = gradient_directions(gram, probe, seed=seed, chance=chance, shifts=self.gram.shifts)
        return Result(result.scalars, {**result.arrays, "losses": plain.numpy()})

    def _losses(self, model: nn.Module) -> tuple[Losses | None, Tensor]:
        """Return the loss that is differentiated (None = the workload's own) and the plain losses of the examples."""
        seen: list[tuple[Tensor, Batch]] = []
        record_outputs(model, self.workload, self._batches(self.ids), lambda *recorded: seen.append(recorded))
        plain = torch.cat([per_example(self.workload.losses(*recorded), recorded[1]).cpu() for recorded in seen])
        if self.config.loss == "plain":
            return None, plain
        return self.workload.objective().fixed(seen), plain

    def _tell_exact(self, model: nn.Module) -> None:
        """Report once which parameters have no rule."""
        if self._announced or not self.gram.exact:
            return
        self._announced = True
        modules = dict(model.named_modules())
        named = [f"{name} ({type(modules[name.rpartition('.')[0]]).__name__})" for name in self.gram.exact]
        shown = ", ".join(named[:6]) + (" …" if len(named) > 6 else "")
        stage("notice", f"no rule covers {shown}; torch.func computes these gradients, exactly but slowly")

    def announce(self) -> None:
        """Print what is measured and what is left out."""
        classes = "" if self.classes is None else f" of {counted(len(self.classes.unique()), 'class', 'classes')}"
        parameters = counted(self.count, "parameter")
        stage("gradients", f"{counted(len(self.ids), 'example')}{classes}, {parameters}, loss {self._loss_name()}")
        for notice in self.notices():
            stage("notice", notice)

    def notices(self) -> Iterator[str]:
        """Yield what is left out, and why."""
        n, config = len(self.ids), self.config
        if config.unit == "batch" and n % config.batch_size:
            yield f"{counted(n % config.batch_size, 'example')} left over from batches of {config.batch_size}: not used"
        if self.sketches.projections:
            how = f"gradients are sketched ({self.sketches.said})"
            yield f"{how}, so correlation_with_previous is left out; sketch=none computes them exactly"
        if self.classes is None:
            yield "the examples have no classes, so there are no series within and between classes and no silhouette"
            return
        _, counts = self.classes.unique(return_counts=True)
        if alone := int((counts == 1).sum()):
            few = f"{alone} of {counted(len(counts), 'class', 'classes')} with only one example"
            yield f"{few}, so there is no unbiased noise scale; increase n"
