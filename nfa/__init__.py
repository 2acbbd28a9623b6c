"""nfa: an MLflow-tracked experiment registry for studying how networks learn features."""

__version__ = "0.1.0"
