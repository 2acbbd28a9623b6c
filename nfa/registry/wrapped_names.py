"""Names of tensors as programs store them that train a network inside others.

DataParallel, DistributedDataParallel and AveragedModel put `module.` before every name, torch.compile `_orig_mod.`, and
Lightning and many training scripts `model.`, one inside the other in any order; a compiled layer has it in the middle.
AveragedModel also stores how many networks it is the mean of.
"""

from collections.abc import Iterator

COMPILED = "_orig_mod."
WRAPPERS = ("module.", COMPILED, "model.")
COUNT = "n_averaged"  # of AveragedModel


def unwrapped(name: str) -> Iterator[str]:
    """The name, and what is left of it after each wrapper that may stand around the network, outermost first.

    >>> list(unwrapped("module.model.head._orig_mod.weight"))
    ['module.model.head._orig_mod.weight', 'module.model.head.weight', 'model.head.weight', 'head.weight']
    """
    yield name
    plain = name.replace(COMPILED, "")
    if plain != name:
        yield plain
    while wrapper := next((wrapper for wrapper in WRAPPERS if plain.startswith(wrapper)), ""):
        plain = plain.removeprefix(wrapper)
        yield plain


def innermost(name: str) -> str:
    """The name without any wrapper, for networks none of whose own names begins like one.

    >>> innermost("module._orig_mod.first.weight")
    'first.weight'
    """
    *_, plain = unwrapped(name)
    return plain


def is_count(name: str) -> bool:
    """Whether a tensor is no weight, but the count of an average, itself in wrappers or not.

    >>> is_count("_orig_mod.n_averaged"), is_count("module.first.weight")
    (True, False)
    """
    return innermost(name) == COUNT
