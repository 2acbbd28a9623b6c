"""Study how neural networks learn features: studies of any PyTorch model, and a registry of experiments built on them.
"""

from importlib import import_module
from typing import Any

__version__ = "0.7.0"

_PLACES = {  # PyTorch is imported only when one of these is used, and not for `nfa.__version__`
    "Supervised": ("nfa.workloads.supervised", "Supervised"),
    "alignment": ("nfa.notebook.studies", "alignment"),
    "gradient_directions": ("nfa.notebook.studies", "gradient_directions"),
    "gradient_flow": ("nfa.notebook.studies", "gradient_flow"),
    "gradient_gram": ("nfa.notebook.studies", "gradient_gram"),
    "watch": ("nfa.watching", "Watch"),
}
_OF_THE_REGISTRY = {
    "config": ("nfa.registry.tracking", "config"),
    "track": ("nfa.registry.families.custom.track", "Track"),
    "load_checkpoint": ("nfa.registry.stored_runs", "load_checkpoint"),
    "results": ("nfa.registry.results.reading", "results"),
}


def __getattr__(name: str) -> Any:
    if name in _PLACES:
        module, own_name = _PLACES[name]
        return getattr(import_module(module), own_name)
    if name in _OF_THE_REGISTRY:
        from nfa.extras import check_extra

        check_extra(f"nfa.{name}", "registry")
        module, own_name = _OF_THE_REGISTRY[name]
        return getattr(import_module(module), own_name)
    raise AttributeError(f"module 'nfa' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_PLACES, *_OF_THE_REGISTRY])
