"""Of several processes that train together the first one records, and the others neither say nor hinder anything."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

import nfa
from tests.support.processes import FORKSERVER, draw_nothing, environment_of_tests, serve
from tests.support.stores import Store
from tests.support.toy_models import seeded
from tests.test_huggingface import examples, language_model, next_word, trained
from tests.test_watching import only

SIZE = 2


@dataclass(frozen=True)
class Joined:
    """A process of two that calls `act(watched)` and leaves the weights that it returns in a file."""

    act: Callable[[bool], nn.Module]
    folder: Path
    uri: str
    watched: bool

    def __call__(self, rank: int) -> None:
        os.environ.clear()
        together = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": SIZE, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": 0}
        os.environ.update(environment_of_tests(), MLFLOW_TRACKING_URI=self.uri, GLOO_SOCKET_IFNAME="lo")
        os.environ.update({name: str(value) for name, value in together.items()})
        os.chdir(self.folder)
        torch.set_num_threads(1)
        draw_nothing()
        place = f"file://{self.folder}/joined-{self.watched}"
        dist.init_process_group("gloo", init_method=place, rank=rank, world_size=SIZE)
        model = self.act(self.watched)
        torch.save(model.state_dict(), self.folder / f"{self.watched}-{rank}.pt")
        dist.destroy_process_group()


def together(act: Callable[[bool], nn.Module], store: Store, *, watched: bool) -> list[dict[str, Tensor]]:
    """The weights that each process has in the end."""
    serve()
    joined = Joined(act, store.folder, store.uri, watched)
    started = [FORKSERVER.Process(target=joined, args=(rank,)) for rank in range(SIZE)]
    for one in started:
        one.start()
    for one in started:
        one.join(120)
    assert [one.exitcode for one in started] == [0] * SIZE
    return [torch.load(store.folder / f"{watched}-{rank}.pt") for rank in range(SIZE)]


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.3), nn.Linear(6, 3))


def own_loop(watched: bool) -> nn.Module:
    """DistributedDataParallel in a loop of one's own; only the first process has a run."""
    import mlflow

    model = nn.parallel.DistributedDataParallel(seeded(network).train())
    drawn = torch.Generator().manual_seed(dist.get_rank())
    x, y = torch.randn(24, 4, generator=drawn), torch.randint(3, (24,), generator=drawn)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    torch.manual_seed(dist.get_rank())

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(outputs, targets, reduction="none")

    def train(watch: Any) -> None:
        for step in range(3):
            if watch:
                assert bool(watch.record(step)) is (dist.get_rank() == 0)
            optimizer.zero_grad()
            loss(model(x), y).mean().backward()
            optimizer.step()

    if not watched:
        train(None)
    elif dist.get_rank():
        with nfa.watch(model, loss, (x, y), studies="alignment,flow", checkpoints=True) as watch:
            train(watch)
    else:
        with mlflow.start_run(), nfa.watch(model, loss, (x, y), studies="alignment,flow", checkpoints=True) as watch:
            train(watch)
    return model.module


def in_the_trainer(watched: bool) -> nn.Module:
    import mlflow

    from nfa.callbacks.huggingface import WatchCallback

    model, folder = language_model(), Path.cwd() / "trainer"
    callback = WatchCallback(next_word, examples(6), studies="alignment,flow", every=1, checkpoints=True)
    if watched and dist.get_rank() == 0:
        with mlflow.start_run():
            return trained(model, folder, callback)
    return trained(model, folder, *([callback] if watched else []))


def in_lightning(watched: bool) -> nn.Module:
    import mlflow

    from tests.test_lightning import recording
    from tests.test_lightning import trained as trained_by_lightning

    callback = recording(module="net.0", studies="alignment,flow", every=1, checkpoints=True)
    options = {"strategy": "ddp", "devices": SIZE, "num_sanity_val_steps": 0}
    if watched and dist.get_rank() == 0:
        with mlflow.start_run():
            return trained_by_lightning(callback, **options)
    return trained_by_lightning(*([callback] if watched else []), **options)


WITH_LAST = (in_the_trainer, in_lightning)  # which record the last step too


@pytest.mark.parametrize(
    ("act", "site"),
    [
        (own_loop, "0"),
        pytest.param(in_the_trainer, "model.layers.0.mlp.up_proj", marks=pytest.mark.slow),
        pytest.param(in_lightning, "0", marks=pytest.mark.slow),
    ],
)
def test_the_first_records_the_second_is_silent_and_training_is_bitwise_the_same(
    act: Callable[[bool], nn.Module], site: str, fresh: Store
) -> None:
    seen, unseen = together(act, fresh, watched=True), together(act, fresh, watched=False)
    for one, other in zip(seen, unseen, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in other)
    steps = [step for key, step, _ in fresh.metrics(only(fresh)) if key == f"{site}/h_vs_m"]
    assert steps == ([0, 1, 2, 3] if act in WITH_LAST else [0, 1, 2])
    names = {name for of_file in fresh.checkpoints(only(fresh)).values() for name in of_file}
    assert len(fresh.checkpoints(only(fresh))) == len(steps)
    assert "0.weight" in names or act is in_the_trainer
    assert not [name for name in names if name.startswith("module.")]
