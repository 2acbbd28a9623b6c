"""The workload of `train`: pixels, labels, batches, sites and optimizers, from a configuration and stored ids."""

import numpy as np
import pytest
import torch

from nfa.errors import Refusal
from nfa.registry.datasets.images import ImageData
from nfa.registry.families.mlp.config import TrainConfig
from nfa.registry.families.mlp.workload import MLPClassifier
from nfa.registry.families.protocol import StoredTraining
from nfa.registry.families.registry import family
from nfa.workload import Workload
from nfa.workloads import devices
from tests.support.toy_models import tiny_classifier


def test_it_is_a_workload():
    assert isinstance(tiny_classifier(), Workload)


def test_pixels_are_scaled_to_0_1_and_examples_are_those_of_the_ids():
    workload = tiny_classifier()
    batch = next(workload.batches("val", batch_size=100))
    assert batch.ids.tolist() == list(range(48, 60))
    expected = torch.tensor(workload.data.train_images[48:60] / 255, dtype=torch.float32)
    assert torch.equal(batch.inputs, expected)
    assert 0 <= float(batch.inputs.min()) < float(batch.inputs.max()) <= 1
    assert batch.targets.tolist() == workload.data.train_labels[48:60].tolist()


def test_batches_keep_the_stored_order_and_cover_every_id_once():
    workload = tiny_classifier()
    for split, sizes in (("train", [10, 10, 10, 10, 8]), ("probe", [10, 10, 10, 10, 8]), ("test", [9])):
        batches = list(workload.batches(split, batch_size=10))
        assert [len(batch) for batch in batches] == sizes
        assert torch.cat([batch.ids for batch in batches]).tolist() == list(workload.ids(split))


def test_batches_of_given_ids_are_of_these_in_this_order():
    workload = tiny_classifier()
    for ids in ([5, 3, 40], torch.tensor([5, 3, 40])):
        (batch,) = workload.batches("train", batch_size=10, ids=ids)
        assert batch.ids.tolist() == [5, 3, 40]
        assert batch.targets.tolist() == [5 % 3, 0, 40 % 3]
    assert list(workload.batches("train", batch_size=10, ids=[])) == []


def test_test_images_are_those_of_the_test_set():
    data = tiny_classifier().data
    other = ImageData(**{**vars(data), "test_images": 255 - data.train_images[:9]})
    workload = MLPClassifier(TrainConfig(width=5, depth=2), other, tiny_classifier().example_ids)
    batch = next(workload.batches("test", batch_size=9))
    assert torch.equal(batch.inputs, torch.tensor(other.test_images / 255, dtype=torch.float32))


def test_noisy_labels_are_trained_on_and_the_published_data_stay_as_they_are():
    clean = tiny_classifier()
    kept = clean.data.train_labels.copy()
    ids = {**clean.example_ids, "noisy": [4, 7], "noisy_labels": [0, 2]}
    workload = MLPClassifier(clean.config, clean.data, ids)
    targets = torch.cat([batch.targets for batch in workload.batches("train", batch_size=10)]).tolist()
    differing = [example for example in range(48) if targets[example] != kept[example]]
    assert differing == [4, 7]
    assert [targets[4], targets[7]] == [0, 2]
    assert np.array_equal(clean.data.train_labels, kept)
    test = next(workload.batches("test", batch_size=9)).targets.tolist()
    assert test == clean.data.test_labels.tolist()


def test_losses_and_metrics_are_one_for_each_example():
    for loss in ("mse", "cross-entropy"):
        workload = tiny_classifier(loss=loss)
        model, batch = workload.model(), next(workload.batches("train", batch_size=10))
        outputs = workload.outputs(model, batch)
        assert outputs.shape == (10, 3)
        assert workload.losses(outputs, batch).shape == (10,)
        accuracy = workload.metrics(outputs, batch)["accuracy"]
        pairs = zip(outputs, batch.targets, strict=True)
        assert accuracy.tolist() == [float(row.argmax()) == target for row, target in pairs]


def test_sites_are_the_layers_in_order_with_the_readout_last():
    workload = tiny_classifier(depth=3)
    model = workload.model()
    sites = workload.sites(model)
    assert list(sites) == ["layer_0", "layer_1", "layer_2", "layer_3"]
    assert all(site is layer for site, layer in zip(sites.values(), model.layers, strict=True))
    assert sites["layer_3"].out_features == workload.data.classes


def test_muon_gets_the_hidden_matrices_and_adam_the_readout():
    workload = tiny_classifier("muon", lr=0.02, companion_lr=0.003)
    model = workload.model()
    parts = workload.optimizers(model).parts
    held = {name: part.param_groups[0] for name, part in parts.items()}
    assert [id(weight) for weight in held["muon"]["params"]] == [id(layer.weight) for layer in model.layers[:-1]]
    assert [id(weight) for weight in held["companion"]["params"]] == [id(model.layers[-1].weight)]
    assert (held["muon"]["lr"], held["muon"]["momentum"], held["muon"]["weight_decay"]) == (0.02, 0.95, 0.0)
    assert held["companion"]["lr"] == 0.003


@pytest.mark.parametrize(("optimizer", "lr"), [("sgd", 0.1), ("adam", 0.001), ("muon", 0.01)])
def test_auto_is_the_optimizers_own_learning_rate_and_sgd_has_no_momentum(optimizer, lr):
    workload = tiny_classifier(optimizer)
    group = workload.optimizers(workload.model()).parts[optimizer].param_groups[0]
    assert group["lr"] == lr
    assert group.get("momentum", 0) == (0.95 if optimizer == "muon" else 0)
    assert group["weight_decay"] == 0


PLAIN = {"device": torch.device("cpu"), "data_dir": None, "tensors": lambda _: {}}


def stored(digest: str) -> dict[str, object]:
    config = {"dataset": "digits", "width": 5, "depth": 1, "device": "cpu"}
    return {"workload": "mlp", "train": config, "data": {"digest": digest}}


def test_a_stored_run_is_rebuilt_from_what_it_stored():
    from nfa.registry.datasets import image_files, images

    config = stored(images.load("digits", image_files.locate("digits")).digest())
    workload = family("mlp").training.rebuild(StoredTraining(config, {"train": [3, 1]}, **PLAIN))
    assert workload.config == TrainConfig(**config["train"])
    batch = next(workload.batches("train", batch_size=4))
    assert batch.ids.tolist() == [3, 1]
    assert float(batch.inputs.max()) == 1.0  # digits' pixels are 0…16


def test_other_data_than_the_runs_are_refused():
    with pytest.raises(Refusal, match=r"(?s)digits with digest \w{12}\b.*allowed: digest 0000"):
        family("mlp").training.rebuild(StoredTraining(stored("0" * 64), {}, **PLAIN))


@pytest.mark.parametrize("name", ["cuda:99", "gpu", ""])
def test_a_device_that_is_not_there_is_refused(name):
    with pytest.raises(Refusal, match=r"(?s)device='.*allowed: auto, cpu, cuda"):
        devices.choose_device(name)


def test_auto_and_cpu_are_devices():
    assert devices.choose_device("cpu") == torch.device("cpu")
    assert devices.choose_device("auto").type in ("cpu", "cuda")
