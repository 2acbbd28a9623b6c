"""Entry point `demo`."""

from nfa.cli import main
from nfa.config import DemoConfig
from nfa.ends import shielded


def start(config: DemoConfig) -> None:
    """Train three small networks and analyse them."""
    with shielded():  # a module whose import was interrupted cannot be imported again, not even to say so
        from nfa.jobs.classifier.demo import demo

    demo(config)


if __name__ == "__main__":
    main("demo", DemoConfig, start)
