"""An MLflow-tracked experiment registry for studying how networks learn features."""

from typing import Any

__version__ = "0.7.0"


def __getattr__(name: str) -> Any:
    # `nfa.watch` and `nfa.Supervised` without loading PyTorch for everyone who only needs `nfa.__version__`.
    if name == "watch":
        from nfa.watching import Watch

        return Watch
    if name == "Supervised":
        from nfa.workloads.supervised import Supervised

        return Supervised
    raise AttributeError(f"module 'nfa' has no attribute {name!r}")
