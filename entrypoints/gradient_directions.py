"""Entry point `gradient_directions`."""

from nfa.cli import main
from nfa.config import GradientDirectionsConfig
from nfa.ends import shielded


def start(config: GradientDirectionsConfig) -> None:
    """Analyse the gradients of examples."""
    with shielded():  # a module whose import was interrupted cannot be imported again, not even to say so
        from nfa.jobs.analyses.gradient_directions import gradient_directions

    gradient_directions(config)


if __name__ == "__main__":
    main("gradient_directions", GradientDirectionsConfig, start)
