"""Entry point `gradient_flow`."""

from nfa.registry.analyses.config import GradientFlowConfig
from nfa.registry.cli import main
from nfa.registry.signals import shielded


def start(config: GradientFlowConfig) -> None:
    """Analyse."""
    with shielded():  # a module whose import was interrupted cannot be imported again, not even to say so
        from nfa.registry.analyses.gradient_flow import gradient_flow

    gradient_flow(config)


if __name__ == "__main__":
    main("gradient_flow", GradientFlowConfig, start)
