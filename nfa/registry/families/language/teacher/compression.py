"""The weight update of a module as LoRA factors of a given rank, with the approximation error."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from nfa.maths import low_rank, svd_flops
from nfa.maths.low_rank import FactorPair

Update = FactorPair | Tensor  # ΔW [o i] as B A, or dense
ENERGY_RANKS = (4, 8, 16, 32)


@dataclass(frozen=True)
class Randomised:
    """Settings of the randomised SVD of a dense update."""

    oversampling: int = 16
    iterations: int = 4
    seed: int = 0


@dataclass(frozen=True)
class Compressed:
    """Factors of a module in float32, with (alpha/rank) B A = ΔW_r, and a description of ΔW.

    A zero update has zero factors and no ratios (None). `spectrum` holds up to max(rank, 32) singular values; `rank`
    is the number of those above rounding errors, and `energies` are energy ratios by rank.
    """

    factors: FactorPair
    shape: tuple[int, int]
    norm: float
    spectrum: list[float]
    rank: int
    energy_ratio: float | None
    relative_error: float | None
    stable_rank: float | None
    energies: Mapping[int, float]
    flops: int


def compress(update: Update, rank: int, alpha: float, how: Randomised = Randomised()) -> Compressed:
    """Return balanced factors of the `rank` largest singular triplets of ΔW.

    The SVD is exact for ΔW = B A and randomised for a dense ΔW. The relative error ‖ΔW − (alpha/rank) B A‖_F / ‖ΔW‖_F
    is measured on the returned float32 factors.
    """
    shape = (update.shape[0], update.shape[1])
    asked = max(rank, *ENERGY_RANKS)
    if isinstance(update, FactorPair):
        found, flops = low_rank.svd_of_product(update), svd_flops.flops_of_product(shape, len(update.a))
    else:
        more = {"oversampling": how.oversampling, "iterations": how.iterations}
        found = low_rank.svd_of_matrix(update, asked, seed=how.seed, **more)
        flops = svd_flops.flops_of_matrix(shape, asked, how.oversampling, how.iterations)
    scaling, size = alpha / rank, low_rank.norm(update)
    factors = FactorPair(*(part.float().contiguous() for part in low_rank.balanced(found.truncated(rank), scaling)))
    spectrum = found.s[:asked].tolist()
    ratios = {r: low_rank.energy_ratio(found.s[:r], size) for r in ENERGY_RANKS if r <= min(shape)}
    return Compressed(
        factors=factors,
        shape=shape,
        norm=size,
        spectrum=spectrum,
        rank=found.truncated(asked).rank,
        energy_ratio=low_rank.energy_ratio(found.s[:rank], size),
        relative_error=low_rank.relative_error(update, FactorPair(scaling * factors.b, factors.a)),
        stable_rank=low_rank.stable_rank(spectrum[0], size),
        energies={r: ratio for r, ratio in ratios.items() if ratio is not None},
        flops=flops,
    )
