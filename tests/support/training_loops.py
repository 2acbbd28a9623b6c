"""What the tests of the training loop share: tiny trainings, ways to stop them, and equality to the bit."""

import io
from collections.abc import Iterator
from typing import Any

import torch

from nfa.registry.training.loop import Training
from nfa.workload import Batch
from tests.support.toy_models import tiny_classifier

EPOCHS, BATCHES = 3, 5  # 48 examples in batches of 10


class Stopped(BaseException):
    """As a signal between two steps."""


class Stopping:
    """Remembers the ids a workload gave, stops at the `at`-th place: before a batch or at an epoch's end."""

    def __init__(self, workload: Any, at: int | None = None) -> None:
        self.workload, self.left = workload, at
        self.given: list[list[int]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.workload, name)

    def batches(self, *args: object, **kwargs: object) -> Iterator[Batch]:
        for batch in self.workload.batches(*args, **kwargs):
            self._pass()
            self.given.append(batch.ids.tolist())
            yield batch
        self._pass()

    def _pass(self) -> None:
        if self.left == 0:
            raise Stopped
        self.left = None if self.left is None else self.left - 1


def training_of(optimizer: str, *, stop_at: int | None = None, **options: Any) -> Training:
    workload = tiny_classifier(optimizer, **options)
    model = workload.model()
    stopping: Any = Stopping(workload, stop_at)
    optimizers, objective = workload.optimizers(model), workload.objective()
    return Training(stopping, model, optimizers, batch_size=10, seed=workload.config.seed, objective=objective)


def through_a_file(state: dict[str, object]) -> dict[str, object]:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    read: dict[str, object] = torch.load(file, weights_only=True)
    return read


def final(training: Training, reports: list[int] | None = None) -> dict[str, torch.Tensor]:
    training.run(EPOCHS, (reports if reports is not None else []).append)
    return training.model.state_dict()


def assert_bitwise_equal(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name in found:
        assert torch.equal(found[name], expected[name]), name
