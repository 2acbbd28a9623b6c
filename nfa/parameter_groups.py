"""How the parts of a model are told apart whose learning is compared; reports read it without PyTorch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class ParameterGroups:
    """Parts of a model, from its inputs to its outputs, by the names of their parameters, and three of them by role.

    `front` is the first part that learns from nothing but what the parts behind it send back, `output` the readout,
    `back` what is right before it; None where a model has no such part. `built_in` is the factor by which the model
    itself scales the gradient of `front` against that of `output`, whatever it is trained on.
    """

    names: Mapping[str, Sequence[str]]
    front: str | None
    back: str | None
    output: str | None
    built_in: float = 1.0
