"""Gram matrices and AGOP on a device, against vmap(grad) and vmap(jacrev) on the same device: speed and memory."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from statistics import median
from typing import Any

import torch.nn as nn

from benchmarks.baselines import agop_vmap_jacrev, gram_vmap_grad
from benchmarks.device.accelerator import NO_TIME, Accelerator, Clock, Missing
from benchmarks.device.plan import Plan
from benchmarks.networks import Case, losses
from benchmarks.record import ratio
from nfa.maths.float32_products import full_float32
from nfa.measures.gradient_gram import GradientGram, choose_parameters
from nfa.measures.site_matrices import SiteMeasures, chosen_sites
from nfa.observe.door import few_of, find_sites
from nfa.workloads.probe import Probe

Ways = Mapping[str, Callable[[], Any]]


def gram_ways(case: Case, n: int, accelerator: Accelerator) -> Ways:
    """Return both ways to the Gram matrix; the check at the door is made once, in the first call."""
    model, (inputs, targets) = case.build(n, accelerator.device)
    probe = Probe(model, losses, inputs, targets)
    gram = GradientGram(probe, probe.ids("train"), choose_parameters(probe, model))
    return {"this": partial(gram, model), "vmap(grad)": partial(gram_vmap_grad, model, losses, inputs, targets)}


def agop_ways(case: Case, n: int, accelerator: Accelerator) -> Ways:
    """Return both ways to AGOP of all layers but the readout."""
    model, (inputs, targets) = case.build(n, accelerator.device)
    probe = Probe(model, losses, inputs, targets)
    found = find_sites(model, probe, few_of(probe))
    measures = SiteMeasures(probe, chosen_sites(probe, model, found), frozenset({"agop"}), found=found)
    weights = [layer.weight.detach() for layer in model.modules() if isinstance(layer, nn.Linear)]
    batches = partial(probe.batches, "train", batch_size=probe.examples_at_once)
    return {
        "this": lambda: measures(model, batches()),
        "vmap(jacrev)": partial(agop_vmap_jacrev, weights, inputs),
    }


def speeds(plan: Plan, accelerator: Accelerator, clock: Clock) -> Iterator[tuple[str, Any]]:
    """Yield the rows of every case, small ones first; products are in full float32, whatever PyTorch's default is."""
    cases = {f"AGOP, {plan.agop_examples:,} examples": partial(agop_ways, plan.agop, plan.agop_examples)}
    for n in plan.sizes:
        cases |= {f"Gram matrix, {name}, {n} examples": partial(gram_ways, of, n) for name, of in plan.speed.items()}
    for label, make in cases.items():
        with full_float32():
            rows = list(_rows(label, make, accelerator, clock))
        yield from rows


def _rows(
    label: str, make: Callable[[Accelerator], Ways], accelerator: Accelerator, clock: Clock
) -> Iterator[tuple[str, Any]]:
    """Yield milliseconds, the ratio of both ways, and the memory of each; or why there are none."""
    if clock.left() <= 0:
        yield label, NO_TIME
        return
    ways = accelerator.attempt(lambda: make(accelerator))
    if isinstance(ways, Missing):
        yield label, ways
        return
    peaks = {name: accelerator.attempt(partial(_tried, accelerator, run)) for name, run in ways.items()}
    for name, peak in peaks.items():
        yield f"{label}: {name}{'' if isinstance(peak, Missing) else ', MB'}", peak
    fitting = {name: run for name, run in ways.items() if not isinstance(peaks[name], Missing)}
    seconds = accelerator.attempt(partial(accelerator.seconds, fitting, clock))
    if isinstance(seconds, Missing):
        yield label, seconds
        return
    for name, of_way in seconds.items():
        yield f"{label}: {name}, ms", float(f"{1000 * median(of_way):.3g}")
        if name != "this" and "this" in seconds:
            yield f"{label}: times faster than {name}", round(ratio(of_way, seconds["this"]), 2)


def _tried(accelerator: Accelerator, run: Callable[[], Any]) -> int | None:
    """Run once at least, and return MB at the peak; None where the device does not tell."""
    run()
    peak = accelerator.peak(run)
    return None if peak is None else round(peak)
