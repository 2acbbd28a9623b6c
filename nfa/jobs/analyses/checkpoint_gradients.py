"""Gradient directions at the checkpoints of one stored run."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nfa import tracking
from nfa.config import GradientDirectionsConfig
from nfa.console import stage
from nfa.errors import Refusal
from nfa.evaluation import hear_outputs
from nfa.jobs.analyses import gradient_arrays
from nfa.maths import embedding
from nfa.measures.gradient_gram import GradientGram, choose_parameters
from nfa.observe.checks import EXAMPLES, check_model
from nfa.observe.passes import per_example
from nfa.protocols import Batch
from nfa.studies.gradient_directions import DRAWS, Probe, gradient_directions
from nfa.tracking import TrackedRun

DEFAULT_N = GradientDirectionsConfig().n


class CheckpointGradients:
    """What `config` asks of the run `source`; making one loads the data and refuses what cannot be done."""

    def __init__(self, source: str, config: GradientDirectionsConfig, epochs: Sequence[int]) -> None:
        self.source, self.config, self.epochs = source, config, list(epochs)
        self.unit = tracking.unit(source)
        self.workload = tracking.load_workload(source, device=config.device, data_dir=config.data_dir or None)
        self.model = self.workload.model()
        self._load(self.epochs[0])
        self.asked, self.ids = config.n, self._examples()
        check_model(self.model, self.workload, next(self._batches(self.ids[:EXAMPLES])))
        self.parameters = choose_parameters(self.workload, self.model, config.sites)
        self.gram = GradientGram(self.workload, self.ids, self.parameters)
        self.classes = self._classes()
        noisy = set(self.workload.example_ids.get("noisy", ()))
        self.noisy = torch.tensor([example in noisy for example in self.ids]) if noisy else None
        self._told: set[str] = set()

    def _examples(self) -> list[int]:
        """The first of the stored probe."""
        probe, n = list(self.workload.ids("probe")), self.config.n
        if n > len(probe) and n == DEFAULT_N:
            self.config = dataclasses.replace(self.config, n=len(probe))  # refuses what so few do not allow
        elif n > len(probe):
            raise Refusal(f"n={n}", f"2 to {len(probe)}, the run's training examples", f"n={len(probe)}")
        return probe[:n]

    def _batches(self, ids: Sequence[int]) -> Any:
        return self.workload.batches("train", batch_size=self.workload.examples_at_once, ids=ids)

    def _classes(self) -> Tensor | None:
        found = [self.workload.classes(batch) for batch in self._batches(self.ids)]
        classes = [part.cpu() for part in found if part is not None]
        return torch.cat(classes) if classes else None

    def _load(self, epoch: int) -> None:
        tracking.load_weights(self.model, self.source, epoch)

    def described(self) -> Mapping[str, Any]:
        """Examples, parameters and conventions."""
        config = self.config
        said = {
            "unit": config.unit if config.unit == "sample" else f"batch of {config.batch_size}",
            "loss": self._loss_name(),
            "bootstrap_draws": DRAWS,
            "perplexity": self._perplexity(config.units),
            "distance": "sqrt(2 - 2 cos)",
            "noise_scale": "tr(Sigma)/|G|^2 of an example's gradient, stratified by class where there are classes",
        }
        return {
            "examples": self.ids,
            "classes": None if self.classes is None else self.classes.tolist(),
            "noisy": None if self.noisy is None else self.noisy.tolist(),
            "parameters": self.parameters,
            "conventions": {**said, "seed": config.seed},
        }

    def _loss_name(self) -> str:
        return self.workload.described_loss(plain=self.config.loss == "plain")

    def _perplexity(self, units: int) -> float:
        fitting = embedding.fitting_perplexity(units)
        return fitting if self.config.perplexity == "auto" else min(self.config.perplexity, max(1.0, units - 1.0))

    def values(self, epoch: int, run: TrackedRun) -> dict[str, float]:
        """Series of a checkpoint; its arrays go to `run`."""
        self._announce()
        self._load(epoch)
        losses, plain = self._losses()
        gram = self.gram(self.model, losses, progress=f"{self.unit} {epoch}")
        self._tell(
            "exact", self.gram.exact, "no rule covers {}: their gradients are made by torch.func, exact but slow"
        )
        size = self.config.batch_size if self.config.unit == "batch" else 1
        probe = Probe(plain, self.classes, self.noisy, size)
        result = gradient_directions(gram, probe, seed=self.config.seed)
        arrays = {**result.arrays, "losses": plain.numpy()}
        arrays["map"] = self._map(epoch, run, arrays["cosines"], arrays["kept"])
        agreement = self._agreement(epoch, run, arrays["cosines"], arrays["kept"])
        gradient_arrays.save(run, epoch, arrays)
        return {**result.scalars, **agreement}

    def _losses(self) -> tuple[Callable[[Tensor, Batch], Tensor] | None, Tensor]:
        """What is differentiated (None = the workload's own loss), and the plain losses of the examples."""
        seen: list[tuple[Tensor, Batch]] = []
        hear_outputs(self.model, self.workload, self._batches(self.ids), lambda *heard: seen.append(heard))
        plain = torch.cat([per_example(self.workload.losses(*heard), heard[1]).cpu() for heard in seen])
        if self.config.loss == "plain":
            return None, plain
        return self.workload.objective().fixed(seen), plain

    def _map(self, epoch: int, run: TrackedRun, cosines: Any, kept: Any) -> Any:
        if len(kept) < embedding.FEWEST:
            stage("notice", f"{self.unit} {epoch}: {len(kept)} gradients have a direction; there is no map of so few")
            return np.zeros((0, 2), dtype=np.float32)
        start = None
        for earlier in reversed([earlier for earlier in self.epochs if earlier < epoch]):
            positions, there = (gradient_arrays.load(run.run_id, earlier, key) for key in ("map", "kept"))
            if len(positions) and set(there) & set(kept):
                start = embedding.continued(positions, there, kept, cosines)
                break
        perplexity = self._perplexity(len(kept))
        return embedding.tsne(cosines, perplexity=perplexity, seed=self.config.seed, start=start)

    def _agreement(self, epoch: int, run: TrackedRun, cosines: Any, kept: Any) -> dict[str, float]:
        """How far the structure has settled since the checkpoint analysed before."""
        earlier = [before for before in self.epochs if before < epoch]
        if not earlier:
            return {}
        before, there = (gradient_arrays.load(run.run_id, earlier[-1], key) for key in ("cosines", "kept"))
        value = embedding.agreement(before, there, cosines, kept)
        return {} if value is None else {"gradient/correlation_with_previous": value}

    def _tell(self, key: str, names: Sequence[str], text: str) -> None:
        """A notice, once."""
        if names and key not in self._told:
            self._told.add(key)
            modules = dict(self.model.named_modules())
            named = [f"{name} ({type(modules[name.rpartition('.')[0]]).__name__})" for name in names]
            stage("notice", text.format(", ".join(named[:6]) + (" …" if len(named) > 6 else "")))

    def _announce(self) -> None:
        """What is measured and what is left out, once."""
        if "gradients" in self._told:
            return
        self._told.add("gradients")
        numbers = dict(self.model.named_parameters())
        count = sum(numbers[name].numel() for name in self.parameters)
        classes = "" if self.classes is None else f" of {len(self.classes.unique())} classes"
        stage("gradients", f"{len(self.ids)} examples{classes}, {count:,} parameters, loss {self._loss_name()}")
        for notice in self._notices():
            stage("notice", notice)

    def _notices(self) -> Iterator[str]:
        n, config = len(self.ids), self.config
        if n < self.asked:
            yield f"the run has {n} training examples, so n={n}"
        if config.unit == "batch" and n % config.batch_size:
            yield f"{n % config.batch_size} examples are left over from whole batches of {config.batch_size}"
        if self.classes is None:
            yield "the examples have no classes: no series within and between classes, no silhouette"
            return
        _, counts = self.classes.unique(return_counts=True)
        if alone := int((counts == 1).sum()):
            yield f"{alone} of {len(counts)} classes have one example: no unbiased noise scale; give more n"
