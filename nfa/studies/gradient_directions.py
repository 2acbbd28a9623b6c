"""Whether per-example gradients point in the same direction, and how noisy the mean gradient is."""

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from nfa.maths import embedding, permuted_labels
from nfa.maths import gram as gram_maths
from nfa.maths.float32_products import full_float32
from nfa.maths.gradient_sketch import cosine_error as sketched_cosine_error
from nfa.seeding import generator
from nfa.studies.direction_series import SERIES
from nfa.studies.result import Result

DRAWS = 500  # bootstrap samples
SIGNIFICANT = 2.0  # |G|² must exceed so many standard errors for a noise scale


@dataclass(frozen=True)
class ProbeExamples:
    """The examples whose gradients are compared.

    Args:
        losses: The loss of each example [n].
        classes: The class of each example [n], where there are classes.
        noisy: True for examples whose label is known to be wrong [n].
        batch_size: 1 compares single examples; a larger number compares the mean gradients of consecutive batches.

    Raises:
        ValueError: There are fewer than two batches.
    """

    losses: Float[Tensor, " n"]
    classes: Int[Tensor, " n"] | None = None
    noisy: Bool[Tensor, " n"] | None = None
    batch_size: int = 1

    def __post_init__(self) -> None:
        if len(self.losses) < 2 * self.batch_size:
            raise ValueError(f"{len(self.losses)} examples in batches of {self.batch_size}: two or more are needed")

    @property
    def strata(self) -> Int[Tensor, " n"]:
        """The stratum within which each example is resampled: its class, where there are classes."""
        return torch.zeros(len(self.losses), dtype=torch.long) if self.classes is None else self.classes


@full_float32()
def gradient_directions(
    gram: Float[Tensor, "n n"],
    probe: ProbeExamples,
    *,
    seed: int,
    chance: bool = True,
    shifts: Float[Tensor, "g n n"] | None = None,
) -> Result:
    """Compute statistics of the directions of per-example gradients, with bootstrap standard errors.

    Scalars are at `gradient/<name>`, their standard errors at `gradient/<name>_se`; an undefined value is absent. They
    are the mean cosines over pairs (all, within and between classes), the silhouette of the classes on 1 − C, the
    effective rank tr(K)²/‖K‖², the noise scale tr Σ/|G|² of single examples with its two parts (absent unless |G|²
    exceeds two of its standard errors), the share of units without a direction (without a standard error), and how well
    wrong labels are detected: by a low mean cosine to the own class, and by a high loss. A unit is an example or a
    batch.

    The chance levels of the series in `direction_series.WITH_CHANCE`, with their standard deviations, are at
    `gradient/<name>_chance` and `gradient/<name>_chance_sd`: classes, or wrong labels, are permuted at random among the
    examples that the value is computed from. They are absent where this changes nothing. Those of the mean cosine over
    all pairs are of directions with random signs.

    For a sketched K, `gradient/sketch_error` is the standard error of a cosine C_ab from the sketch (root mean square
    over pairs a ≠ b), and the other standard errors include the sketch: √(bootstrap² + sketch²).

    Args:
        gram: The Gram matrix K of single examples [n, n].
        probe: The examples.
        seed: The seed of the bootstrap, and of the permutations for the silhouette.
        chance: Whether to compute chance levels.
        shifts: The shifts of a sketched K (`GradientGram.shifts`) [g, n, n]; None for an exact one.

    Returns:
        The scalars, and the arrays `cosines` [m, m] and `norms` [m] of the m units with a direction, `kept` [m], their
        positions among all units, and `draws` [series, d], the bootstrap values in the order of `SERIES` (NaN where
        undefined).
    """
    study = _Study(gram, probe, seed, shifts)
    ones, draws = study.value(), study.values(one=False)
    errors = study.with_sketch(gram_maths.standard_errors(draws))
    _drop_insignificant(ones, errors)
    scalars = {f"gradient/{name}": float(value) for name, value in ones.items() if np.isfinite(float(value))}
    known = {f"gradient/{name}_se": error for name, error in errors.items() if f"gradient/{name}" in scalars}
    scalars |= study.sketch_error()
    scalars |= {**known, "gradient/zero_fraction": float((~study.directions.kept).double().mean())}
    levels = study.levels(generator(seed, "permutations of classes")) if chance else {}
    for name, moments in levels.items():
        scalars[f"gradient/{name}_chance"], scalars[f"gradient/{name}_chance_sd"] = moments
    return Result(scalars, study.arrays(draws))


