"""Entry point `tune`."""

from nfa.registry.cli import main
from nfa.registry.signals import shielded
from nfa.registry.sweeps.config import TuneConfig


def start(config: TuneConfig) -> None:
    """Search."""
    with shielded():  # a module whose import was interrupted cannot be imported again, not even to say so
        from nfa.registry.sweeps.search import tune

    tune(config)


if __name__ == "__main__":
    main("tune", TuneConfig, start)
