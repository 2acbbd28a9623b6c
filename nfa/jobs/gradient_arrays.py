"""The arrays that a gradient analysis stores at each checkpoint."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from nfa import tracking
from nfa.tracking import TrackedRun

NAMES = {
    "cosines": "gradient_similarities",
    "map": "gradient_directions_tsne",
    "norms": "gradient_norms",
    "kept": "gradient_examples",
    "losses": "gradient_losses",
    "draws": "gradient_bootstrap",
}
Array = np.ndarray[Any, np.dtype[Any]]


def paths(epoch: int) -> dict[str, str]:
    """Artifact paths of a checkpoint's arrays, by what they hold."""
    return {key: f"arrays/{name}_epoch_{epoch}.npy" for key, name in NAMES.items()}


def save(run: TrackedRun, epoch: int, arrays: Mapping[str, Array]) -> None:
    """Store a checkpoint's arrays."""
    for key, path in paths(epoch).items():
        tracking.put_array(run.info, path, arrays[key])


def load(run_id: str, epoch: int, key: str) -> Array:
    """One of them."""
    return tracking.get_array(run_id, paths(epoch)[key])
