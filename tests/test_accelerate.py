"""`nfa.watch` in a loop of accelerate's: prepared models, gradient accumulation, bfloat16, one and two processes."""

from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import mlflow
import pytest
import torch
import torch.nn as nn
from accelerate import Accelerator
from torch.utils.data import DataLoader, TensorDataset

import nfa
from nfa.registry import tracking
from tests.support.analyses import series, undrawn
from tests.support.snapshots import assert_same
from tests.support.stores import Store
from tests.support.toy_models import layers, seeded
from tests.test_watching import cross_entropy, only
from tests.test_watching_checkpoints import again
from tests.test_watching_processes import together

SIZES = 4, 6, 5, 3


def loop(watched: bool, *, mixed_precision: str = "no") -> nn.Module:
    """Eight batches, four optimizer steps; only the first process has a run."""
    drawn = torch.Generator().manual_seed(0)
    x, y = torch.randn(64, 4, generator=drawn), torch.randint(3, (64,), generator=drawn)
    net = seeded(layers, *SIZES)
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2, mixed_precision=mixed_precision)
    per_process = 64 // 8 // accelerator.num_processes
    model, optimizer, loader = accelerator.prepare(
        net, torch.optim.SGD(net.parameters(), lr=0.5), DataLoader(TensorDataset(x, y), batch_size=per_process)
    )
    run = mlflow.start_run() if watched and accelerator.is_main_process else nullcontext()
    options: dict[str, Any] = {"studies": "alignment,flow", "checkpoints": True}
    with run, nfa.watch(model, cross_entropy, (x[:12], y[:12]), **options) if watched else nullcontext() as watch:
        step = 0
        if watch:
            watch.record(step)
        for inputs, targets in loader:
            with accelerator.accumulate(model):
                accelerator.backward(cross_entropy(model(inputs), targets).mean())
                optimizer.step()
                optimizer.zero_grad()
            if accelerator.sync_gradients:
                step += 1
                if watch:
                    assert bool(watch.record(step)) is accelerator.is_main_process
    assert step == 4
    return net


@pytest.mark.parametrize("mixed_precision", ["no", "bf16"])
@pytest.mark.usefixtures("no_accelerator")
def test_a_prepared_model_is_watched_at_every_optimizer_step_and_training_is_bitwise_the_same(
    mixed_precision: str, store: Store
) -> None:
    with undrawn():
        seen = loop(True, mixed_precision=mixed_precision)
    alone = loop(False, mixed_precision=mixed_precision)
    assert_same(dict(seen.state_dict()), dict(alone.state_dict()))
    found = series(store, only(store))
    assert list(found["0/h_vs_m"]) == list(found["flow/0/grad_rms"]) == [0, 1, 2, 3, 4]
    assert tracking.epochs(only(store)) == [0, 1, 2, 3, 4]
    for step in (0, 4):
        again(store, layers(*SIZES), step)


def part(folder: Path, first: int, last: int) -> None:
    """Steps of Adam, each of two batches; the state at step 3 lies in a folder. The probe is the prepared loader."""
    drawn = torch.Generator().manual_seed(0)
    data = TensorDataset(torch.randn(48, 4, generator=drawn), torch.randint(3, (48,), generator=drawn))
    net, accelerator = seeded(layers, *SIZES), Accelerator(cpu=True, gradient_accumulation_steps=2)
    model, optimizer, loader = accelerator.prepare(
        net, torch.optim.Adam(net.parameters(), lr=0.05), DataLoader(data, batch_size=4)
    )
    if first:
        accelerator.load_state(str(folder))
    options: dict[str, Any] = {"studies": "alignment,directions,flow", "examples": 12, "checkpoints": True}
    with nfa.watch(model, cross_entropy, loader, step=first, **options) as watch:
        watch.record(first)
        for batch, (inputs, targets) in enumerate(loader, start=1):
            if not 2 * first < batch <= 2 * last:
                continue
            with accelerator.accumulate(model):
                accelerator.backward(cross_entropy(model(inputs), targets).mean())
                optimizer.step()
                optimizer.zero_grad()
            if accelerator.sync_gradients:
                watch.record(batch // 2)
            if batch == 6:
                accelerator.save_state(str(folder))


@pytest.mark.usefixtures("no_accelerator")
def test_a_loop_that_goes_on_in_its_run_has_the_values_of_one_that_was_never_cut(store: Store, tmp_path: Path) -> None:
    with undrawn():
        with mlflow.start_run() as whole:
            part(tmp_path, 0, 6)
        with mlflow.start_run() as cut:
            part(tmp_path, 0, 4)
        with mlflow.start_run(run_id=cut.info.run_id):
            part(tmp_path, 3, 6)
    expected, found = (series(store, run.info.run_id) for run in (whole, cut))
    assert list(found["0/agop_nfm_init_removed"]) == [1, 2, 3, 4, 5, 6]
    assert found.keys() == expected.keys()
    for key, of_key in expected.items():
        assert found[key] == pytest.approx(of_key, rel=1e-4, abs=1e-6), key
    assert tracking.epochs(cut.info.run_id) == list(range(7))


@pytest.mark.slow
@pytest.mark.parametrize("mixed_precision", ["no", "bf16"])
def test_of_two_processes_the_first_records_and_training_is_bitwise_the_same(
    mixed_precision: str, fresh: Store
) -> None:
    act = partial(loop, mixed_precision=mixed_precision)
    seen, unseen = together(act, fresh, watched=True), together(act, fresh, watched=False)
    for one, other in zip(seen, unseen, strict=True):
        assert_same(one, other)
    steps = [step for key, step, _ in fresh.metrics(only(fresh)) if key == "0/h_vs_m"]
    assert steps == [0, 1, 2, 3, 4]
    checkpoints = fresh.checkpoints(only(fresh))
    assert list(checkpoints) == [f"step_{step:06d}.safetensors" for step in steps]
    assert_same(checkpoints["step_000004.safetensors"], dict(seen[0]))
