"""EEG fault 4: a variable kept from an earlier loop, so every layer was given the value of one."""

from nfa.measures.parameter_groups import relative_changes
from nfa.registry.training.loop import Training, Watched
from tests.support.eeg_trainings import STEPS_AN_EPOCH, tiny_decoder


def test_each_group_has_the_value_of_its_own_parameters():
    workload = tiny_decoder(n_layers=3, optimizer="sgd")
    model = workload.model()
    groups = workload.groups(model).names
    options = {"batch_size": 6, "seed": 0, "order": workload.draw}
    training = Training(workload, model, workload.optimizers(model), **options, watched=Watched(groups, [1]))
    weights = []
    training.run(1, lambda _: None, lambda: weights.append({k: v.clone() for k, v in model.state_dict().items()}))
    assert len(weights) == STEPS_AN_EPOCH
    found = {group: training.flow[f"flow/{group}/update_ratio"] for group in groups}
    assert len(set(found.values())) == len(groups) == 8
    for group, names in groups.items():
        (alone,) = relative_changes({group: names}, weights[-2], weights[-1]).values()
        assert found[group] == alone
