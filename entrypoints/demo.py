"""Entry point `demo`."""

from nfa.registry.cli import main
from nfa.registry.families.mlp.config import DemoConfig
from nfa.registry.signals import shielded


def start(config: DemoConfig) -> None:
    """Train three small networks and analyse them."""
    with shielded():  # a module whose import was interrupted cannot be imported again, not even to say so
        from nfa.registry.families.mlp.demo import demo

    demo(config)


if __name__ == "__main__":
    main("demo", DemoConfig, start)
