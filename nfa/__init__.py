"""How networks learn features: studies of any PyTorch model, and a registry of experiments on top of them."""

from importlib import import_module
from typing import Any

__version__ = "0.7.0"

_PLACES = {  # PyTorch is loaded by who asks for one of these, and by no one who needs `nfa.__version__` only
    "Supervised": ("nfa.workloads.supervised", "Supervised"),
    "alignment": ("nfa.notebook.studies", "alignment"),
    "gradient_directions": ("nfa.notebook.studies", "gradient_directions"),
    "gradient_flow": ("nfa.notebook.studies", "gradient_flow"),
    "gradient_gram": ("nfa.notebook.studies", "gradient_gram"),
    "watch": ("nfa.watching", "Watch"),
}


def __getattr__(name: str) -> Any:
    if name in _PLACES:
        module, own_name = _PLACES[name]
        return getattr(import_module(module), own_name)
    raise AttributeError(f"module 'nfa' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_PLACES])
