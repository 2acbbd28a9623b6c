"""Trainings with `nfa.watch` and without: what it changes, which is nothing, and the last values that it records.

Right values come from loops over single examples in float64, which know nothing of how nfa observes.
"""

import copy
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import mlflow
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

import nfa
from nfa.registry import tracking
from nfa.testing import inertness
from tests.support.models.image import ResNet
from tests.support.models.loops import RELATIONS, Pass, alignment
from tests.support.models.text import gpt2, mixtral, mixtral_twin
from tests.support.models.workloads import EXAMPLES, LENGTHS, cross_entropy, next_tokens, normal, whole
from tests.support.toy_models import seeded

STEPS, RATE = 4, 0.02
OPTIONS = {"relations": RELATIONS, "sites": "*", "directions": "all", "batch_size": 3}
STUDIES = "alignment,directions,flow"
Values = dict[str, float]
Run = Callable[["Training", nn.Module, bool], torch.optim.Optimizer]
Computes = Callable[[], AbstractContextManager[Any]]


def bfloat16() -> AbstractContextManager[Any]:
    """What `bf16=True` puts around a forward pass."""
    return torch.autocast("cpu", torch.bfloat16)


def own_loop(training: "Training", model: nn.Module, watched: bool) -> torch.optim.Optimizer:
    """AdamW in training mode, recorded at every step."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE)
    watching: Any = nfa.watch(model, training.loss, training.probe, studies=STUDIES, **OPTIONS) if watched else None
    with watching or nullcontext():
        for step in range(STEPS + 1):
            if watching:
                watching.record(step)
            if step < STEPS:
                optimizer.zero_grad()
                training.losses(model.train(), *training.probe).mean().backward()
                optimizer.step()
    return optimizer


def trainer(training: "Training", model: nn.Module, watched: bool) -> torch.optim.Optimizer:
    """Hugging Face's Trainer in bfloat16, with the callback."""
    from transformers import Trainer, TrainingArguments

    from nfa.callbacks.huggingface import WatchCallback

    inputs, labels = training.probe
    rows = [{**{name: inputs[name][row] for name in inputs}, "labels": labels[row]} for row in range(len(labels))]
    callback = WatchCallback(training.loss, training.probe, studies=STUDIES, every=1, **OPTIONS)
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder, max_steps=STEPS, learning_rate=RATE, bf16=True, use_cpu=True, report_to="none", save_strategy="no",
            disable_tqdm=True, seed=0,
        )  # fmt: skip
        made = Trainer(model, arguments, train_dataset=rows, callbacks=[callback] if watched else [])
        made.train()
    assert made.optimizer is not None
    return made.optimizer


@dataclass(frozen=True)
class Training:
    """A model, the examples that it is trained and watched on, and the layers and the group that are compared.

    `lengths`: of padded examples. `twin`: the model with a module for each site. `run`: trains it. `computes`: what is
    put around a forward pass, of the loops too; None: they run in float64. `allowed`: the difference.
    """

    build: Callable[[], nn.Module]
    loss: Callable[[Tensor, Tensor], Tensor]
    probe: tuple[Any, Tensor]
    sites: tuple[str, ...]
    group: str
    lengths: Sequence[int] = ()
    twin: Callable[[nn.Module], nn.Module] = copy.deepcopy
    run: Run = own_loop
    computes: Computes | None = None
    allowed: float = 1e-5

    def losses(self, model: nn.Module, inputs: Any, targets: Tensor) -> Tensor:
        """Of each example."""
        return self.loss(answer(model, inputs), targets)

    def alone(self) -> Iterator[tuple[Any, Tensor]]:
        """Every example by itself, at its own length."""
        inputs, targets = self.probe
        for row in range(len(targets)):
            own = (slice(row, row + 1), *([slice(self.lengths[row])] if self.lengths else []))
            mine = {name: of[own] for name, of in inputs.items()} if isinstance(inputs, Mapping) else inputs[own]
            yield mine, targets[own]


