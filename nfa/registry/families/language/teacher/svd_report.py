"""Tables of updates and their factors of a given rank."""

from collections.abc import Mapping
from statistics import fmean
from typing import Any

from nfa.plain_text import number, table_row
from nfa.registry.families.language.teacher.compression import ENERGY_RANKS, Compressed
from nfa.registry.families.language.teacher.config import LoraSvdConfig
from nfa.registry.families.language.teacher.synthesis import CIRCULAR
from nfa.registry.families.language.teacher.updates import UpdateSource

CONVENTIONS = {
    "factors": "B = U sqrt(s / scaling), A = sqrt(s / scaling) V^T, scaling = alpha / rank, float32",
    "energy": "|dW_r|^2 / |dW|^2 (Frobenius), between 0 and 1",
    "error": "|dW - (alpha / rank) B A| / |dW| (Frobenius), measured on the stored factors",
    "stable rank": "|dW|_F^2 / |dW|_2^2",
    "mean": "over modules whose update is not zero",
}
WIDTHS = (14, 10, 9, 9, 13, 10, 10, 12, *[8] * len(ENERGY_RANKS))
SVD = {
    True: "exact, from thin QR of the factors",
    False: "randomised where rank + oversampling is below the shorter side, else exact",
}


def means(made: Mapping[str, Compressed]) -> dict[str, float]:
    """Mean energy ratio and relative error over the modules that have them."""
    values = {
        "energy_ratio": [one.energy_ratio for one in made.values() if one.energy_ratio is not None],
        "relative_error": [one.relative_error for one in made.values() if one.relative_error is not None],
    }
    return {name: fmean(found) for name, found in values.items()}


def mean_energies(made: Mapping[str, Compressed]) -> dict[int, float]:
    """Mean energy ratio by rank, over the modules that have it."""
    found = {rank: [one.energies[rank] for one in made.values() if rank in one.energies] for rank in ENERGY_RANKS}
    return {rank: fmean(values) for rank, values in found.items() if values}


def content(config: LoraSvdConfig, source: UpdateSource, made: Mapping[str, Compressed]) -> dict[str, Any]:
    """Content of svd_analysis_rank{r}.json: undefined values are absent."""
    return {
        "source": source.label,
        "source_run_id": source.run_id,
        "base": {"name": source.base_name, "digest": source.base_digest},
        "rank": config.rank,
        "alpha": config.alpha,
        "svd": SVD[source.columns is not None],
        **({"circular": CIRCULAR} if source.circular else {}),
        "means": means(made),
        "mean_energy_by_rank": mean_energies(made),
        "zero_modules": zero_modules(made),
        "init_flops": sum(one.flops for one in made.values()),
        "modules": {name: _described(one) for name, one in made.items()},
        "conventions": CONVENTIONS,
    }


def zero_modules(made: Mapping[str, Compressed]) -> list[str]:
    """Modules without an update."""
    return [name for name, one in made.items() if one.rank == 0]


def _described(one: Compressed) -> dict[str, Any]:
    ratios = {"energy_ratio": one.energy_ratio, "relative_error": one.relative_error, "stable_rank": one.stable_rank}
    return {
        "shape": list(one.shape),
        "norm": one.norm,
        "numerical_rank": one.rank,
        **{name: value for name, value in ratios.items() if value is not None},
        "energy_by_rank": dict(one.energies),
        "singular_values": one.spectrum,
        "flops": one.flops,
    }


def written(config: LoraSvdConfig, source: UpdateSource, made: Mapping[str, Compressed]) -> str:
    """Content of svd_report_rank{r}.txt."""
    lines = [f"Factors of rank {config.rank} of {source.label}", ""]
    lines += [CIRCULAR, ""] * source.circular
    wide = max(len(name) for name in (*made, "module")) + 2
    heading = ("shape", "norm", "energy", "error", "stable rank", "s_1", f"s_{config.rank}", "energy at")
    lines += [table_row("module", (*heading, *(f"r={rank}" for rank in ENERGY_RANKS)), wide, WIDTHS)]
    lines += [table_row(name, _cells(one, config.rank), wide, WIDTHS) for name, one in made.items()]
    found, energies = means(made), mean_energies(made)
    at = ", ".join(f"{value:.4f} at rank {rank}" for rank, value in energies.items())
    lines += ["", f"mean energy ratio {found['energy_ratio']:.4f}, mean relative error {found['relative_error']:.3g}"]
    lines += [f"mean energy ratio by rank: {at}", f"zero: {', '.join(zero_modules(made)) or 'no module'}"]
    lower = [f"{name} ({one.rank})" for name, one in made.items() if 0 < one.rank < config.rank]
    lines += [f"of lower rank than {config.rank}: {', '.join(lower) or 'no module'}"]
    flops = sum(one.flops for one in made.values())
    lines += [f"SVD: {SVD[source.columns is not None]}; {flops:.4g} floating-point operations", ""]
    return "\n".join([*lines, *(f"{name}: {said}" for name, said in CONVENTIONS.items())])


def _cells(one: Compressed, rank: int) -> list[str]:
    ratios = [number(one.energy_ratio, ".4f"), number(one.relative_error, ".2g"), number(one.stable_rank, ".2f")]
    ends = [f"{one.spectrum[place]:.3g}" for place in (0, rank - 1)]
    by_rank = [number(one.energies.get(each), ".4f") for each in ENERGY_RANKS]
    return [f"{one.shape[0]} x {one.shape[1]}", f"{one.norm:.4g}", *ratios, *ends, "", *by_rank]
