"""Layers that several processes share: outputs, gradients and statistics of the whole batch in one process."""

import itertools
import socket

import pytest
import torch
import torch.distributed as dist
import torch.nn as nn
from torch import Tensor

from nfa.registry.training.shared_batch import SharedBatchNorm, SharedDropout, share_batches
from tests.support.processes import FORKSERVER

BATCHES = {"even": (2, 4), "uneven": (2, 5), "one and two": (1, 3), "three in a row": (2, 5, 5, 5)}  # share, batches
CHANNELS, LENGTH = 3, 7


class Layers(nn.Module):
    """Examples mix in two places and are dropped in two: [n C T] → the same."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = SharedBatchNorm(CHANNELS), SharedBatchNorm(CHANNELS)
        self.dropout = SharedDropout(0.3)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.dropout(torch.tanh(self.first(x)))
        out: Tensor = self.dropout(self.second(hidden * hidden.roll(1, dims=2)))
        return out


def passed(batches: tuple[int, ...], rows: slice, *, total: bool) -> dict[str, Tensor]:
    """Outputs, gradients and statistics after some batches, of which `rows` are here; several where `total`."""
    model = Layers().double()
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(torch.randn(weight.shape, generator=random, dtype=torch.float64))
    share, found = share_batches(model), {}
    torch.manual_seed(9)
    for number, n in enumerate(batches):
        x, direction = torch.randn(2, n, CHANNELS, LENGTH, generator=random, dtype=torch.float64)
        mine = slice(rows.start, n if rows.stop is None else rows.stop)
        share.start, share.stop, share.total = mine.start, mine.stop, n if total else None
        own = (3 + 2 * x[mine]).requires_grad_()
        outputs = model(own)
        found[f"outputs {number}"] = outputs.detach()
        names, weights = zip(*model.named_parameters(), strict=True)
        parts = torch.autograd.grad(outputs, [own, *weights], direction[mine])
        found |= dict(zip([f"inputs {number}", *(f"{name} {number}" for name in names)], parts, strict=True))
        found |= {f"{name} {number}": value.clone() for name, value in model.named_buffers()}
    found["evaluated"] = model.eval()(own).detach()
    return found


def in_a_process(rank: int, port: int, results: object) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    for name, (first, *batches) in BATCHES.items():
        rows = slice(0, first) if rank == 0 else slice(first, None)
        results.put(
            (rank, name, {key: value.tolist() for key, value in passed(tuple(batches), rows, total=True).items()})
        )
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def shared() -> dict[tuple[int, str], dict[str, Tensor]]:
    """By process and name of what was passed."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    results = FORKSERVER.SimpleQueue()
    started = [FORKSERVER.Process(target=in_a_process, args=(rank, port, results)) for rank in range(2)]
    for process in started:
        process.start()
    found = [results.get() for _ in range(2 * len(BATCHES))]
    for process in started:
        process.join()
    assert [process.exitcode for process in started] == [0, 0]
    return {
        (rank, name): {key: torch.tensor(value, dtype=torch.float64) for key, value in values.items()}
        for rank, name, values in found
    }


@pytest.mark.parametrize("name", BATCHES)
def test_two_processes_have_the_outputs_gradients_and_statistics_of_one(name, shared):
    _, *batches = BATCHES[name]
    expected = passed(tuple(batches), slice(0, None), total=False)
    one, other = (shared[rank, name] for rank in range(2))
    for key, value in expected.items():
        kind = key.split()[0]
        if kind in ("outputs", "inputs", "evaluated"):
            found = torch.cat([one[key], other[key]])
        elif kind.endswith(("weight", "bias")):
            found = one[key] + other[key]
        else:
            found = one[key]
            assert torch.equal(found, other[key]), key
        torch.testing.assert_close(found, value.double(), rtol=1e-12, atol=1e-12, msg=key)


def test_processes_that_had_statistics_of_their_own_would_be_noticed():
    """The comparison above can fail: each half by itself gives something else."""
    whole = passed((5,), slice(0, None), total=False)
    half = passed((5,), slice(0, 2), total=False)
    assert not torch.allclose(half["outputs 0"], whole["outputs 0"][:2], rtol=1e-3)
    assert not torch.allclose(half["first.running_mean 0"], whole["first.running_mean 0"], rtol=1e-3)


@pytest.mark.parametrize("training", [True, False])
def test_alone_batch_norm_is_that_of_torch_to_the_bit(training):
    ours, theirs = SharedBatchNorm(CHANNELS).train(training), nn.BatchNorm1d(CHANNELS).train(training)
    share_batches(ours)
    for n in (4, 1, 3):
        x = torch.randn(n, CHANNELS, LENGTH) * 2 + 1
        outputs = [layer(x) for layer in (ours, theirs)]
        assert torch.equal(*outputs)
        for layer, out in zip((ours, theirs), outputs, strict=True):
            layer.zero_grad()
            out.sin().sum().backward()
        for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            assert torch.equal(one.grad, other.grad)
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    for name, value in ours.state_dict().items():
        assert torch.equal(value, theirs.state_dict()[name]), name


def test_a_model_s_layers_have_one_share():
    model = nn.Sequential(Layers(), nn.Sequential(SharedDropout(0.5)))
    share = share_batches(model)
    shared = [each for each in model.modules() if isinstance(each, SharedBatchNorm | SharedDropout)]
    assert len(shared) == 4
    assert all(each.share is share for each in shared)


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("bounds", [[0, 6], [0, 2, 6], [0, 1, 2, 6]])
def test_the_rows_of_a_mask_do_not_depend_on_how_they_are_shared(bounds, turned):
    """Nor on how the values lie in memory."""
    x = torch.randn(6, 5, 4)
    x = x.transpose(1, 2).contiguous().transpose(1, 2) if turned else x
    dropout = SharedDropout(0.4)
    torch.manual_seed(2)
    alone = dropout(x)
    assert 0.2 < float((alone == 0).double().mean()) < 0.6
    rows = []
    for start, stop in itertools.pairwise(bounds):
        dropout.share.start, dropout.share.stop, dropout.share.total = start, stop, 6
        torch.manual_seed(2)
        rows.append(dropout(x[start:stop]))
    torch.testing.assert_close(torch.cat(rows), alone)


def test_without_dropout_or_in_evaluation_nothing_is_drawn():
    x, state = torch.randn(3, 4), torch.get_rng_state()
    for dropout in (SharedDropout(0.0), SharedDropout(0.5).eval()):
        for total in (None, 6):
            dropout.share.total, dropout.share.stop = total, 3
            assert torch.equal(dropout(x), x)
    assert torch.equal(torch.get_rng_state(), state)
