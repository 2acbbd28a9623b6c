"""Names of tensors that were stored while a network was wrapped in other modules.

DataParallel, DistributedDataParallel and AveragedModel prefix every name with `module.`, torch.compile with
`_orig_mod.`, and Lightning and many training scripts with `model.`, nested in any order; a compiled layer has its
prefix in the middle of the name. AveragedModel also stores the number of networks that it averages.
"""

from collections.abc import Iterator

COMPILED = "_orig_mod."
WRAPPERS = ("module.", COMPILED, "model.")
COUNT = "n_averaged"  # of AveragedModel


def unwrapped(name: str) -> Iterator[str]:
    """Yield the name, and the name without each possible wrapper, outermost first.

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
    """Return the name without any wrapper, for networks whose own names do not begin like one.

    >>> innermost("module._orig_mod.first.weight")
    'first.weight'
    """
    *_, plain = unwrapped(name)
    return plain


def is_count(name: str) -> bool:
    """Return whether a tensor is not a weight but AveragedModel's counter, possibly wrapped itself.

    >>> is_count("_orig_mod.n_averaged"), is_count("module.first.weight")
    (True, False)
    """
    return innermost(name) == COUNT
