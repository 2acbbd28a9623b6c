"""Slow, obvious versions of what families and searches compute; nothing here comes from nfa.

Those of what the library measures are in nfa/reference, for whoever checks a workload of their own.
"""

from slow.answers import answer_loss as answer_loss
from slow.answers import token_mean as token_mean
from slow.attention import relative_attention as relative_attention
from slow.conformer import conformer as conformer
from slow.fronts import non_dominated as non_dominated
from slow.ghm import ghm_c as ghm_c
from slow.ghm import ghm_r as ghm_r
from slow.objectives import objective as objective
from slow.ridge import lagged_matrix as lagged_matrix
from slow.ridge import lagged_prediction as lagged_prediction
from slow.ridge import lagged_ridge as lagged_ridge
from slow.survival import restricted_mean as restricted_mean
