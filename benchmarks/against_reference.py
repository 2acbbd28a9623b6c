"""A checkpoint against the reference: `python -m benchmarks.against_reference RUN_ID EPOCH [EXAMPLES]`.

Every default relation of every analysed layer, once by the fast path in float32 and once by the reference: float64,
one example at a time, dense matrices, torch.func.
"""

import sys
import time

import torch
import torch.nn as nn

from benchmarks.record import store
from nfa import reference
from nfa.analyses.alignment import Analysis
from nfa.observe.passes import site_weights
from nfa.registry import stored_runs
from nfa.registry.analyses.config import AnalyzeConfig
from nfa.registry.families.mlp.workload import MLPClassifier
from nfa.relations import DEFAULT, RELATIONS


def exact(
    model: nn.Module, initial: nn.Module, site: str, batch: tuple[torch.Tensor, torch.Tensor]
) -> dict[str, float]:
    """The relations of one layer."""
    inputs, targets = batch
    weight, start = (net.get_parameter(f"{site}.weight").detach() for net in (model, initial))
    onehot = nn.functional.one_hot(targets, 10).double()
    delta = reference.loss_gradients(model, site, inputs, onehot, lambda outputs, y: (outputs - y).square().mean(dim=1))
    h = reference.site_inputs(model, site, inputs)
    g = -delta @ weight.double()
    matrices = {
        "agop": reference.agop(reference.jacobians(model, site, inputs)),
        "nfm": reference.nfm(weight),
        "nfm_init_removed": reference.nfm_init_removed(weight, start),
        "g": reference.second_moment(g, g),
        "h": reference.second_moment(h, h),
    }
    return {name: reference.cosine(*(matrices[matrix] for matrix in RELATIONS[name].matrices)) for name in DEFAULT}


def main(run_id: str, epoch: int, examples: int) -> None:
    """Compute both, compare and record."""
    model, workload = stored_runs.load_checkpoint(run_id, epoch)
    initial = stored_runs.load_checkpoint(run_id, 0).model
    config = AnalyzeConfig(max_samples=examples)
    analysis = Analysis(workload, model, config, lambda names, sites: site_weights(workload, initial, names, sites))
    start = time.perf_counter()
    fast = analysis.values(model)
    seconds = time.perf_counter() - start
    batch = next(workload.batches("train", batch_size=examples, ids=analysis.ids))
    start = time.perf_counter()
    differences = dict.fromkeys(DEFAULT, 0.0)
    for index, site in enumerate(analysis.sites):
        for name, value in exact(model, initial, f"layers.{index}", (batch.inputs, batch.targets)).items():
            differences[name] = max(differences[name], abs(value - fast[f"{site}/{name}"]))
    slow = time.perf_counter() - start
    assert isinstance(workload, MLPClassifier)
    data = workload.data.name
    store(
        "against_reference",
        f"Five layers of a trained {data} network, {examples} examples: fast path in float32 against nfa/reference",
        {
            **{f"largest |Δ| of {name}": f"{value:.1e}" for name, value in differences.items()},
            "fast path, s": round(seconds, 2),
            "reference, s": round(slow, 1),
        },
        [f"MLP {workload.config.width} × {workload.config.depth}, {workload.config.optimizer}, epoch {epoch}."],
    )


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 500)
