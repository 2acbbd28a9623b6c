"""Whether a network and the examples that are asked for fit a data set of images and this machine, without torch."""

from itertools import pairwise

from nfa.errors import Refusal
from nfa.registry.datasets.published import train_size
from nfa.registry.families.mlp.config import TrainConfig
from nfa.registry.machine import check_memory


def check_sizes(config: TrainConfig, published: int, features: int, classes: int) -> None:
    """`Refusal` for more examples than there are, and for a network that memory cannot hold."""
    limit = train_size(published)
    if config.max_samples > limit:
        raise Refusal(f"max_samples={config.max_samples}", f"0 (all) to {limit} training examples", "max_samples=0")
    sizes = [features, *[config.width] * config.depth, classes]
    parameters = sum(inputs * outputs for inputs, outputs in pairwise(sizes))
    check_memory(parameters, f"width={config.width} depth={config.depth}", "a smaller width or depth")
