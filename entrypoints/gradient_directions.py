"""Entry point `gradient_directions`."""

from nfa.registry.analyses.config import GradientDirectionsConfig
from nfa.registry.cli import main
from nfa.registry.signals import shielded


def start(config: GradientDirectionsConfig) -> None:
    """Analyse the gradients of examples."""
    with shielded():  # a module whose import was interrupted cannot be imported again, not even to say so
        from nfa.registry.analyses.gradient_directions import gradient_directions

    gradient_directions(config)


if __name__ == "__main__":
    main("gradient_directions", GradientDirectionsConfig, start)
