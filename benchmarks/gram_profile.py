"""Where the time of a Gram matrix of per-example gradients goes, and what each part of it takes at least."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import Any
from unittest.mock import patch

from benchmarks.gram import build, gram_of
from benchmarks.gram_floor import floor_parts
from benchmarks.record import keep_freed_memory, one_thread, store
from nfa.maths import gradient_table
from nfa.measures import gradient_store
from nfa.observe import gradient_reading
from nfa.observe.example_gradients import ExampleGradients

CASES, EXAMPLES, ROUNDS = ("ResNet 16/32/64", "GPT, d = 128"), 128, 5
PARTS: Mapping[str, tuple[tuple[Any, str], ...]] = {
    "forward and backward pass": ((gradient_reading.Reader, "recorded"), (gradient_reading, "gradients")),
    "gradient of the loss": ((ExampleGradients, "_cotangent"),),
    "γ of layers, norms and biases": ((gradient_reading.Reader, "_parts"), (gradient_store.GradientStore, "put")),
    "products": ((gradient_table, "_gram"), (gradient_store, "inner")),
}


class Exclusive:
    """CPU seconds by part; what a part calls that is a part of its own is not counted twice."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(PARTS, 0.0)
        self.inside: list[float] = []

    def timed(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function, whose time is counted."""

        @wraps(function)
        def counted(*args: Any, **options: Any) -> Any:
            start = time.process_time()
            self.inside.append(0.0)
            found = function(*args, **options)
            found = list(found) if isinstance(found, Iterator) else found
            whole = time.process_time() - start
            self.seconds[part] += whole - self.inside.pop()
            if self.inside:
                self.inside[-1] += whole
            return found

        return counted

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Count in the block."""
        with ExitStack() as stack:
            for part, functions in PARTS.items():
                for where, name in functions:
                    stack.enter_context(patch.object(where, name, self.timed(part, getattr(where, name))))
            yield


def profiled(case: str) -> dict[str, Any]:
    """Milliseconds of each part of the fastest of some rounds, and at least."""
    model, examples = build(case, EXAMPLES)
    gram = gram_of(model, examples)
    gram(model)
    rounds = []
    for _ in range(ROUNDS):
        parts = Exclusive()
        with parts.watching():
            start = time.process_time()
            gram(model)
            rounds.append((time.process_time() - start, parts.seconds))
    total, seconds = min(rounds, key=lambda one: one[0])
    least = floor_parts(model, examples)
    said = {part: _said(of, least.get(part)) for part, of in seconds.items()}
    said |= {"the rest": _said(total - sum(seconds.values()), None), "in all": _said(total, sum(least.values()))}
    return {f"{case}: {part}, ms (at least)": of for part, of in said.items()}


def _said(seconds: float, least: float | None) -> str:
    return f"{1e3 * seconds:.0f}" + (f" ({1e3 * least:.0f})" if least is not None else "")


def main() -> None:
    """Profile and record."""
    keep_freed_memory()
    one_thread()
    notes = [
        f"One thread; {EXAMPLES} simulated examples; CPU time of the fastest of {ROUNDS} matrices. At least: a bare "
        "forward pass and a backward pass to the outputs of the layers, and the multiply-adds of γ and of one triangle "
        "of the Gram matrix at the rate of this machine's float32 products. Convolutions can be faster than that rate.",
        "γ of norms and biases are sums over positions, which the least does not count.",
    ]
    store("gram_profile", "Where the time of a Gram matrix goes", profiled(CASES[0]) | profiled(CASES[1]), notes)


if __name__ == "__main__":
    main()
