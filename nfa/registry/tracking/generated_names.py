"""Names that MLflow makes up for runs, such as sassy-cub-342."""

from mlflow.utils import name_utils

# MLflow keeps its words private; without them no name counts as made up, and the run keeps the one that it has.
FIRST = frozenset(getattr(name_utils, "_GENERATOR_PREDICATES", ()))
SECOND = frozenset(getattr(name_utils, "_GENERATOR_NOUNS", ()))


def is_generated(name: str) -> bool:
    """Return whether MLflow has made up the name of a run, because nobody gave one.

    >>> is_generated("sassy-cub-342"), is_generated("sgd-wide-3")
    (True, False)
    """
    first, _, rest = name.partition("-")
    second, _, number = rest.partition("-")
    return first in FIRST and second in SECOND and number.isdigit()
