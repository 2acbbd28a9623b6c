"""Slow, obvious versions of what the fast code computes: float64, one example at a time, dense matrices.

Tests and benchmarks compare with them, so nothing here uses the rest of nfa. Axis letters: n example, s position, i
input, o output, k network output. A site is named as in `model.named_modules()`, is an nn.Linear (linear_twin.py makes
one of every other layer) and computes z = W h (+ b). If it is called several times in one forward pass, the positions
of the calls are concatenated along s.
"""

from nfa.reference.answers import answer_loss as answer_loss
from nfa.reference.answers import token_mean as token_mean
from nfa.reference.attention import relative_attention as relative_attention
from nfa.reference.chance import rotated as rotated
from nfa.reference.chance import rotated_cosines as rotated_cosines
from nfa.reference.chance import rotated_overlaps as rotated_overlaps
from nfa.reference.chance import rotation as rotation
from nfa.reference.comparisons import Centre as Centre
from nfa.reference.comparisons import cosine as cosine
from nfa.reference.comparisons import debiased_cosine as debiased_cosine
from nfa.reference.comparisons import exponent as exponent
from nfa.reference.comparisons import stable_rank as stable_rank
from nfa.reference.comparisons import subspace_overlap as subspace_overlap
from nfa.reference.conformer import conformer as conformer
from nfa.reference.flow import mean_gradients as mean_gradients
from nfa.reference.flow import relative_change as relative_change
from nfa.reference.flow import root_mean_square as root_mean_square
from nfa.reference.fronts import non_dominated as non_dominated
from nfa.reference.ghm import ghm_c as ghm_c
from nfa.reference.ghm import ghm_r as ghm_r
from nfa.reference.gradients import cosines as cosines
from nfa.reference.gradients import example_gradients as example_gradients
from nfa.reference.gradients import gradient_gram as gradient_gram
from nfa.reference.gradients import noise_scale as noise_scale
from nfa.reference.gradients import participation_ratio as participation_ratio
from nfa.reference.gradients import silhouette as silhouette
from nfa.reference.known_features import share_of_subspace as share_of_subspace
from nfa.reference.known_features import share_of_sums as share_of_sums
from nfa.reference.low_rank import energy_ratio as energy_ratio
from nfa.reference.low_rank import lora_update as lora_update
from nfa.reference.low_rank import subspace_cosines as subspace_cosines
from nfa.reference.low_rank import truncated_svd as truncated_svd
from nfa.reference.low_rank import truncation_error as truncation_error
from nfa.reference.matrices import agop as agop
from nfa.reference.matrices import directional_agop as directional_agop
from nfa.reference.matrices import fact as fact
from nfa.reference.matrices import nfm as nfm
from nfa.reference.matrices import nfm_init_removed as nfm_init_removed
from nfa.reference.matrices import second_moment as second_moment
from nfa.reference.matrices import square_root as square_root
from nfa.reference.objectives import objective as objective
from nfa.reference.observations import Observation as Observation
from nfa.reference.observations import observations as observations
from nfa.reference.orthogonal import orthogonalised as orthogonalised
from nfa.reference.orthogonal import polar_express as polar_express
from nfa.reference.permutations import area as area
from nfa.reference.permutations import mean_of_pairs as mean_of_pairs
from nfa.reference.permutations import over_permutations as over_permutations
from nfa.reference.permutations import over_signs as over_signs
from nfa.reference.records import Loss as Loss
from nfa.reference.records import jacobians as jacobians
from nfa.reference.records import loss_gradients as loss_gradients
from nfa.reference.records import site_inputs as site_inputs
from nfa.reference.records import site_outputs as site_outputs
from nfa.reference.ridge import lagged_matrix as lagged_matrix
from nfa.reference.ridge import lagged_prediction as lagged_prediction
from nfa.reference.ridge import lagged_ridge as lagged_ridge
from nfa.reference.shared_weights import shared_fact as shared_fact
from nfa.reference.shared_weights import shared_nfm as shared_nfm
from nfa.reference.shared_weights import shared_nfm_init_removed as shared_nfm_init_removed
from nfa.reference.shared_weights import shared_nfm_within_range as shared_nfm_within_range
from nfa.reference.shared_weights import shared_out_h_vs_m as shared_out_h_vs_m
from nfa.reference.sketches import sketched_gram as sketched_gram
from nfa.reference.standard_errors import influences as influences
from nfa.reference.standard_errors import kurtosis as kurtosis
from nfa.reference.standard_errors import standard_error as standard_error
from nfa.reference.standard_errors import unbiased_cosine as unbiased_cosine
from nfa.reference.survival import restricted_mean as restricted_mean
