"""Check whether targets and a rank fit the layers of a model."""

from collections.abc import Collection, Mapping, Sequence

from nfa.errors import Refusal
from nfa.registry.families.language.config import RESIDUAL, TrainLoraConfig

Sides = Mapping[str, tuple[int, int]]  # [o, i] of layers by path


def fits(name: str, target: str) -> bool:
    """Return whether a layer's path ends with a target."""
    return name == target or name.endswith(f".{target}")


def fitting(names: Collection[str], targets: Sequence[str]) -> list[str]:
    """Paths that a target is the end of, in order; raise `Refusal` for a target that is the end of none."""
    ends = sorted({name.rpartition(".")[2] for name in names})
    for target in targets:
        if not any(fits(name, target) for name in names):
            raise Refusal(f"targets={target!r}, which no module fits", ", ".join(ends), f"targets={','.join(ends[:2])}")
    return [name for name in names if any(fits(name, target) for target in targets)]


def check_rank(config: TrainLoraConfig, sides: Sides) -> None:
    """`Refusal` for more directions than any layer has; where the adapter starts as a part of the weights or of an
    update, for more than all of them have."""
    if config.init == "full" or not sides:
        return
    is_part = config.init in (*RESIDUAL, "svd")
    most = {name: min(shape) for name, shape in sides.items()}
    name = (min if is_part else max)(most, key=lambda each: most[each])
    if config.rank > most[name]:
        got = f"init={config.init} with rank={config.rank}, more than {name} has ({most[name]})"
        what = "the adapter is a part of the update" if config.init == "svd" else "the adapter is a part of the weights"
        said = what if is_part else "no layer has a larger rank"
        raise Refusal(got, f"a rank up to {most[name]}: {said}", f"rank={most[name]}")


def trained(config: TrainLoraConfig, sides: Sides) -> int:
    """Return the number of trained weights: those of the factors, or of the layers themselves."""
    if config.init == "full":
        return sum(o * i for o, i in sides.values())
    return config.rank * sum(o + i for o, i in sides.values())
