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
    "`mlp`, `eeg` and `language` are small models of the three families that come with nfa; the other models do not "
    "come with nfa. All have random weights, are trained for three steps, and are measured on 3 to 6 examples.",
    "seen: how many of the model's linear maps have a site in alignment. The reference finds these maps "
    "independently. not seen: the other maps. `language` names its own sites, and its readout is not among them.",
    "alignment, directions, flow: the largest relative difference (for a cosine, the absolute difference) from slow "
    "references in float64 that process one example at a time. 64 bits: model and data are in float64, and 1e-9 is "
    "allowed. 32 bits: model and data are in float32, as they are normally used, and 1e-5 is allowed.",
    "alignment compares, at all sites, AGOP, NFM, NFM with the initial weights removed, G, H, FACT, G′, H′, and "
    "their cosines and stable ranks. directions compares the Gram matrix of per-example gradients, for all "
    "parameters together and for each of them. flow compares the mean gradient of each parameter.",
    "Padded examples are compared with the same examples one by one, each at its own length.",
    "inert: each study of a model in training mode leaves parameters, buffers, modes, `.grad`, hooks and generators "
    "bitwise unchanged, and a training of three steps with every study before each step is bitwise the same as "
    "without.",
    "`nfa.testing.check_workload(make)` makes these rows for a workload of your own.",
]
TRAINING_NOTES = [
    "Each model is trained twice with AdamW, for four steps from the same seed, in training mode with dropout of "
    "0.1 (Mixtral: none; ResNet: 0.2). The last one is trained by the Hugging Face Trainer with `bf16=True` and the "
    "callback. The second time, `nfa.watch` records alignment, directions and flow before the first step and after "
    "each step.",
    "bitwise the same: all weights, buffers, optimizer states and the state of the generator after the training.",
    "series: the values at the last step: eight relations at two or three layers, the mean cosine of per-example "
    "gradients, size and change of a group of parameters, and the loss. They are compared with values by hand: "
    "loops over single examples, at their own lengths, with hooks of their own on the layers. The largest "
    "difference is absolute for cosines and relative for other values.",
    "The loops run in float64. With `bf16=True` they run in bfloat16 like the training, and only their sums, over "
    "the h, z, δ and W that PyTorch rounds to bfloat16, are in float64. A batch and a single example are rounded "
    "differently, so 2⁻⁸, the error of one rounding to bfloat16, is allowed.",
    "difference from float64 throughout: the difference from loops over the same weights in which nothing is "
    "rounded. With `bf16=True`, this is the effect of bfloat16 itself.",
    "`fc` is the readout of the ResNet. The AGOP of a readout is its NFM, so the cosine is 1.",
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
