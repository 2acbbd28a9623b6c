"""What every study returns and every figure draws."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Result:
    """Scalars by metric key (undefined ones are absent), arrays by name, and the conventions behind them."""

    scalars: Mapping[str, float]
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)
    conventions: Mapping[str, str | float] = field(default_factory=dict)
