"""A teacher's weight update of a module, synthesised from that of a trained adapter."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from nfa.maths.low_rank import FactorPair, LowRank, energy_ratio, extended, noise, noise_sigma, norm, svd_of_product
from nfa.seeding import generator

CIRCULAR = (
    "A teacher synthesised from an adapter is circular for the data that the adapter was trained on: "
    "whatever starts from it has already seen these data."
)


@dataclass(frozen=True)
class Synthesized:
    """U diag(s) Vᵀ + N of a module: `kept` triplets of the adapter, `added` triplets, and noise with entries of size σ.

    Energies are shares of ‖U diag(s) Vᵀ‖_F² + E‖N‖_F² with E‖N‖_F² = σ² o i; None if all are zero. `clamped` means that
    the module has fewer directions than requested. `left_out` is the share of the adapter's energy that is not kept.
    """

    matrix: LowRank
    kept: int
    clamped: bool
    sigma: float
    before: list[float]
    left_out: float | None
    energies: tuple[float, float, float] | None

    @property
    def added(self) -> int:
        """The number of triplets in the tail."""
        return len(self.matrix.s) - self.kept


def synthesize(
    update: FactorPair, name: str, *, rank: int, target_rank: int, decay: float, noise_scale: float, seed: int
) -> Synthesized:
    """Keep `rank` singular triplets of an adapter's ΔW (above rounding), extend them to `target_rank`, and add noise.

    The added ones have s_{r+j} = s_r e^(−decay·j) and random directions orthonormal to all others; the noise has ‖N‖₂ ≈
    noise_scale·s_r. Random numbers depend only on `seed` and the module's `name`.
    """
    found = svd_of_product(update)
    kept = max(1, min(rank, found.rank))
    matrix = extended(found.truncated(kept), target_rank, decay, generator(seed, f"directions/{name}"))
    sigma = noise_sigma(noise_scale * float(found.s[kept - 1]), update.shape)
    held = energy_ratio(found.s[:kept], norm(update))
    return Synthesized(
        matrix=LowRank(*(part.float().contiguous() for part in matrix)),
        kept=kept,
        clamped=len(matrix.s) < target_rank,
        sigma=sigma,
        before=found.s.tolist(),
        left_out=None if held is None else 1 - held,
        energies=_shares(matrix, kept, sigma),
    )


def _shares(matrix: LowRank, kept: int, sigma: float) -> tuple[float, float, float] | None:
    squares = matrix.s.double().square()
    parts = float(squares[:kept].sum()), float(squares[kept:].sum()), sigma**2 * len(matrix.u) * matrix.vh.shape[1]
    total = sum(parts)
    return (parts[0] / total, parts[1] / total, parts[2] / total) if total else None


def teacher_update(matrix: LowRank, sigma: float, seed: int, name: str) -> Float[Tensor, "o i"] | FactorPair:
    """Return ΔW = U diag(s) Vᵀ + N of a module, dense, with noise drawn from seed and name; as factors for σ = 0."""
    if not sigma:
        return matrix.factors
    update = noise((len(matrix.u), matrix.vh.shape[1]), sigma, seed, name)
    return update.addmm_(matrix.u * matrix.s, matrix.vh)
