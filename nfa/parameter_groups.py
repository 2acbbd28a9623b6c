"""The parts of a model whose learning is compared; reports read this module without PyTorch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class ParameterGroups:
    """Parts of a model, from its inputs to its outputs, and the roles of three of them.

    Args:
        names: The names of the parameters in each part.
        front: The first part, whose only learning signal is what the parts behind it send back; None if there is none.
        back: The part right before the readout; None if there is none.
        output: The readout; None if there is none.
        built_in: The factor by which the model itself scales the gradient of `front` relative to `output`, whatever it
            is trained on.
    """

    names: Mapping[str, Sequence[str]]
    front: str | None
    back: str | None
    output: str | None
    built_in: float = 1.0
