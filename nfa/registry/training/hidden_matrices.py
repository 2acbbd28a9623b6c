"""The matrices of hidden layers, which are what an optimizer such as Muon updates."""

import torch.nn as nn

from nfa.errors import Refusal
from nfa.measures.site_matrices import chosen_sites
from nfa.observe.door import few_of, find_sites
from nfa.observe.found_sites import Sites
from nfa.workload import Workload


def hidden_matrices(workload: Workload, model: nn.Module, found: Sites | None = None) -> list[str]:
    """Return the names of the trained matrices of all sites but the readout; biases and embeddings are not among them.

    Args:
        workload: The workload.
        model: Its model.
        found: The model's sites, if they are already known.

    Raises:
        Refusal: The model has no such matrix.
    """
    found = found or find_sites(model, workload, few_of(workload))
    chosen = chosen_sites(workload, model, found) if found.seen else []
    readout = workload.readout(model) or found.last
    own = found.parameters(name for name in chosen if name != readout)
    named = model.named_parameters()
    hidden = [name for name, weight in named if name in own and weight.ndim == 2 and weight.requires_grad]
    if not hidden:
        got = "an optimizer for hidden matrices (muon) with a model that has none"
        raise Refusal(got, "a model with a linear layer before its readout", "optimizer=adam")
    return hidden
