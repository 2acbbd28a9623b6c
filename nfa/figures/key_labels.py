"""Metric keys as they are written in figures."""

from nfa.figures.flow import CURVES
from nfa.figures.gradient_series import LABELS
from nfa.figures.style import site_label
from nfa.relations import RELATIONS

SPLITS = {"train": "train", "val": "validation", "test": "test", "eval": "held-out"}


def key_label(key: str) -> str:
    """Return a metric key in words; one that is not known, such as a user's own or a glob, is unchanged.

    >>> key_label("val/loss"), key_label("layer_0/agop_nfm"), key_label("flow/grad_norm"), key_label("mine/*")
    ('validation loss', 'AGOP vs NFM in layer 0', 'gradient norm', 'mine/*')
    """
    site, _, name = key.rpartition("/")
    if known := LABELS.get(key) or CURVES.get(key):
        return known
    if name in RELATIONS:
        return f"{RELATIONS[name].label} in {'all sites' if site == '*' else site_label(site)}"
    return f"{SPLITS[site]} {name.replace('_', ' ')}" if site in SPLITS else key
