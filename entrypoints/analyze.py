"""Entry point `analyze`."""

from nfa.registry.analyses.config import AnalyzeConfig
from nfa.registry.cli import main
from nfa.registry.signals import shielded


def start(config: AnalyzeConfig) -> None:
    """Analyse, in one process or several."""
    with shielded():  # a module whose import was interrupted cannot be imported again, not even to say so
        from nfa.registry.analyses.alignment import analyze

    analyze(config)


if __name__ == "__main__":
    main("analyze", AnalyzeConfig, start)
