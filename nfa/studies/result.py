"""What every study returns and every figure draws."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Result:
    """The result of a study.

    Args:
        scalars: Values by metric key; undefined ones are absent.
        arrays: Arrays by name.
        conventions: The conventions behind the values.
    """

    scalars: Mapping[str, float]
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)
    conventions: Mapping[str, str | float] = field(default_factory=dict)
