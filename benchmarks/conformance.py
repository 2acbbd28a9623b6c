"""Every study on three families and thirteen foreign models against the references: `python -m benchmarks.conformance`.

With names of models only those, storing nothing. The models are those of the tests.
"""

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.record import store
from nfa.testing import Conformance

TESTS = Path(__file__).resolve().parent.parent / "tests"
PRECISIONS = ("float64", "float32")
NOTES = [
    "`nfa.testing.check_workload(make)` makes such a table of a workload of your own.",
    "Largest relative difference from slow references in float64 that look at one example at a time, over all sites "
    "and matrices, cosines and stable ranks of alignment, the Gram matrices of all parameters and of each, and the "
    "mean gradients of all parameters. Allowed: 1e-9 in float64, 1e-5 in float32.",
    "Padded examples are compared with each example alone at its own length.",
    "Inert: parameters, buffers, modes, .grad, hooks and generators are bitwise as they were, and so is a training in "
    "training mode with every study before each step.",
]


def summary(found: Conformance) -> dict[str, Any]:
    """A row of the page."""
    studies = dict.fromkeys(row.study for row in found.rows)
    return {
        "seen": f"{len(found.seen)} of {len(found.seen) + len(found.unseen)}",
        **{study: _differences(found, study) for study in studies},
        "inert": "yes" if all(row.ok for row in found.rows if row.precision == "bitwise") else "NO",
        "unseen": list(found.unseen),
    }


def _differences(found: Conformance, study: str) -> dict[str, str]:
    largest = {precision: found.largest(study, precision) for precision in PRECISIONS}
    return {precision: f"{value:.1e}" for precision, value in largest.items() if value is not None}


def main(names: list[str]) -> int:
    """Check, print, and store where all were checked; 1 where one does not conform."""
    sys.path[:0] = [str(TESTS), str(TESTS / "foreign")]
    models = import_module("all_models").MODELS
    found: dict[str, Conformance] = {}
    for name in names or models:
        print(f"\n{name}")
        found[name] = models[name].check()
    if not names:
        rows = {name: summary(result) for name, result in found.items()}
        store("conformance", "Conformance: every study on sixteen models", rows, NOTES)
    return int(not all(result.ok for result in found.values()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
