"""Gradient directions of stored runs."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from nfa import checkpoint_schedule
from nfa.console import stage
from nfa.registry import stored_runs, tracking
from nfa.registry.analyses import gradient_arrays, gradient_directions_comparison, gradient_directions_report
from nfa.registry.analyses.config import DIRECTION_EPOCHS, GradientDirectionsConfig
from nfa.registry.analyses.gradient_arrays import paths
from nfa.registry.analyses.stored import UNDECISIVE, AnalysisPlan, OpenedRun, StoredAnalysis, analyse, workload_of
from nfa.registry.importing import importing
from nfa.registry.tracking import TrackedRun


def gradient_directions(config: GradientDirectionsConfig) -> None:
    """Analyse the runs of `config.run_id`; compare them if there are several."""
    analyse(GradientDirections(config))


class GradientDirections(StoredAnalysis):
    """The analysis of the entry point `gradient_directions`."""

    entrypoint, title, followed_by = "gradient_directions", "gradient directions", "gradient_flow"
    pictures = ("differences", "seed_comparison", "comparison", "gradient_directions")
    undecisive = UNDECISIVE

    def epochs(self, existing: Sequence[int]) -> list[int]:
        """Return the epochs asked for; for the default, those that exist, or all if none of them exists."""
        if self.config.epochs != DIRECTION_EPOCHS:
            return super().epochs(existing)
        return [epoch for epoch in checkpoint_schedule.parse(DIRECTION_EPOCHS, 0) if epoch in existing] or [*existing]

    def identity(self, epochs: Sequence[int]) -> Mapping[str, Any]:
        """Return the parameters and all epochs, because each map starts from the one before."""
        return {**super().identity(epochs), "epochs": list(epochs)}

    def files(self, epoch: int, unit: str) -> list[str]:
        """Return the paths of a checkpoint's arrays."""
        return [*paths(epoch, unit).values()]

    def space(self, epochs: Sequence[int]) -> int:
        """Return the bytes of cosine matrices in float32, and of figures."""
        units: int = self.config.units
        return len(epochs) * (4 * units**2 + 4 * 2**20)

    def begin(self, opened: OpenedRun, plan: AnalysisPlan, run: TrackedRun) -> None:  # noqa: ARG002
        """Log how gradients are sketched."""
        assert isinstance(opened, DirectionsOfRun)
        run.log_params({"sketch": opened.analysis.sketches.size})

    def open(self, source: str, epochs: Sequence[int]) -> "DirectionsOfRun":
        return DirectionsOfRun(source, self.config, epochs)

    def line(self, values: Mapping[str, float]) -> str:
        return gradient_directions_report.line(values)

    def report(self, run: TrackedRun, title: str) -> None:
        gradient_directions_report.report(run, title)

    def compare(self, run: TrackedRun, parts: Mapping[str, str], sources: Mapping[str, str]) -> None:
        gradient_directions_comparison.compare(run, parts, sources)


class DirectionsOfRun(OpenedRun):
    """The measurement of the run `source` as `config` asks for it. Creating it loads and checks the data."""

    def __init__(self, source: str, config: GradientDirectionsConfig, epochs: Sequence[int]) -> None:
        with importing():  # PyTorch, which is needed only for what has to be measured
            from nfa.analyses.gradient_directions import GradientAnalysis

        self.source, self.asked, self.epochs = source, config, list(epochs)
        self.unit = tracking.unit(source)
        self.workload = workload = workload_of(source, config)
        self.model = workload.model()
        self._load(self.epochs[0])
        self.analysis = GradientAnalysis(workload, self.model, config)
        self._announced = False

    def _load(self, epoch: int) -> None:
        stored_runs.load_weights(self.model, self.source, epoch, self.workload)

    def described(self) -> Mapping[str, Any]:
        """Examples, parameters and conventions."""
        return self.analysis.described()

    def values(self, epoch: int, run: TrackedRun) -> dict[str, float]:
        """Return the values of a checkpoint; its arrays are stored in `run`."""
        self._announce()
        self._load(epoch)
        result = self.analysis(self.model, progress=f"{self.unit} {epoch}")
        arrays = dict(result.arrays)
        arrays["map"] = self._map(epoch, run, arrays["cosines"], arrays["kept"])
        agreement = self._agreement(epoch, run, arrays)
        gradient_arrays.save(run, epoch, arrays)
        return {**result.scalars, **agreement}

    def flops(self) -> float | None:
        """Return the operations of a checkpoint, which are the same for all."""
        return self._flops

    @cached_property
    def _flops(self) -> float | None:
        from nfa.registry.analyses.flops import directions_flops

        return directions_flops(self.analysis, self.model)

    def _map(self, epoch: int, run: TrackedRun, cosines: Any, kept: Any) -> Any:
        from nfa.maths import embedding

        if len(kept) < embedding.FEWEST:
            stage("notice", f"{self.unit} {epoch}: {len(kept)} gradients are finite and nonzero, too few for a map")
            return np.zeros((0, 2), dtype=np.float32)
        start = None
        for earlier in reversed([earlier for earlier in self.epochs if earlier < epoch]):
            positions, there = (gradient_arrays.load(run.run_id, earlier, key) for key in ("map", "kept"))
            if len(positions) and set(there) & set(kept):
                start = embedding.continued(positions, there, kept, cosines)
                break
        perplexity = self.analysis.perplexity(len(kept))
        return embedding.tsne(cosines, perplexity=perplexity, seed=self.asked.seed, start=start)

    def _agreement(self, epoch: int, run: TrackedRun, arrays: Mapping[str, Any]) -> dict[str, float]:
        """Return how similar the structure is to that at the previously analysed checkpoint."""
        earlier = [before for before in self.epochs if before < epoch]
        if not earlier:
            return {}
        before = {key: gradient_arrays.load(run.run_id, earlier[-1], key) for key in ("cosines", "kept")}
        return self.analysis.correlation(before, arrays)

    def _announce(self) -> None:
        """Print once what is measured and what is left out."""
        if self._announced:
            return
        self._announced = True
        self.analysis.announce()
        if (n := len(self.analysis.ids)) < self.asked.n:
            stage("notice", f"the run has only {n} training examples: n={n} is used")
