"""Check a teacher's layers before anything heavy is loaded."""

from nfa.registry.families.language.base.known_layers import known_layers, targeted
from nfa.registry.families.language.base.model_names import place
from nfa.registry.families.language.teacher.config import LoraSvdConfig


def check_layers(config: LoraSvdConfig) -> None:
    """A teacher's targets, which have to be in both models, and a rank that they have."""
    for name in ("teacher", "base_model"):
        if text := getattr(config, name):
            place(text, name)
    for layers in map(known_layers, filter(None, (config.teacher, config.base_model))):
        if not config.teacher or layers is None:
            continue
        sides = targeted(layers, config.target_list)
        most, module = min(((min(shape), name) for name, shape in sides.items()), default=(config.rank, ""))
        config.check_rank(most, module)
