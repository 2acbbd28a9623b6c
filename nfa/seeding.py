"""Random numbers: one independent stream per purpose, so that drawing for one purpose never affects another."""

import hashlib
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

SEEDS = 2**32  # the number of seeds that NumPy accepts


def generator(seed: int, purpose: str) -> torch.Generator:
    """Return a CPU generator that depends only on `seed` and `purpose` ("split", "init", "order/3", …)."""
    return torch.Generator().manual_seed(whole_number(seed, purpose))


def whole_number(seed: int, purpose: str) -> int:
    """Return a 63-bit number that depends only on `seed` and `purpose`, to seed other generators."""
    digest = hashlib.sha256(f"{seed}/{purpose}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def seed_generators(seed: int) -> None:
    """Seed the global generators of Python, NumPy and torch."""
    random.seed(seed)
    np.random.seed(seed % SEEDS)
    torch.manual_seed(seed)


def generator_states() -> dict[str, Any]:
    """Return the states of the global generators of Python, NumPy and torch, as plain numbers, texts and tensors."""
    name, keys, *rest = np.random.get_state()
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    numpy_state = (str(name), torch.from_numpy(np.asarray(keys, dtype=np.int64)), *rest)
    return {"python": random.getstate(), "numpy": numpy_state, "torch": torch.get_rng_state(), "cuda": cuda}


def set_generator_states(states: Mapping[str, Any]) -> None:
    """Restore what `generator_states` has returned."""
    version, internal, gauss = states["python"]
    random.setstate((version, tuple(internal), gauss))
    name, keys, *rest = states["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(states["torch"])
    if states["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(states["cuda"])


@contextmanager
def untouched() -> Iterator[None]:
    """Restore the global generators of Python, NumPy and torch (CPU and CUDA) bitwise after the block."""
    python_state, numpy_state = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng():
            yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
