"""Tables of a synthesised teacher."""

from collections.abc import Mapping
from typing import Any

from nfa.plain_text import table_row
from nfa.registry.families.language.teacher.config import SynthesizeTeacherConfig
from nfa.registry.families.language.teacher.synthesis import CIRCULAR, Synthesized
from nfa.registry.families.language.teacher.updates import UpdateSource

COLUMNS = ("kept", "added", "s_1", "s_kept", "s_last", "sigma", "kept %", "added %", "noise %")
CONVENTIONS = {
    "update": "(alpha / rank) B A over the pristine base, its SVD from thin QR of the factors, in float64",
    "tail": "s_{kept+j} = s_kept exp(-decay j), directions random and orthonormal to all others",
    "noise": "Gaussian entries of standard deviation sigma = noise_scale s_kept / (sqrt(o) + sqrt(i)), whose spectral "
    "norm is about noise_scale s_kept; drawn anew from seed and module name, never stored",
    "energy": "shares of the teacher's squared Frobenius norm; of the noise its expectation, sigma^2 o i",
}


def written(config: SynthesizeTeacherConfig, source: UpdateSource, made: Mapping[str, Synthesized]) -> str:
    """Content of synthesis_report.txt."""
    wide = max(len(name) for name in made) + 2
    lines = [f"Teacher synthesised from {source.label}", "", CIRCULAR, ""]
    widths = [10] * len(COLUMNS)
    lines += [table_row("module", COLUMNS, wide, widths)]
    lines += [table_row(name, _cells(one), wide, widths) + _note(one) for name, one in made.items()]
    energies = [one.energies for one in made.values() if one.energies]
    means = [sum(parts) / len(energies) for parts in zip(*energies, strict=True)]
    lines += ["", "mean energy: kept {:.1%}, added {:.1%}, noise {:.1%}".format(*means)]
    left_out = [one.left_out for one in made.values() if one.left_out is not None]
    lines += [f"at most {max(left_out):.1%} of a module's energy was not kept", ""]
    lines += [f"clamped: {_names(made, 'clamped')}", f"zero: {_zero(made)}", ""]
    lines += [f"{name}: {value}" for name, value in announced(config).items()]
    return "\n".join([*lines, "", *(f"{name}: {said}" for name, said in CONVENTIONS.items())])


def _cells(one: Synthesized) -> list[str]:
    s = one.matrix.s
    numbers = [f"{value:.3g}" for value in (float(s[0]), float(s[one.kept - 1]), float(s[-1]), one.sigma)]
    shares = [f"{100 * share:.1f}" for share in one.energies] if one.energies else [""] * 3
    return [str(one.kept), str(one.added), *numbers, *shares]


def _note(one: Synthesized) -> str:
    return "  clamped" * one.clamped + "  zero" * (one.energies is None)


def _names(made: Mapping[str, Synthesized], what: str) -> str:
    return f"{sum(bool(getattr(one, what)) for one in made.values())} of {len(made)} modules"


def _zero(made: Mapping[str, Synthesized]) -> str:
    return ", ".join(name for name, one in made.items() if one.energies is None) or "no module"


def announced(config: SynthesizeTeacherConfig) -> dict[str, Any]:
    """The parameters that decide what is added to an adapter."""
    return {name: getattr(config, name) for name in ("target_rank", "decay", "noise_scale", "seed")}


def content(config: SynthesizeTeacherConfig, source: UpdateSource, made: Mapping[str, Synthesized]) -> dict[str, Any]:
    """Content of results.json: an undefined value is absent."""
    return {
        "source": source.label,
        "circular": CIRCULAR,
        **announced(config),
        "modules": {name: _described(one) for name, one in made.items()},
        "conventions": CONVENTIONS,
    }


def _described(one: Synthesized) -> dict[str, Any]:
    shape = [len(one.matrix.u), one.matrix.vh.shape[1]]
    shares = dict(zip(("kept", "added", "noise"), one.energies, strict=True)) if one.energies else {}
    left_out = {} if one.left_out is None else {"left_out_energy": one.left_out}
    return {
        "shape": shape,
        "kept": one.kept,
        "added": one.added,
        "clamped": one.clamped,
        "zero": one.energies is None,
        "sigma": one.sigma,
        "energy": shares,
        **left_out,
        "singular_values_before": one.before,
        "singular_values": one.matrix.s.tolist(),
    }
