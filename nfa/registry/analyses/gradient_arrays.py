"""The arrays that a gradient analysis stores at each checkpoint."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np

from nfa.registry import tracking
from nfa.registry.analyses.checkpoint_units import unit_of
from nfa.registry.tracking import TrackedRun

NAMES = {
    "cosines": "gradient_similarities",
    "map": "gradient_directions_tsne",
    "norms": "gradient_norms",
    "kept": "gradient_examples",
    "losses": "gradient_losses",
    "draws": "gradient_bootstrap",
}
Array = np.ndarray[Any, np.dtype[Any]]


def paths(epoch: int, unit: str) -> dict[str, str]:
    """Return the artifact paths of a checkpoint's arrays, by array name."""
    return {key: f"arrays/{name}_{unit}_{epoch}.npy" for key, name in NAMES.items()}


def save(run: TrackedRun, epoch: int, arrays: Mapping[str, Array]) -> None:
    """Store a checkpoint's arrays."""
    for key, path in paths(epoch, _unit(run.run_id)).items():
        tracking.put_array(run.info, path, arrays[key])


def load(run_id: str, epoch: int, key: str) -> Array:
    """Load one of a checkpoint's arrays."""
    return tracking.get_array(run_id, paths(epoch, _unit(run_id))[key])


@lru_cache(maxsize=64)
def _unit(run_id: str) -> str:
    """Return the checkpoint unit of a run, cached because a run's config.json does not change."""
    return unit_of(tracking.get_json(run_id, "config.json"))
