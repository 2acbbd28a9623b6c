"""The workload of `train_eeg`: windows, correlations, groups and learning rates."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from nfa.registry.families.eeg.config import TrainEEGConfig
from nfa.registry.families.eeg.session import stored_config
from nfa.registry.families.eeg.simulated import Simulation, simulated_folder
from nfa.registry.families.eeg.training import DecoderTraining
from nfa.registry.families.eeg.workload import read
from nfa.registry.families.protocol import StoredTraining
from nfa.workload import Batch
from tests.support.eeg_trainings import RECORDINGS, tiny_decoder


def ids_of(workload, epoch: int) -> list[int]:
    return workload.draw(epoch).tolist()


# ---- windows


def test_an_epoch_s_windows_follow_from_seed_and_epoch_alone():
    workload = tiny_decoder(windows_per_recording=5)
    first, second = ids_of(workload, 0), ids_of(workload, 1)
    torch.rand(3)
    assert ids_of(tiny_decoder(windows_per_recording=5), 0) == first
    assert ids_of(workload, 1) == second != first
    assert ids_of(tiny_decoder(windows_per_recording=5, seed=2), 0) != first


def test_an_epoch_has_as_many_windows_of_each_recording_in_random_order():
    workload = tiny_decoder(windows_per_recording=5)
    parts = workload.data.part_of(workload.draw(3))
    assert all(part.split == "train" for part in parts)
    names = [part.recording for part in parts]
    assert len(names) == 20
    assert all(names.count(name) == 5 for name in set(names))
    assert names != sorted(names)
    starts = {start for epoch in range(40) for start in ids_of(workload, epoch)}
    assert len(starts) > 500, "windows start anywhere"


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_batches_of_any_ids_are_the_windows_of_the_data(batch_size):
    workload = tiny_decoder()
    ids = [*ids_of(workload, 0), *workload.ids("val")[::2], *workload.ids("test")[:3]]
    batches = list(workload.batches("train", batch_size=batch_size, ids=ids))
    assert [len(batch) for batch in batches] == [len(part) for part in torch.tensor(ids).split(batch_size)]
    assert torch.cat([batch.ids for batch in batches]).tolist() == ids
    whole = workload.data.windows(ids, workload.window)
    assert torch.equal(torch.cat([batch.inputs[0] for batch in batches]), whole.eeg)
    assert torch.equal(torch.cat([batch.inputs[1] for batch in batches]), whole.subjects)
    assert torch.equal(torch.cat([batch.targets for batch in batches]), whole.envelope)


@pytest.mark.parametrize("split", ["train", "val", "test", "probe"])
def test_without_ids_batches_are_those_of_the_split(split):
    workload = tiny_decoder()
    given = [batch.ids for batch in workload.batches(split, batch_size=7)]
    assert torch.cat(given).tolist() == list(workload.ids(split))
    assert list(workload.batches(split, batch_size=7, ids=[])) == []


def test_a_fault_of_reading_is_that_of_the_batch():
    with pytest.raises(ValueError, match="ids must be within"):
        list(tiny_decoder().batches("train", batch_size=2, ids=[0, 128, 10**9]))


def test_batches_left_early_leave_no_reader_behind():
    batches = tiny_decoder().batches("train", batch_size=2)
    first = next(batches)
    batches.close()
    assert len(first) == 2


def test_a_workload_rebuilt_from_its_run_s_config_is_the_same(tmp_path, monkeypatch):
    monkeypatch.setenv("NFA_CACHE", str(tmp_path))
    workload = tiny_decoder(use_se=False, pearson_weight=0.5)
    stored = stored_config(workload.config, workload.data)
    run = StoredTraining(stored, workload.example_ids, torch.device("cpu"), None, lambda _: {})
    again = DecoderTraining().rebuild(run)
    assert again.data.folder == simulated_folder(Simulation(**RECORDINGS))
    assert again.config == dataclasses.replace(workload.config, resume="")
    assert torch.equal(again.draw(5), workload.draw(5))
    models = [each.model() for each in (workload, again)]
    for one, other in zip(*(model.state_dict().values() for model in models), strict=True):
        assert torch.equal(one, other)
    batches = [next(each.batches("val", batch_size=3)) for each in (workload, again)]
    losses = [workload.losses(workload.outputs(m.eval(), b), b) for m, b in zip(models, batches, strict=True)]
    assert torch.equal(*losses)


# ---- outputs, losses, correlations


def test_losses_are_the_sum_of_the_terms_with_the_asked_weight():
    for weight in (0.0, 1.0, 2.5):
        workload = tiny_decoder(pearson_weight=weight)
        batch = next(workload.batches("val", batch_size=6))
        outputs = workload.outputs(workload.model().eval(), batch)
        assert outputs.shape == batch.targets.shape == (6, 128, 1)
        terms = workload.metrics(outputs, batch)
        expected = terms["loss_mse"] + weight * terms["loss_pearson"]
        torch.testing.assert_close(workload.losses(outputs, batch), expected)
        mean = workload.objective()(outputs, batch)
        torch.testing.assert_close(mean, expected.mean())


def test_correlations_are_those_of_numpy_and_none_where_a_signal_is_constant():
    workload, random = tiny_decoder(), torch.Generator().manual_seed(0)
    outputs, targets = torch.randn(2, 4, 50, 1, generator=random)
    outputs[1], targets[2] = 0.25, -1.0
    batch = Batch((), targets, torch.arange(4))
    found = workload.correlations(outputs, batch)
    assert found.dtype == torch.float64
    assert found.isnan().tolist() == [False, True, True, False]
    for row in (0, 3):
        expected = np.corrcoef(outputs[row, :, 0].double(), targets[row, :, 0].double())[0, 1]
        assert float(found[row]) == pytest.approx(expected, abs=1e-12)
    assert workload.losses(outputs, batch).isfinite().all()
    assert workload.correlations(targets, Batch((), targets, batch.ids))[0] == pytest.approx(1, abs=1e-12)


# ---- groups and learning rates


def test_groups_are_modules_in_the_order_of_the_network():
    workload = tiny_decoder(n_layers=3)
    groups = workload.groups(workload.model())
    assert list(groups.names) == ["cnn", "se", "subject", "block_0", "block_1", "block_2", "gate", "head"]
    assert (groups.front, groups.back, groups.output) == ("block_0", "block_2", "head")
    prefixes = {"block_0": "layer_stack.0", "block_1": "layer_stack.1", "block_2": "layer_stack.2"}
    for group, names in groups.names.items():
        assert names
        assert all(name.startswith(f"{prefixes.get(group, group)}.") for name in names)


def test_modules_that_are_off_have_no_group():
    off = {"use_se": False, "use_subjects": False, "preset": "v1"}
    workload = tiny_decoder(**off)
    assert list(workload.groups(workload.model()).names) == ["cnn", "block_0", "head"]


@pytest.mark.parametrize(
    ("options", "factor"),
    [
        ({"preset": "v1"}, 1),
        ({"preset": "full"}, 2),
        ({"preset": "full", "gradient_scale_position": "before_head"}, 2),
        ({"preset": "full", "gradient_scale_position": "before_stack"}, 1),
        ({"preset": "aggressive", "output_grad_scale": 0.5}, 6),
    ],
)
def test_the_built_in_factor_is_that_of_the_first_block_against_the_head(options, factor):
    """As the gradients themselves have it."""

    def ratio(**options) -> tuple[float, float]:
        workload = tiny_decoder(dropout=0.0, **options)
        model, batch = workload.model(), next(workload.batches("train", batch_size=5))
        groups = workload.groups(model)
        workload.losses(workload.outputs(model, batch), batch).mean().backward()
        named = dict(model.named_parameters())
        norms = [
            math.sqrt(sum(float(named[name].grad.square().sum()) for name in groups.names[group]))
            for group in (groups.front, groups.output)
        ]
        return norms[0] / norms[1], groups.built_in

    preset = options["preset"]
    plain, _ = ratio(**({"preset": "v1"} if preset == "v1" else {"preset": "custom", **switches(gradient_scale=1.0)}))
    scaled, said = ratio(**options)
    assert said == factor
    assert scaled / plain == pytest.approx(factor, rel=1e-5)


def switches(**more) -> dict[str, object]:
    return {"use_residual": True, "use_gated_residual": True, "use_mlp_head": True, **more}


FRONT = ["cnn", "se", "subject"]


@pytest.mark.parametrize(
    ("n_layers", "front", "back"),
    [
        (1, FRONT, ["block_0", "gate"]),
        (2, [*FRONT, "block_0"], ["block_1", "gate"]),
        (3, [*FRONT, "block_0"], ["block_1", "block_2", "gate"]),
        (4, [*FRONT, "block_0", "block_1"], ["block_2", "block_3", "gate"]),
    ],
)
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_layer_wise_rates_are_those_of_front_back_and_output(optimizer, n_layers, front, back):
    workload = tiny_decoder(use_llrd=True, n_layers=n_layers, optimizer=optimizer, lr=0.01)
    found = rates(workload)
    assert found == pytest.approx({**dict.fromkeys(front, 0.03), **dict.fromkeys(back, 0.02), "head": 0.005})


def rates(workload) -> dict[str, float]:
    """Learning rate of each group, if one and the same for all its parameters; every parameter has one."""
    model = workload.model()
    (part,) = workload.optimizers(model).parts.values()
    by_weight = {id(weight): group["lr"] for group in part.param_groups for weight in group["params"]}
    assert sum(len(group["params"]) for group in part.param_groups) == len(by_weight) == len(list(model.parameters()))
    named, found = dict(model.named_parameters()), {}
    for group, names in workload.groups(model).names.items():
        (found[group],) = {by_weight[id(named[name])] for name in names}
    return found


def test_without_layer_wise_rates_all_are_the_same_and_nothing_else_differs():
    plain, layered = tiny_decoder(lr=0.01), tiny_decoder(lr=0.01, use_llrd=True)
    assert set(rates(plain).values()) == {0.01}
    for one, other in zip(plain.model().parameters(), layered.model().parameters(), strict=True):
        assert torch.equal(one, other)
    assert plain.options == layered.options
    assert torch.equal(plain.draw(0), layered.draw(0))
    parts = [each.optimizers(each.model()).parts["adam"].defaults for each in (plain, layered)]
    assert parts[0] == parts[1]
    assert (parts[0]["betas"], parts[0]["eps"], parts[0]["weight_decay"]) == ((0.9, 0.98), 1e-9, 0)


def test_sgd_has_the_asked_momentum_and_rates_decay_as_asked():
    workload = tiny_decoder(optimizer="sgd", momentum=0.9, lr=0.5, lr_step=2, lr_decay=0.1)
    optimizers = workload.optimizers(workload.model())
    assert {group["momentum"] for group in optimizers.parts["sgd"].param_groups} == {0.9}
    for _ in range(5 * math.ceil(len(workload.draw(0)) / workload.config.batch_size)):
        optimizers.step()
    assert {round(group["lr"], 9) for group in optimizers.parts["sgd"].param_groups} == {0.005}


def test_presets_set_the_switches_and_nothing_else():
    plain = TrainEEGConfig(preset="v1").resolved()
    changing = {"preset", "use_residual", "use_gated_residual", "use_mlp_head", "gradient_scale"}
    for preset in ("full", "conservative", "aggressive"):
        config = TrainEEGConfig(preset=preset).resolved()
        differing = {f.name for f in dataclasses.fields(config) if getattr(config, f.name) != getattr(plain, f.name)}
        assert differing <= changing
        assert (config.use_llrd, config.output_grad_scale) == (False, 1.0)
    assert TrainEEGConfig(preset="full").resolved().gradient_scale == 2


def test_the_seed_of_the_data_decides_simulated_recordings_and_the_seed_of_the_training_does_not():
    small = {"subjects": 1, "stimuli": 1, "seconds": 30, "channels": 2, "window_seconds": 2.0}
    digests = {
        seeds: read(TrainEEGConfig(data_seed=seeds[0], seed=seeds[1], **small)).digest()
        for seeds in [(1, 1), (1, 2), (2, 1)]
    }
    assert digests[1, 1] == digests[1, 2] != digests[2, 1]


def test_each_factor_of_layer_wise_rates_moves_its_own_groups_and_no_other():
    plain = {"use_llrd": True, "llrd_front": 3.0, "llrd_back": 2.0, "llrd_output": 0.5, "n_layers": 2, "lr": 0.01}
    for changed, groups in (
        ("llrd_front", {"cnn", "se", "subject", "block_0"}),
        ("llrd_back", {"block_1", "gate"}),
        ("llrd_output", {"head"}),
    ):
        before, after = (
            [group["lr"] for group in workload.optimizers(workload.model()).parts["adam"].param_groups]
            for workload in (tiny_decoder(**plain), tiny_decoder(**{**plain, changed: 7.0}))
        )
        names = list(tiny_decoder(**plain).groups(tiny_decoder(**plain).model()).names)
        assert {name for name, a, b in zip(names, before, after, strict=True) if a != b} == groups
