"""What tells a filter string of MLflow's from ids of runs."""

import re

_COMPARISON = re.compile(r"[=<>]|\s(i?like|(not\s+)?in|is)\s", re.IGNORECASE)


def is_filter(text: str) -> bool:
    """Return whether a text is a filter string, which is recognised by its comparison.

    >>> is_filter("params.tag = 'a,,b'"), is_filter("1d820ea3,latest")
    (True, False)
    """
    return bool(_COMPARISON.search(text))
