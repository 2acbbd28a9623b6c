"""Plot runs of `train -P workload=modular-addition`: accuracies, and the share of the features that is known to be
right.

`python docs/examples/grokking.py RUN_ID RUN_ID …` writes grokking.png and grokking.pdf, with one column per run.
"""

import sys
from collections.abc import Sequence

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from mlflow import MlflowClient

import nfa

ACCURACIES = {"train/accuracy": "training pairs", "val/accuracy": "unseen pairs"}
SHARES = {"0/agop_known": "AGOP", "0/nfm_known": "NFM", "0/agop_known_chance": "chance"}


def main(run_ids: Sequence[str]) -> None:
    """Draw the series of the runs."""
    figure, rows = plt.subplots(2, len(run_ids), sharex=True, sharey="row", squeeze=False, layout="constrained")
    figure.set_size_inches(3.2 * len(run_ids) + 0.8, 5)
    for run_id, above, below in zip(run_ids, *rows, strict=True):
        draw(above, run_id, ACCURACIES)
        draw(below, run_id, SHARES)
        trained = nfa.config(run_id)["train"]
        above.set_title(f"seed {trained['seed']}")
        below.set_xlabel("epoch")
        figure.suptitle("{workload}, {optimizer}, lr {lr:g}, weight decay {weight_decay:g}".format(**trained))
    rows[0, 0].set_ylabel("accuracy")
    rows[1, 0].set_ylabel("share in the known features")
    rows[0, 0].legend(loc="lower right", frameon=False)
    rows[1, 0].legend(loc="upper left", frameon=False)
    figure.savefig("grokking.png", dpi=150)
    figure.savefig("grokking.pdf")


def draw(axes: Axes, run_id: str, keys: dict[str, str]) -> None:
    """Draw series of a run over epochs, with as much room for the first ten epochs as for the next factor of ten."""
    for key, label in keys.items():
        points = {row.step: row.value for row in MlflowClient().get_metric_history(run_id, key)}
        axes.plot(*zip(*sorted(points.items()), strict=True), ":" if label == "chance" else "-", label=label)
    axes.set_xscale("symlog", linthresh=10)


if __name__ == "__main__":
    main(sys.argv[1:])
