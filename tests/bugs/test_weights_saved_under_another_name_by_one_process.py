"""EEG fault 7: a checkpoint was taken from `model.module`, which a model in one process does not have."""

from tests.support.eeg_trainings import CHECKPOINTS, tiny_decoder
from tests.support.stores import Finished


def test_checkpoints_have_the_model_s_own_names_and_fit_it(decoded: Finished) -> None:
    model = tiny_decoder().model()
    checkpoints = decoded.store.checkpoints(decoded.run_id)
    assert {f"epoch_{epoch:04d}.safetensors" for epoch in CHECKPOINTS} <= set(checkpoints)
    for tensors in checkpoints.values():
        model.load_state_dict(tensors)
        assert set(tensors) == set(model.state_dict())
