"""Sketched and exact Gram matrices of per-example gradients of a GPT: time, error of a cosine, and the stated error."""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.networks import CASES, losses
from benchmarks.record import one_thread, store
from nfa.maths.gradient_sketch import cosine_error
from nfa.maths.gram import cosines
from nfa.measures.gradient_gram import SHIFTS, GradientGram, choose_parameters
from nfa.measures.gradient_store import GradientStore
from nfa.measures.sketch_sizes import choose_sketches
from nfa.observe.example_gradients import BatchGradients
from nfa.workloads.probe import Probe

CASE, EXAMPLES = "GPT, d = 128", 128


def seconds(work: Callable[[], Any], rounds: int = 3) -> float:
    """The fewest CPU seconds."""
    found = []
    for _ in range(rounds):
        start = time.process_time()
        work()
        found.append(time.process_time() - start)
    return min(found)


def multiplied(gram: GradientGram, made: BatchGradients) -> Tensor:
    """K of gradients as a pass returns them."""
    held = GradientStore(EXAMPLES, EXAMPLES, gram.sketches)
    for region, parts in made.parts.items():
        held.put(slice(0, EXAMPLES), region, parts)
    held.end(slice(0, EXAMPLES), made.scale)
    return held.gram(SHIFTS if gram.sketches else 0)


def measured() -> dict[str, Any]:
    """Times and errors at 128 examples of random bytes."""
    model, examples = CASES[CASE].build(EXAMPLES)
    probe = Probe(model, losses, *examples)
    exact, sketch = (GradientGram(probe, range(EXAMPLES), choose_parameters(probe, model)) for _ in range(2))
    expected = exact(model)
    tight = GradientGram(probe, range(EXAMPLES), exact.parameters, budget=2**20)  # so that auto chooses a sketch
    start = time.process_time()
    chosen = choose_sketches(tight, model, lambda: None, asked="auto", seed=0)
    choosing = time.process_time() - start
    sketch.sketches, sketch.door = chosen.projections, exact.door
    found, apart = sketch(model), ~torch.eye(EXAMPLES, dtype=torch.bool)
    assert sketch.shifts is not None
    stated = cosine_error(found, sketch.shifts)
    gradients, batch = exact.open(model), exact.batch_of(exact.ids)
    times = {name: seconds(work) for name, work in (("exact", lambda: exact(model)), ("sketch", lambda: sketch(model)))}
    alone = seconds(lambda: gradients(batch))
    made = gradients(batch)
    after = {name: seconds(partial(multiplied, one, made)) for name, one in (("exact", exact), ("sketch", sketch))}
    return {
        "times faster": round(times["exact"] / times["sketch"], 2),
        "times faster after forward and backward pass": round(after["exact"] / after["sketch"], 2),
        "CPU seconds: exact, sketch, pass alone": [round(t, 3) for t in (times["exact"], times["sketch"], alone)],
        "CPU seconds of choosing, once a run": round(choosing, 3),
        "error of a cosine": round(float((cosines(found)[0] - cosines(expected)[0])[apart].square().mean().sqrt()), 5),
        "stated error of a cosine": round(stated or 0.0, 5),
        "random vectors": chosen.size,
    }


def main() -> None:
    """Measure and record."""
    one_thread()
    notes = ["One thread; the forward and backward pass to the layers' outputs is the same for both."]
    store("gradient_sketch", "Sketched and exact Gram matrix of a GPT, 128 examples of 128 tokens", measured(), notes)


if __name__ == "__main__":
    main()
