"""What the tests of `gradient_directions` share: tiny trainings, analyses in this process, and what they store."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from nfa import reference
from nfa.figures import gradient_pictures
from nfa.maths import embedding
from nfa.registry import stored_runs, tracking
from nfa.registry.analyses import gradient_directions_comparison, gradient_directions_report
from nfa.registry.analyses.config import GradientDirectionsConfig
from nfa.registry.analyses.gradient_directions import gradient_directions
from nfa.registry.families.mlp.config import TrainConfig
from nfa.registry.stopwatch import Stopwatch
from nfa.registry.training.start import train
from nfa.workload import Batch
from tests.support.analyses import Series, series
from tests.support.stores import Store

TINY = {"width": 8, "depth": 2, "lr": 0.01, "loss": "cross-entropy", "batch_size": 64, "max_samples": 20, "seed": 3}
SHORT = {"epochs": 5, "schedule": "0,5"}
LEARNS = {"optimizer": "adam", "lr": 0.01}
MAIN = [5, 20]  # epochs of the default list that the run "main" has
RUNS: dict[str, dict[str, Any]] = {
    "main": {"epochs": 20, "schedule": "0,5,20"},
    "fast": {**SHORT, "lr": 0.1},  # of the same examples as main
    "seed 4": {**SHORT, "seed": 4},
    "dying": {**SHORT, "seed": 1717},  # some examples reach no unit
    "ghm": {**SHORT, "weighting": "ghm", "ghm_bins": 5, "ghm_alpha": 0.75, **LEARNS},
    "noisy": {**SHORT, "label_noise": 0.3, **LEARNS},
}
FIGURES = {
    gradient_pictures: ("gradient_similarities", "gradient_map", "gradient_montage"),
    gradient_directions_report: ("gradient_series", "noise_scale"),
    gradient_directions_comparison: ("gradient_montage", "gradient_series", "gradient_differences"),
}
SERIES = {  # those that have an error
    "mean_cosine",
    "within_class_cosine",
    "between_class_cosine",
    "silhouette",
    "effective_rank",
    "noise_scale",
    "mean_gradient_squared",
    "gradient_variance",
}
WITHOUT_ERROR = {"zero_fraction", "correlation_with_previous"}
WITH_CHANCE = {"mean_cosine", "within_class_cosine", "between_class_cosine", "silhouette"}
BESIDE = ("_se", "_chance", "_chance_sd")
OF_CLASSES = {"within_class_cosine", "between_class_cosine", "silhouette"}
NAMES = {
    "cosines": "gradient_similarities",
    "map": "gradient_directions_tsne",
    "norms": "gradient_norms",
    "kept": "gradient_examples",
    "losses": "gradient_losses",
    "draws": "gradient_bootstrap",
}
Losses = Callable[[Tensor, Batch], Tensor]


@dataclass(frozen=True)
class Trained:
    """Runs by name, and their store."""

    store: Store
    ids: dict[str, str]


@contextmanager
def undrawn() -> Iterator[None]:
    """Drawing takes longer than a tiny analysis."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tracking, "save_picture", lambda *_, **__: None)
        patch.setattr(tracking, "put_images", lambda *_: None)
        for module, names in FIGURES.items():
            for name in names:
                patch.setattr(module, name, lambda *_, **__: None)
        yield


@contextmanager
def unmapped() -> Iterator[None]:
    """So do maps."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(embedding, "tsne", lambda cosines, **_: cosines[:, :2])
        yield


def train_all() -> None:
    """Every run of `RUNS`, in the store that this process uses."""
    with undrawn():
        for name, changes in RUNS.items():
            train(TrainConfig(**{**TINY, **changes, "run_name": name}), Stopwatch())


def directed(store: Store, *, pictures: bool = False, maps: bool = False, **options: Any) -> str:
    """Id of the run that an analysis in this process makes: of several sources, the one that compares them."""
    known = store.runs()
    with ExitStack() as without:
        for wanted, leave_out in ((pictures, undrawn), (maps, unmapped)):
            if not wanted:
                without.enter_context(leave_out())
        gradient_directions(GradientDirectionsConfig(**options))
    return next(run_id for run_id in store.runs() if run_id not in known)


def directions_of(store: Store, run_id: str) -> Series:
    """Series by name, without the losses and without the prefix."""
    found = series(store, run_id)
    return {key.removeprefix("gradient/"): of_key for key, of_key in found.items() if key.startswith("gradient/")}


def array(store: Store, run_id: str, key: str, epoch: int) -> Any:
    """A stored array."""
    return np.load(store.artifact(run_id, f"arrays/{NAMES[key]}_epoch_{epoch}.npy"), allow_pickle=False)


def array_names(epochs: Sequence[int]) -> set[str]:
    """Paths of all arrays of an analysis."""
    return {f"arrays/{name}_epoch_{epoch}.npy" for name in NAMES.values() for epoch in epochs}


def stored_gram(store: Store, run_id: str, epoch: int) -> Tensor:
    """K of the units with a direction, from cosines and norms."""
    norms, cosines = (torch.tensor(array(store, run_id, key, epoch)).double() for key in ("norms", "cosines"))
    return norms[:, None] * cosines * norms


def example_gradients(
    source: str, epoch: int, n: int, names: Sequence[str] | None = None, losses: Losses | None = None
) -> Tensor:
    """γ [n P] of the first `n` of the probe by the reference, of the losses that were trained on unless others."""
    model, workload = stored_runs.load_checkpoint(source, epoch, device="cpu")
    return reference.example_gradients(model, workload, batch_of(source, n), names, losses)


def shorten(store: Store, source: str, count: int) -> None:
    """Leave a run the first `count` of its probe."""
    ids = store.json(source, "example_ids.json")
    store.write_json(source, "example_ids.json", {**ids, "probe": ids["probe"][:count]})


def fill(store: Store, source: str, epoch: int, entry: float) -> None:
    """Make all weights of a checkpoint the same number."""
    path = f"checkpoints/epoch_{epoch:04d}.safetensors"
    store.change_tensors(source, path, lambda tensors: [weight.fill_(entry) for weight in tensors.values()])


def batch_of(source: str, n: int) -> Batch:
    """The first `n` of the stored probe."""
    workload = stored_runs.load_workload(source, device="cpu")
    return next(workload.batches("train", batch_size=n, ids=workload.ids("probe")[:n]))


def assert_same_matrix(found: Tensor, expected: Tensor) -> None:
    """Up to float32 rounding, relative to the largest entry."""
    assert found.shape == expected.shape
    assert float((found - expected).abs().max()) < 1e-5 * float(expected.abs().max())
