"""What a page of a report holds, as a reader of it finds it."""

import base64
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from nfa.registry.report.page_data import Page
from nfa.registry.tracking.store import client


def decoded(numbers: str) -> list[float]:
    long = numbers.startswith("8:")
    found: list[float] = np.frombuffer(base64.b64decode(numbers.removeprefix("8:")), "<f8" if long else "<f4").tolist()
    return found


def series(page: Page, key: str, run: int = 0, of: str = "values", kind: str = "curves") -> dict[int, float]:
    """A series of the page by step."""
    numbers: Any = page["numbers"]
    curve = numbers[kind][key][run]
    return dict(zip(numbers["steps"][curve["steps"]], decoded(curve[of]), strict=True))


def close(found: Mapping[int, float], wanted: Mapping[int, float]) -> bool:
    return found.keys() == wanted.keys() and all(math.isclose(found[s], wanted[s], rel_tol=1e-6) for s in wanted)


def said(page: Page) -> str:
    """All sentences of the page."""
    words = page["words"]
    lines = [
        *words["trained"],
        *words["conventions"],
        *words["notices"],
        *(x for _, of in words["verdicts"] for x in of),
    ]
    return "\n".join([*(line["text"] for line in lines), *words["left_out"]])


def report_run() -> Any:
    (run,) = client().search_runs(["0"], "tags.`nfa.entrypoint` = 'report'", max_results=1)
    return run
