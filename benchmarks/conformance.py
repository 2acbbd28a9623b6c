"""Every study on three families and thirteen foreign models against the references: `python -m benchmarks.conformance`.

Then trainings with `nfa.watch` and without. With names of models only those, storing nothing. Models and trainings are
those of the tests.
"""

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.record import store
from nfa.testing import Conformance

PRECISIONS = ("float64", "float32")
MODEL_NOTES = [
    "`mlp`, `eeg` and `language` are the three families that come with nfa, small; the others are foreign. All have "
    "random weights, are trained for three steps, and are measured on 3 to 6 examples.",
    "seen: of how many linear maps, which the reference finds by itself, alignment has a site. not seen: the others; "
    "`language` names its sites itself, and its readout is none of them.",
    "alignment, directions, flow: the largest relative difference (of a cosine the difference itself) from slow "
    "references in float64 that look at one example at a time. 64 bits: model and data are in float64, and 1e-9 is "
    "allowed; 32 bits: as they are used, in float32, and 1e-5 is allowed.",
    "alignment: over all sites and over AGOP, NFM, NFM with initial weights removed, G, H, FACT, G′, H′, their cosines "
    "and stable ranks. directions: the Gram matrix of the gradients of examples, of all parameters and of each. flow: "
    "the mean gradient of each parameter.",
    "Padded examples are compared with each example alone at its own length.",
    "inert: parameters, buffers, modes, `.grad`, hooks and generators are bitwise as they were after each study of a "
    "model in training mode, and so is a training of three steps with every study before each.",
    "`nfa.testing.check_workload(make)` makes the rows of a workload of your own.",
]
TRAINING_NOTES = [
    "Each model is trained twice for four steps from the same seed, in training mode with dropout of 0.1 (Mixtral: "
    "none; ResNet: 0.2), by AdamW, the last one by the Hugging Face Trainer with `bf16=True` and the callback. The "
    "second time `nfa.watch` records alignment, directions and flow before the first step and after each.",
    "bitwise the same: all weights, buffers, states of the optimizer and the generator afterwards.",
    "series: at the last step eight relations at two or three layers, the mean cosine of the gradients of examples, "
    "size and change of a group of parameters, and the loss. They are compared with loops over single examples, at "
    "their own lengths, that hook the layers themselves; largest difference: of a cosine absolute, else relative.",
    "The loops run in float64; under `bf16=True` in bfloat16 like the training, and then only their sums are in "
    "float64, of the h, z, δ and W that PyTorch rounds to bfloat16. A batch and a single example are rounded "
    "differently, so 2⁻⁸, the error of one rounding to bfloat16, is allowed.",
    "difference from float64 throughout: from loops over the same weights in which nothing is rounded. Under "
    "`bf16=True` that is what bfloat16 itself does to the values.",
    "`fc` is the ResNet's readout: AGOP of a readout is its NFM.",
]
NOTES = {"models": MODEL_NOTES, "trainings": TRAINING_NOTES}


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


def trainings() -> dict[str, dict[str, Any]]:
    """Rows of the second table: trainings with a watch and without."""
    from tests.support.models import watched

    rows = {}
    with _store_of_its_own() as start_run:
        for name, make in watched.TRAININGS.items():
            print(f"\n{name}")
            with start_run():
                rows[name] = training_summary(watched.compare(make()))
    return rows


def training_summary(found: Any) -> dict[str, Any]:
    """A row of the second table."""
    shown = {key: {"recorded": found.recorded[key], "by hand": found.right[key]} for key in found.right}
    return {
        "compared": found.state,
        "same": "no" if found.differing else "yes",
        "series": len(found.right),
        "apart": f"{found.largest(found.right):.1e}",
        "allowed": f"{found.allowed:.1e}",
        "from float64": f"{found.largest(found.exact):.1e}",
        "ok": found.ok,
        "values": shown,
    }


@contextmanager
def _store_of_its_own() -> Iterator[Any]:
    """What starts runs in a store that is gone afterwards."""
    import mlflow

    with tempfile.TemporaryDirectory() as folder:
        mlflow.set_tracking_uri(f"sqlite:///{Path(folder, 'mlflow.db')}")
        experiment = mlflow.create_experiment("watched", Path(folder, "artifacts").as_uri())
        yield lambda: mlflow.start_run(experiment_id=experiment)


def main(names: list[str]) -> int:
    """Check, print, and store where all were checked; 1 where one does not conform."""
    from tests.support.models.table import MODELS

    found: dict[str, Conformance] = {}
    for name in names or MODELS:
        print(f"\n{name}")
        found[name] = MODELS[name].check()
    if names:
        return int(not all(result.ok for result in found.values()))
    watched = trainings()
    rows = {"models": {name: summary(result) for name, result in found.items()}, "trainings": watched}
    store("conformance", "Conformance: every study on sixteen models", rows, NOTES)
    return int(not all(result.ok for result in found.values()) or not all(row["ok"] for row in watched.values()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