def answer(model: nn.Module, inputs: Any) -> Tensor:
    """Logits, in float32 where they are in half precision, as the Trainer has them."""
    outputs: Tensor = model(**inputs).logits if isinstance(inputs, Mapping) else model(inputs)
    return outputs.float() if outputs.dtype is torch.bfloat16 else outputs


@dataclass(frozen=True)
class Found:
    """How many tensors and numbers of two trainings were compared, which differ, and values beside right ones.

    `exact` are those of the same weights where everything is computed in float64.
    """

    state: int
    differing: Sequence[str]
    recorded: Values
    right: Values
    exact: Values
    allowed: float

    def largest(self, right: Values) -> float:
        """The largest difference of what is recorded; of what is no cosine the relative one."""
        sizes = {key: abs(value) if key.startswith(("flow/", "probe/")) else 1.0 for key, value in right.items()}
        return max(abs(self.recorded[key] - right[key]) / sizes[key] for key in right)

    @property
    def ok(self) -> bool:
        return not self.differing and self.largest(self.right) <= self.allowed


def compare(training: Training) -> Found:
    """Train without and with; the active MLflow run gets what is recorded."""
    run = mlflow.active_run()
    assert run
    start = training.build()
    alone, seen = copy.deepcopy(start), copy.deepcopy(start)
    unwatched, watched = trained(training, alone, False), trained(training, seen, True)
    series = tracking.history(run.info.run_id)
    end = copy.deepcopy(start)
    end.load_state_dict(seen.state_dict())
    exact = by_hand(training, start, end)
    right = by_hand(training, start, end, training.computes) if training.computes else exact
    recorded = {key: series[key][STEPS] for key in right}
    return Found(len(unwatched), inertness.differing(unwatched, watched), recorded, right, exact, training.allowed)


def trained(training: Training, model: nn.Module, watched: bool) -> inertness.State:
    """Weights, buffers, optimizer and generator after a training from the same seed."""
    torch.manual_seed(0)
    optimizer = training.run(training, model, watched)
    return {**flat(model.state_dict()), **flat(optimizer.state_dict()), "generator": torch.get_rng_state()}


def flat(value: Any, name: str = "") -> dict[str, Any]:
    """Tensors and numbers in any nesting, by the way to them."""
    if isinstance(value, Mapping):
        parts = list(value.items())
    elif isinstance(value, list | tuple):
        parts = list(enumerate(value))
    else:
        return {name: value.clone() if isinstance(value, Tensor) else value}
    return {key: of for place, part in parts for key, of in flat(part, f"{name}/{place}").items()}


# ---- by hand


def by_hand(training: Training, start: nn.Module, end: nn.Module, computes: Computes | None = None) -> Values:
    """The values of the last step: sums in float64 of what forward and backward passes give, in float64 or `computes`.

    Of the latter h, z and δ are the rounded ones, and W is rounded as it is for the product.
    """
    model = copy.deepcopy(end).eval() if computes else copy.deepcopy(end).double().eval()
    found: Values = {}
    for site in training.sites:
        W, passes = heard(training, training.twin(model), site, computes)
        relations = alignment(W, passes, exact=0.1 if computes else 1e-9)
        found |= {f"{site}/{name}": value for name, value in relations.items()}
    return {**found, **gradients(training, start, model, computes)}


def heard(training: Training, model: nn.Module, site: str, computes: Computes | None) -> tuple[Tensor, list[Pass]]:
    """W [o i] of a layer, and every call of it for each example."""
    layer: Any = model.get_submodule(site)
    passes = []
    for inputs, targets in training.alone():
        kept: list[tuple[Tensor, Tensor]] = []
        hook = layer.register_forward_hook(partial(_keep, kept))
        with computes() if computes else nullcontext():
            outputs = answer(model, inputs if computes else _double(inputs))
        hook.remove()
        loss = training.loss(outputs, targets).squeeze()
        passes += [Pass(h, z, outputs, loss) for h, z in kept]
    W = layer.weight.T if type(layer).__name__ == "Conv1D" else layer.weight.flatten(1)
    return W.bfloat16() if computes else W, passes


