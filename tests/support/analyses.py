"""What the tests of `analyze` share: analyses in this process, their series, and the same numbers by the reference."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pytest
import torch
import torch.nn as nn
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from torch import Tensor

from nfa import reference
from nfa.bookkeeping import is_bookkeeping
from nfa.registry import tracking
from nfa.registry.analyses import alignment_report
from nfa.registry.analyses.alignment import analyze
from nfa.registry.analyses.config import AnalyzeConfig
from nfa.sinks import MlflowRun
from nfa.watching import reports
from tests.support.stores import Finished, Store

CHECKPOINTS = [0, 1, 2, 4]
SITES = ["layer_0", "layer_1"]
SECONDS = "nfa/seconds"  # marks a checkpoint as finished
PAIRS = {  # what each cosine is of, by its definition
    "agop_nfm": ("agop", "nfm"),
    "agop_nfm_init_removed": ("agop", "nfm_init_removed"),
    "g_vs_h": ("g", "h"),
    "g_vs_m": ("g", "nfm"),
    "h_vs_m": ("h", "nfm"),
    "out_g_vs_h": ("out_g", "out_h"),
    "out_g_vs_m": ("out_g", "out_m"),
    "out_h_vs_m": ("out_h", "out_m"),
    "fact_nfm": ("fact", "nfm"),
}
Series = dict[str, dict[int, float]]


@contextmanager
def undrawn() -> Iterator[None]:
    """Drawing takes longer than a tiny analysis."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tracking, "save_picture", lambda *_, **__: None)
        patch.setattr(MlflowRun, "figure", lambda *_: None)
        patch.setattr(reports, "alignment_pages", lambda *_, **__: [Figure()])
        patch.setattr(alignment_report, "analysis_page", lambda *_, **__: None)
        for pages in ("alignment_pages", "grid_pages"):
            patch.setattr(alignment_report, pages, lambda *_, **__: [])
        yield


@dataclass(frozen=True)
class DrawOnly:
    """Before a process starts: of its figures only one is drawn."""

    name: str

    def __call__(self) -> None:
        draw = tracking.save_picture

        def chosen(run: Any, figure: Any, name: str) -> None:
            if name == self.name:
                draw(run, figure, name)

        setattr(tracking, "save_picture", chosen)  # noqa: B010 - another signature


def analysed(store: Store, **options: Any) -> str:
    """Id of the run that an analysis in this process makes: of several sources, the one that compares them."""
    known = store.runs()
    with undrawn():
        analyze(AnalyzeConfig(**options))
    return next(run_id for run_id in store.runs() if run_id not in known)


def series(store: Store, run_id: str) -> Series:
    """Step → value by metric key, without what it has cost, which differs; a step that was logged twice is an error."""
    found: Series = {}
    for key, step, value in store.metrics(run_id):
        of_key = found.setdefault(key, {})
        assert step not in of_key, f"{key} twice at {step}"
        of_key[step] = value
    return {key: of_key for key, of_key in found.items() if not is_bookkeeping(key)}


def values(store: Store, run_id: str, epoch: int = 4) -> dict[str, float]:
    """Relations of all sites at a checkpoint."""
    found = series(store, run_id)
    return {key: of_key[epoch] for key, of_key in found.items() if epoch in of_key and "loss" not in key}


# ---- the same by the reference


def network(weights: Mapping[str, Tensor]) -> nn.Sequential:
    """A bias-free ReLU network of a checkpoint's tensors; the matrix of layer i is module 2 i."""
    matrices = [weights[f"layers.{index}.weight"].double() for index in range(len(weights))]
    parts: list[nn.Module] = []
    for matrix in matrices:
        linear = nn.Linear(matrix.shape[1], matrix.shape[0], bias=False)
        linear.weight = nn.Parameter(matrix)
        parts += [linear, nn.ReLU()]
    assert all(earlier.shape[0] == later.shape[1] for earlier, later in pairwise(matrices))
    return nn.Sequential(*parts[:-1])


def squared_error(outputs: Tensor, labels: Tensor) -> Tensor:
    """Mean over classes of the squared distance to the one-hot label."""
    return (outputs - torch.eye(10, dtype=outputs.dtype)[labels]).square().mean(dim=1)


def probe(finished: Finished, count: int) -> list[int]:
    """The first of the run's stored probe."""
    ids: list[int] = finished.store.json(finished.run_id, "example_ids.json")["probe"]
    return ids[:count]


class Exact:
    """Every matrix of an nn.Linear `site` of a network in float64, one example at a time."""

    def __init__(
        self,
        net: nn.Module,
        site: str,
        inputs: Tensor,
        targets: Tensor,
        loss: reference.Loss = squared_error,
        initial: Tensor | None = None,
    ) -> None:
        W = net.get_parameter(f"{site}.weight").detach().double()
        h, z = reference.site_inputs(net, site, inputs), reference.site_outputs(net, site, inputs)
        delta = reference.loss_gradients(net, site, inputs, targets, loss)
        self.jacobians = reference.jacobians(net, site, inputs)
        self.matrices = {
            "agop": reference.agop(self.jacobians),
            "nfm": reference.nfm(W),
            "nfm_init_removed": reference.nfm_init_removed(W, W if initial is None else initial),
            "g": reference.second_moment(-delta @ W, -delta @ W),
            "h": reference.second_moment(h, h),
            "fact": reference.fact(W, h, delta),
            "out_g": reference.second_moment(delta, delta),
            "out_h": reference.second_moment(z, z),
            "out_m": reference.nfm(W.T),
        }

    @classmethod
    def of(cls, finished: Finished, epoch: int, layer: int, count: int) -> "Exact":
        """Of a layer at a checkpoint, on the first `count` examples of the probe."""
        checkpoints = finished.store.checkpoints(finished.run_id)
        net, ids = network(checkpoints[f"epoch_{epoch:04d}.safetensors"]), probe(finished, count)
        digits, initial = load_digits(), checkpoints["epoch_0000.safetensors"][f"layers.{layer}.weight"]
        x, y = torch.tensor(digits.data[ids] / 16), torch.tensor(digits.target[ids])
        return cls(net, str(2 * layer), x, y, initial=initial)

    def relations(self, *, centre: Any = "none", top_k: int = 10) -> dict[str, float]:
        """All relations that are defined."""
        found, matrices = {}, self.matrices
        for name, (a, b) in PAIRS.items():
            with suppress(ValueError):
                found[name] = reference.cosine(matrices[a], matrices[b], centre=centre)
            with suppress(ValueError):
                found[f"{name}_overlap"] = reference.subspace_overlap(matrices[a], matrices[b], top_k)
        for name, matrix in matrices.items():
            with suppress(ValueError):
                found[f"{name}_stable_rank"] = reference.stable_rank(matrix)
        with suppress(ValueError):
            slope, error = reference.exponent(matrices["nfm"], matrices["agop"])
            found |= {"agop_nfm_exponent": slope, "agop_nfm_exponent_se": error}
        return found
