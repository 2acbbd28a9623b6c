"""EEG fault 9: the test set was evaluated in training, BatchNorm had statistics of a part, parameters stood unused."""

import pytest
import torch

from nfa.parallel import World
from nfa.registry.families.eeg.training import DecoderTraining
from nfa.registry.families.eeg.workload import EEGDecoder
from nfa.registry.training.shared_batch import SharedBatchNorm
from tests.support.eeg_trainings import tiny_decoder
from tests.support.stores import Finished


def test_the_test_set_has_one_result_that_of_the_chosen_weights(decoded: Finished) -> None:
    best = int(decoded.store.tags(decoded.run_id)["nfa.best_epoch"])
    rows = [(key, step) for key, step, _ in decoded.store.metrics(decoded.run_id) if key.startswith("test/")]
    assert len(rows) == len(set(rows)) == 6
    assert {step for _, step in rows} == {best}


def test_training_and_its_evaluations_read_no_window_of_the_test_set(monkeypatch: pytest.MonkeyPatch) -> None:
    workload = tiny_decoder(epochs=2, eval_every=1)
    read, given = [], EEGDecoder.batches

    def batches(own: EEGDecoder, split: str, **options: object) -> object:
        read.append(split)
        for batch in given(own, split, **options):
            assert {part.split for part in own.data.part_of(batch.ids)} == {split}
            yield batch

    monkeypatch.setattr(EEGDecoder, "batches", batches)
    monkeypatch.setattr("nfa.registry.families.eeg.training.read", lambda _: workload.data)
    DecoderTraining().assist(workload.config, (workload.example_ids, None), World())
    assert set(read) == {"train", "val"}


def test_no_batch_norm_is_one_that_processes_do_not_share() -> None:
    norms = [
        part for part in tiny_decoder().model().modules() if isinstance(part, torch.nn.modules.batchnorm._BatchNorm)
    ]
    assert norms
    assert all(type(norm) is SharedBatchNorm for norm in norms)


def test_without_subjects_no_parameter_is_unused() -> None:
    workload = tiny_decoder(use_subjects=False)
    model, batch = workload.model(), next(workload.batches("train", batch_size=4))
    workload.losses(workload.outputs(model, batch), batch).mean().backward()
    assert all(weight.grad is not None for weight in model.parameters())
