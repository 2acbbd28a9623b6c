"""Sketched and exact Gram matrices of per-example gradients of a GPT: time, error of a cosine, and the stated error."""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from benchmarks.record import store
from nfa.maths.gradient_sketch import cosine_error
from nfa.maths.gram import cosines
from nfa.measures.gradient_gram import GradientGram, choose_parameters
from nfa.measures.sketch_sizes import choose_sketches
from nfa.observe.example_gradients import BatchGradients
from nfa.workloads.probe import Probe

WORDS, POSITIONS, FEATURES, BLOCKS, HEADS, EXAMPLES = 256, 128, 128, 4, 4, 128


class Block(nn.Module):
    """Causal attention and two linear layers, each after a norm and around a residual."""

    def __init__(self) -> None:
        super().__init__()
        d = FEATURES
        self.norms = nn.ModuleList([nn.LayerNorm(d), nn.LayerNorm(d)])
        self.qkv, self.out, self.up, self.down = (
            nn.Linear(i, o) for i, o in ((d, 3 * d), (d, d), (d, 4 * d), (4 * d, d))
        )

    def forward(self, x: Tensor) -> Tensor:
        n, t, d = x.shape
        q, k, v = self.qkv(self.norms[0](x)).view(n, t, 3, HEADS, d // HEADS).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(n, t, d)
        x = x + self.out(mixed)
        fed: Tensor = x + self.down(F.gelu(self.up(self.norms[1](x))))
        return fed


class GPT(nn.Module):
    """Four blocks with learned positions."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(WORDS, FEATURES), nn.Embedding(POSITIONS, FEATURES)
        self.blocks, self.norm = nn.Sequential(*(Block() for _ in range(BLOCKS))), nn.LayerNorm(FEATURES)
        self.head = nn.Linear(FEATURES, WORDS, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.norm(self.blocks(self.words(x) + self.places(torch.arange(POSITIONS)))))
        return logits


def loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy over the positions of an example."""
    return F.cross_entropy(outputs.transpose(1, 2), targets, reduction="none").mean(dim=1)


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
    stored = gram.stored(made)
    return gram.block(stored, stored)


def measured() -> dict[str, Any]:
    """Times and errors at 128 examples of random words."""
    torch.manual_seed(0)
    model, words = GPT().eval(), torch.randint(WORDS, (EXAMPLES, POSITIONS + 1))
    present = torch.ones(EXAMPLES, POSITIONS, dtype=torch.bool)
    probe = Probe(model, loss, words[:, :-1], words[:, 1:], present=present)
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
    torch.set_num_threads(1)
    notes = ["One thread; the forward and backward pass to the layers' outputs is the same for both."]
    store("gradient_sketch", "Sketched and exact Gram matrix of a GPT, 128 examples of 128 tokens", measured(), notes)


if __name__ == "__main__":
    main()
