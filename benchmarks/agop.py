"""AGOP of all five layers of 3072-1024×5-10 on 2,000 examples, against vmap(jacrev) + einsum."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from benchmarks.baselines import agop_vmap_jacrev
from benchmarks.record import gemm_rate, in_turn, ratio, store
from nfa.maths.congruence import Congruence
from nfa.measures.site_matrices import Conventions, SiteMatrices, SiteMeasures
from nfa.observe.passes import BATCH_SIZE, Precision, site_weights
from nfa.registry.datasets.images import ImageData
from nfa.registry.families.mlp.config import TrainConfig
from nfa.registry.families.mlp.workload import MLPClassifier
from nfa.relations import TRAINING, needed
from nfa.studies.alignment import alignment

EXAMPLES, PIXELS, WIDTH, DEPTH, CLASSES = 2000, 3072, 1024, 5, 10
CONFIG = TrainConfig(width=WIDTH, depth=DEPTH)


def simulated_workload() -> MLPClassifier:
    """The reference network on simulated pixels."""
    draw = np.random.default_rng(0)
    images = draw.integers(0, 256, (EXAMPLES, PIXELS), dtype=np.uint8)
    labels = np.arange(EXAMPLES, dtype=np.int64) % CLASSES
    data = ImageData("simulated", 255.0, images, labels, images[:1], labels[:1])
    return MLPClassifier(CONFIG, data, {"train": list(range(EXAMPLES)), "probe": list(range(EXAMPLES))})


def ours(
    workload: MLPClassifier, model: torch.nn.Module, initial: Mapping[str, Tensor], precision: Precision, n: int
) -> SiteMatrices:
    """Matrices of all hidden layers; examples repeat beyond the pool, so that memory of data does not grow with n."""
    ids = [index % EXAMPLES for index in range(n)]
    batches = workload.batches("train", batch_size=BATCH_SIZE, ids=ids)
    conventions = Conventions(precision=precision)
    return SiteMeasures(workload, list(initial), needed(TRAINING), conventions, initial)(model, batches)


def dense(matrix: object) -> Tensor:
    """An exact matrix, multiplied out."""
    assert isinstance(matrix, Congruence)
    return matrix.dense()


def useful_operations() -> dict[str, float]:
    """Multiplications and additions: forward, ten-direction backward to every hidden layer's output, KᵀK.

    At the last hidden layer KᵀK of all directions is one product.
    """
    hidden = WIDTH * WIDTH * (DEPTH - 1)
    forward = 2.0 * EXAMPLES * (PIXELS * WIDTH + hidden + WIDTH * CLASSES)
    backward = 2.0 * EXAMPLES * CLASSES * (hidden + WIDTH * CLASSES)
    gram = 2.0 * EXAMPLES * WIDTH * WIDTH * (CLASSES * (DEPTH - 1) + 1)
    return {"forward": forward, "backward": backward, "gram": gram}


def main() -> None:
    """Time, compare and record."""
    workload = simulated_workload()
    model = workload.model()
    sites = list(workload.sites(model))[:-1]
    initial = site_weights(workload, model, sites)
    inputs = next(workload.batches("train", batch_size=EXAMPLES)).inputs
    weights = [weight.detach() for weight in model.matrices()]
    seconds = in_turn(
        {
            "baseline": lambda: agop_vmap_jacrev(weights, inputs),
            "float32": lambda: ours(workload, model, initial, "float32", EXAMPLES),
            "bfloat16": lambda: ours(workload, model, initial, "bfloat16", EXAMPLES),
        }
    )
    exact = agop_vmap_jacrev([weight.double() for weight in weights], inputs.double())
    single = ours(workload, model, initial, "float32", EXAMPLES)
    half = ours(workload, model, initial, "bfloat16", EXAMPLES)
    errors = [
        float((dense(single[site]["agop"]) - agop).norm() / agop.norm())
        for site, agop in zip(sites, exact, strict=True)
    ]
    cosines, rounded = alignment(single).scalars, alignment(half).scalars
    rate, operations = gemm_rate(), useful_operations()
    best = min(seconds["float32"])
    triangle = operations["forward"] + operations["backward"] + operations["gram"] / 2
    store(
        "agop",
        "AGOP of five layers, 3072-1024×5-10, 2,000 examples",
        {
            "vmap(jacrev) + einsum, s": round(sorted(seconds["baseline"])[2], 2),
            "float32, s": round(sorted(seconds["float32"])[2], 2),
            "bfloat16 operands, s": round(sorted(seconds["bfloat16"])[2], 2),
            "float32, times faster": round(ratio(seconds["baseline"], seconds["float32"]), 2),
            "bfloat16 operands, times faster": round(ratio(seconds["baseline"], seconds["bfloat16"]), 2),
            "float32, largest relative error (Frobenius) against float64": f"{max(errors):.1e}",
            "bfloat16, largest change of a cosine": f"{max(abs(cosines[key] - rounded[key]) for key in cosines):.1e}",
            "GEMM rate, GFLOP/s": round(rate / 1e9),
            "share of the GEMM rate in useful operations": round(sum(operations.values()) / best / rate, 2),
            "the same, counting KᵀK by its computed triangle only": round(triangle / best / rate, 2),
        },
        [
            "Both ways use the same simulated pixels and run alternately. Ratios are medians over rounds.",
            "Useful operations are the forward pass, the backward pass for ten directions, and KᵀK counted as a "
            "full product.",
            "bfloat16 is fast only if the processor has bfloat16 units. Otherwise nfa rounds the operands and "
            "multiplies them in float32.",
        ],
    )


if __name__ == "__main__":
    main()
