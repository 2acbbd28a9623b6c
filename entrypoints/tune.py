"""Entry point `tune`."""

from nfa.cli import main
from nfa.config import TuneConfig
from nfa.ends import shielded


def start(config: TuneConfig) -> None:
    """Search."""
    with shielded():  # a module whose import was interrupted cannot be imported again, not even to say so
        from nfa.sweeps.search import tune

    tune(config)


if __name__ == "__main__":
    main("tune", TuneConfig, start)