def _padding(layer: nn.Conv2d) -> tuple[int, ...]:
    assert not isinstance(layer.padding, str)
    return layer.padding


def _keep(kept: list[tuple[Tensor, Tensor]], layer: Any, given: tuple[Tensor, ...], z: Tensor) -> Tensor:
    """Of a convolution the patches, and its output with channels last."""
    if not isinstance(layer, nn.Conv2d):
        kept.append((given[0], z))
        return z
    patches = F.unfold(given[0], layer.kernel_size, layer.dilation, _padding(layer), layer.stride)
    last = z.movedim(1, -1)
    kept.append((patches.transpose(1, 2), last))
    return last.movedim(-1, 1)


def gradients(training: Training, start: nn.Module, model: nn.Module, computes: Computes | None) -> Values:
    """From the gradient of each example: their mean cosine, and size and change of a group of parameters."""
    rows: list[dict[str, Tensor]] = []
    losses: list[Tensor] = []
    for inputs, targets in training.alone():
        with computes() if computes else nullcontext():
            outputs = answer(model, inputs if computes else _double(inputs))
        losses.append(training.loss(outputs, targets).sum())
        made = torch.autograd.grad(losses[-1], list(model.parameters()), allow_unused=True)
        found = {name: g for (name, _), g in zip(model.named_parameters(), made, strict=True)}
        rows.append({name: of.double() for name, of in found.items() if of is not None})
    directions = [torch.cat([of.flatten() for of in row.values()]) for row in rows]
    units = torch.stack([row / row.norm() for row in directions])
    n = len(units)
    mean_cosine = float(((units @ units.T).sum() - n) / (n * (n - 1)))
    group = [name for name, _ in model.named_parameters() if name.rpartition(".")[0] == training.group]
    mean = torch.cat([torch.stack([row[name] for row in rows]).mean(dim=0).flatten() for name in group])
    now, before = (
        torch.cat([of.get_parameter(name).detach().double().flatten() for name in group]) for of in (model, start)
    )
    return {
        "gradient/mean_cosine": mean_cosine,
        f"flow/{training.group}/grad_rms": float(mean.square().mean().sqrt()),
        f"flow/{training.group}/weight_change": float((now - before).norm() / before.norm()),
        "probe/loss": float(torch.stack(losses).detach().mean()),
    }


def _double(inputs: Any) -> Any:
    return inputs.double() if isinstance(inputs, Tensor) else inputs


# ---- what is trained


def texts(longest: int) -> dict[str, Any]:
    """GPT-2 on 5, 3, 2 and 4 tokens, with dropout of 0.1."""
    made = gpt2(longest)
    return {
        "build": lambda: gpt2(longest).workload.network,
        "loss": next_tokens,
        "probe": (made.workload.all.inputs, made.workload.all.targets),
        "sites": ("transformer.h.0.mlp.c_fc", "transformer.h.1.attn.c_proj"),
        "group": "transformer.h.0.mlp.c_fc",
        "lengths": LENGTHS,
    }


def tokens() -> dict[str, Any]:
    made = mixtral()
    experts = "model.layers.0.mlp.experts"
    return {
        "build": lambda: mixtral().network,
        "loss": next_tokens,
        "probe": (made.all.inputs, made.all.targets),
        "sites": ("model.layers.0.self_attn.q_proj", f"{experts}.gate_up_proj.0", f"{experts}.down_proj.1"),
        "group": experts,
        "twin": mixtral_twin,
    }


TRAININGS: dict[str, Callable[[], Training]] = {
    "GPT-2, padded": lambda: Training(**texts(13)),
    "ResNet, BatchNorm in training mode": lambda: Training(
        partial(seeded, ResNet),
        cross_entropy,
        (normal(EXAMPLES, 2, 6, 6), whole(3, EXAMPLES)),
        ("layer1.conv1", "layer2.downsample.0", "fc"),
        "layer1.conv1",
    ),
    "Mixtral": lambda: Training(**tokens()),
    "GPT-2, padded, bf16=True in the Trainer": lambda: Training(
        **texts(13), run=trainer, computes=bfloat16, allowed=2**-8
    ),
}
