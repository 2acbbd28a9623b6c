"""An analysis that is asked for an accuracy, against one of all examples: `python -m benchmarks.target_se RUN_ID`.

The run is a training on Fashion-MNIST, 784-1024×5-10, with checkpoints 0 … 5:
`nfa train --dataset fashion-mnist --epochs 5 --schedule 0-5`.
"""

import sys
import time

from benchmarks.record import store
from nfa.parallel import World
from nfa.registry import tracking
from nfa.registry.analyses.alignment import AlignmentOfRun
from nfa.registry.analyses.config import AnalyzeConfig

TARGET, RELATION = 0.01, "agop_nfm"
WITHIN = 3  # standard errors


def main(run_id: str) -> None:
    """Analyse both ways, compare and record."""
    epochs = tracking.epochs(run_id)
    asked = AlignmentOfRun(run_id, AnalyzeConfig(relations=RELATION, target_se=TARGET), World(), epochs[0])
    start = time.process_time()
    asked.choose(epochs)
    few = time.process_time() - start
    everything = AlignmentOfRun(run_id, AnalyzeConfig(relations=RELATION), World(), epochs[0])
    exact, all_of_them = {}, 0.0
    for epoch in epochs:
        start = time.process_time()
        (exact[epoch],) = everything.measure(epoch, [len(everything.analysis.ids)])
        all_of_them += time.process_time() - start
    apart = {
        epoch: max(
            abs(value - exact[epoch][key]) / found[f"{key}_se"]
            for key, value in found.items()
            if key.endswith(f"/{RELATION}")
        )
        for epoch, found in asked.found.items()
    }
    store(
        "target_se",
        f"target_se={TARGET:g} for {RELATION} against all 48,000 examples, Fashion-MNIST, 784-1024×5-10, "
        f"{len(epochs)} checkpoints",
        {
            "examples chosen": asked.accuracy["examples"],
            "target reached": asked.accuracy["reached"],
            "with a target, CPU s": round(few, 1),
            "all examples, CPU s": round(all_of_them, 1),
            "times faster": round(all_of_them / few, 1),
            **{f"epoch {epoch}, largest |Δ| in standard errors": round(most, 2) for epoch, most in apart.items()},
            f"checkpoints within {WITHIN} of them": f"{sum(one <= WITHIN for one in apart.values())} of {len(apart)}",
        },
        ["CPU seconds of the search with all its passes, and of one pass over all examples at each checkpoint."],
    )


if __name__ == "__main__":
    main(sys.argv[1])