def correlation_with(before: Mapping[str, np.ndarray], now: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Compare the cosine matrices of two models on the same examples.

    Args:
        before: The arrays of `gradient_directions` for the earlier model.
        now: The arrays for the later model.

    Returns:
        The correlation under its metric key; empty where it is undefined.
    """
    value = embedding.agreement(before["cosines"], before["kept"], now["cosines"], now["kept"])
    return {} if value is None else {"gradient/correlation_with_previous": value}


def _drop_insignificant(values: dict[str, Tensor], errors: Mapping[str, float]) -> None:
    """Remove a noise scale whose |G|² cannot be distinguished from zero."""
    squared = float(values["mean_gradient_squared"])
    error = errors.get("mean_gradient_squared")
    if error is None or not squared > SIGNIFICANT * error:
        values.pop("noise_scale", None)


class _Study:
    def __init__(self, gram: Tensor, probe: ProbeExamples, seed: int, shifts: Tensor | None) -> None:
        self.probe = probe
        self.shifts = None if shifts is None else shifts.double()
        self.shifts_of_units = None if self.shifts is None else torch.stack([self._units(one) for one in self.shifts])
        self.strata = probe.strata if probe.batch_size == 1 else torch.zeros(len(self._units(gram)), dtype=torch.long)
        self._take(gram.double())
        self.of_units = gram_maths.resamples(self.strata, DRAWS, generator(seed, "bootstrap of units"))
        self.of_examples = self.of_units
        if probe.batch_size > 1:
            self.of_examples = gram_maths.resamples(probe.strata, DRAWS, generator(seed, "bootstrap of examples"))

    def _units(self, gram: Tensor) -> Tensor:
        size = self.probe.batch_size
        return gram_maths.block_means(gram, size) if size > 1 else gram

    def _take(self, gram: Tensor) -> None:
        self.gram, self.units = gram, self._units(gram)
        cosines, kept = gram_maths.cosines(self.units)
        classes = self.probe.classes if self.probe.batch_size == 1 else None
        self.directions = gram_maths.CosineStatistics(cosines, kept, classes, self.strata)

    def moved(self, shift: Tensor) -> "_Study":
        """Return the study of K plus a shift, for the same examples."""
        other = copy.copy(self)
        other._take(self.gram + shift)
        return other

    def value(self) -> dict[str, Tensor]:
        """Return every statistic of the sample itself."""
        return {name: values[0] for name, values in self.values(one=True).items()}

    def with_sketch(self, errors: Mapping[str, float]) -> dict[str, float]:
        """Add the errors of the sketch, Σ_g ((f(K + shift_g) − f(K − shift_g))/2)², to squared standard errors."""
        if self.shifts is None:
            return dict(errors)
        squared = {name: error**2 for name, error in errors.items()}
        for shift in self.shifts:
            up, down = (self.moved(sign * shift).value() for sign in (1, -1))
            squared = {name: square + float(up[name] - down[name]) ** 2 / 4 for name, square in squared.items()}
        return {name: math.sqrt(square) for name, square in squared.items() if math.isfinite(square)}

    def sketch_error(self) -> dict[str, float]:
        """Return the error of a cosine under its key; empty for an exact K."""
        if self.shifts_of_units is None:
            return {}
        value = sketched_cosine_error(self.units, self.shifts_of_units)
        return {} if value is None else {"gradient/sketch_error": value}

    def values(self, *, one: bool) -> dict[str, Tensor]:
        """Return every statistic of the sample itself (`one`) or of the bootstrap samples; NaN where it is undefined.
        """
        units, examples = (torch.ones_like(d[:1]) if one else d for d in (self.of_units, self.of_examples))
        directions, probe = self.directions, self.probe
        squared, variance = gram_maths.noise(self.gram, examples, probe.strata)
        found = {
            **directions.means(units),
            "effective_rank": gram_maths.participation_ratio(self.units, units, self.strata, self.shifts_of_units),
            "noise_scale": variance / squared,
            "mean_gradient_squared": squared,
            "gradient_variance": variance,
        }
        if directions.classes is None:
            return found
        found["silhouette"] = directions.silhouette(units)
        if probe.noisy is not None and probe.noisy.any() and not probe.noisy.all():
            own = directions.to_own_class(units)
            found["label_noise_auc"] = gram_maths.separation(-own, probe.noisy, units)
            found["label_noise_auc_of_loss"] = gram_maths.separation(probe.losses[None], probe.noisy, units)
        return found

    def levels(self, random: torch.Generator) -> dict[str, permuted_labels.Moments]:
        """Return mean and standard deviation of each series that has a chance level."""
        kept, classes = self.directions.kept, self.directions.classes
        cosines = self.directions.cosines[kept][:, kept]
        found = {"mean_cosine": permuted_labels.random_signs(cosines)} if len(cosines) > 1 else {}
        if classes is None:
            return found
        if permuted_labels.can_differ(classes[kept]):
            within, between = permuted_labels.mean_cosines(cosines, classes[kept])
            found |= {"within_class_cosine": within, "between_class_cosine": between}
            found["silhouette"] = permuted_labels.silhouette(cosines, classes[kept], random)
        return found | self._levels_of_noise()

    def _levels_of_noise(self) -> dict[str, permuted_labels.Moments]:
        noisy = self.probe.noisy
        if noisy is None:
            return {}
        own = self.directions.to_own_class(torch.ones(1, len(noisy), dtype=torch.float64))[0]
        scores = {"label_noise_auc": -own, "label_noise_auc_of_loss": self.probe.losses}
        moments = {name: permuted_labels.separation(of_name, noisy) for name, of_name in scores.items()}
        return {name: found for name, found in moments.items() if found}

    def arrays(self, draws: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
        kept = self.directions.kept
        missing = torch.full((DRAWS,), torch.nan, dtype=torch.float64)
        return {
            "cosines": self.directions.cosines[kept][:, kept].float().numpy(),
            "norms": self.units.diagonal()[kept].sqrt().numpy(),
            "kept": kept.nonzero().squeeze(1).numpy(),
            "draws": torch.stack([draws.get(name, missing) for name in SERIES]).numpy(),
        }
