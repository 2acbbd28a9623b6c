"""Packages that only a part of nfa needs; pip installs them with an extra: `pip install 'nfa[tune]'`.

pyproject.toml has the same names, and a test compares them.
"""

import sys
from importlib.util import find_spec

from nfa.errors import Refusal

_REGISTRY = ("jinja2", "mlflow", "pillow", "pooch", "psutil", "scikit-learn")
EXTRAS = {  # packages that every part of an extra needs to start
    "registry": _REGISTRY,
    "language": (*_REGISTRY, "gguf", "peft", "transformers"),
    "eeg": (*_REGISTRY, "tensorboard"),
    "tune": (*_REGISTRY, "optuna", "plotly"),
    "postgresql": ("psycopg",),
    "tensorboard": ("tensorboard",),
    "pandas": ("pandas",),
    "datasets": ("datasets",),
}
IMPORTED_AS = {"pillow": "PIL", "scikit-learn": "sklearn"}


def check_extra(what: str, extra: str, *packages: str, otherwise: str = "") -> None:
    """Raise `Refusal` if a package of an extra that `what` needs is not installed; nothing is imported.

    `packages` are those that it needs; none stands for all packages of the extra. `otherwise` says how to do without
    them.

    >>> check_extra("a message", "postgresql", "tqdm")
    >>> check_extra("a message", "tune", "a_package_that_nobody_has")
    Traceback (most recent call last):
    nfa.errors.Refusal: cannot use a message without a_package_that_nobody_has, which is not installed
      allowed: a message with the packages of nfa[tune]
      do: pip install 'nfa[tune]'
    """
    if missing := [name for name in packages or EXTRAS[extra] if not is_installed(name)]:
        verb = "which is" if len(missing) == 1 else "which are"
        got, allowed = f"{what} without {', '.join(missing)}, {verb} not installed", f"the packages of nfa[{extra}]"
        remedy = f"pip install 'nfa[{extra}]'"
        raise Refusal(got, f"{what} with {allowed}", f"{remedy}, or {otherwise}" if otherwise else remedy)


def is_installed(package: str) -> bool:
    """Tell whether a package can be imported; a mere folder of that name does not count, though Python would import it.
    """
    name = IMPORTED_AS.get(package, package)
    if name in sys.modules:
        return sys.modules[name] is not None
    spec = find_spec(name)
    return spec is not None and spec.origin is not None
