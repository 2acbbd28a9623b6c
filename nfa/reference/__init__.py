"""Slow, obvious versions of what the fast path computes: float64, one example at a time, dense matrices.

Tests and benchmarks compare with them, so nothing here comes from the rest of nfa. Axis letters: n example, s position,
i input, o output, k network output. A site is named as in `model.named_modules()`, is an nn.Linear
(linear_twin.py makes one of every other layer) and computes z = W h (+ b); where it is called several times in one
forward pass, the calls' positions follow each other along s.
"""

from nfa.reference.answers import answer_loss, token_mean
from nfa.reference.attention import relative_attention
from nfa.reference.comparisons import Centre, cosine, debiased_cosine, exponent, stable_rank, subspace_overlap
from nfa.reference.conformer import conformer
from nfa.reference.flow import mean_gradients, relative_change, root_mean_square
from nfa.reference.fronts import non_dominated
from nfa.reference.gradients import (
    cosines,
    example_gradients,
    ghm_c,
    ghm_r,
    gradient_gram,
    noise_scale,
    participation_ratio,
    silhouette,
)
from nfa.reference.low_rank import energy_ratio, lora_update, subspace_cosines, truncated_svd, truncation_error
from nfa.reference.matrices import agop, directional_agop, fact, nfm, nfm_init_removed, second_moment, square_root
from nfa.reference.objectives import objective
from nfa.reference.observations import Observation, observations
from nfa.reference.records import Loss, jacobians, loss_gradients, site_inputs, site_outputs
from nfa.reference.ridge import lagged_matrix, lagged_prediction, lagged_ridge
from nfa.reference.survival import restricted_mean

__all__ = [
    "Centre",
    "Loss",
    "Observation",
    "agop",
    "answer_loss",
    "conformer",
    "cosine",
    "cosines",
    "debiased_cosine",
    "directional_agop",
    "energy_ratio",
    "example_gradients",
    "exponent",
    "fact",
    "ghm_c",
    "ghm_r",
    "gradient_gram",
    "jacobians",
    "lagged_matrix",
    "lagged_prediction",
    "lagged_ridge",
    "lora_update",
    "loss_gradients",
    "mean_gradients",
    "nfm",
    "nfm_init_removed",
    "noise_scale",
    "non_dominated",
    "objective",
    "observations",
    "participation_ratio",
    "relative_attention",
    "relative_change",
    "restricted_mean",
    "root_mean_square",
    "second_moment",
    "silhouette",
    "site_inputs",
    "site_outputs",
    "square_root",
    "stable_rank",
    "subspace_cosines",
    "subspace_overlap",
    "token_mean",
    "truncated_svd",
    "truncation_error",
]
