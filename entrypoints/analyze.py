"""Entry point `analyze`."""

from nfa.cli import main
from nfa.config import AnalyzeConfig
from nfa.ends import shielded


def start(config: AnalyzeConfig) -> None:
    """Analyse, in one process or several."""
    with shielded():  # a module whose import was interrupted cannot be imported again, not even to say so
        from nfa.jobs.analyses.analyze import analyze

    analyze(config)


if __name__ == "__main__":
    main("analyze", AnalyzeConfig, start)
