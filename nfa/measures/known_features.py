"""What a workload declares about the right features of its sites' inputs, checked against the model."""

from collections.abc import Mapping

import torch.nn as nn

from nfa.errors import Refusal
from nfa.maths.known_features import KnownFeatures
from nfa.observe.found_sites import Sites
from nfa.observe.passes import site_weights
from nfa.workload import Workload


def known_features(workload: Workload, model: nn.Module, sites: Sites) -> Mapping[str, KnownFeatures]:
    """Return the known features of a workload by site.

    Args:
        workload: The workload that declares the features.
        model: The model.
        sites: The sites that were found in the model.

    Returns:
        The known features by site name; empty where the workload declares none.

    Raises:
        Refusal: A name is not that of a site, or the site's input has another size.
    """
    known = workload.known_features()
    sites.check(known)
    weights = site_weights(workload, model, known, sites) if known else {}
    for name, weight in weights.items():
        if known[name].size != weight.shape[1]:
            sizes = f"{known[name].size} entries for site {name!r}, whose input has {weight.shape[1]}"
            got = f"known features of an input with {sizes}"
            raise Refusal(got, "features of the site's own input", "name the site that reads this input")
    return known
