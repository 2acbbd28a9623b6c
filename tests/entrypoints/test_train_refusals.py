"""What `train` refuses once it looks at data, devices, runs and the store: exit 2, one message, nothing else done."""

import dataclasses
import gzip
import resource
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from nfa.registry.datasets.image_files import SOURCES
from nfa.registry.families.mlp.config import TrainConfig
from nfa.registry.tracking.store import client
from tests.support.processes import Ended, process, run, words
from tests.support.stores import Finished, Store
from tests.support.tiny_runs import TINY, tiny


@pytest.fixture
def own(finished: Finished, tmp_path: Path) -> Finished:
    return Finished(finished.store.copy(tmp_path / "store"), finished.run_id)


def assert_refused(ended: Ended, *parts: str) -> None:
    assert ended.code == 2, ended.output
    assert "Traceback" not in ended.output
    message = ended.output[ended.output.index("error: cannot use ") :]
    for part in ("allowed: ", "do: ", *parts):
        assert part in message


@pytest.mark.parametrize("device", ["gpu", "cuda:9", "", "meta"])
def test_unknown_device_is_refused(device: str, fresh: Store) -> None:
    assert_refused(run(fresh, tiny(device=device)), f"device={device!r}", "device=auto")
    assert fresh.runs() == []


def test_more_examples_than_there_are_are_refused(fresh: Store) -> None:
    assert_refused(run(fresh, tiny(max_samples=1150)), "max_samples=1150", "to 1149 training examples")
    assert fresh.runs() == []


def test_network_that_no_memory_holds_is_refused(fresh: Store) -> None:
    assert_refused(run(fresh, tiny(width=1_000_000)), "width=1000000 depth=2", "smaller width or depth")
    assert fresh.runs() == []


def idx(*shape: int) -> bytes:
    header = struct.pack(f">HBB{len(shape)}I", 0, 8, len(shape), *shape)
    return gzip.compress(header + bytes(shape[0]))


def test_damaged_dataset_file_is_refused_by_its_checksum(tmp_path: Path) -> None:
    for name, *_ in SOURCES["fashion-mnist"].files.values():
        (tmp_path / name).write_bytes(idx(3))
    ended = process(words(dataset="fashion-mnist", data_dir=tmp_path), tmp_path)
    assert_refused(Ended(ended.returncode, ended.stderr), "train-images-idx3-ubyte.gz with MD5", "delete it")


def test_svhn_without_network_names_the_files_their_address_and_the_folder(tmp_path: Path) -> None:
    closed = "http://127.0.0.1:9"
    proxies = {name: closed for kind in ("http", "https", "all") for name in (f"{kind}_proxy", f"{kind}_proxy".upper())}
    cache = tmp_path / "cache"
    ended = process(["--dataset", "svhn"], tmp_path, NFA_CACHE=str(cache), no_proxy="", **proxies)
    parts = ("train_32x32.mat", "test_32x32.mat", SOURCES["svhn"].address, str(cache / "svhn"), "data_dir=")
    assert_refused(Ended(ended.returncode, ended.stderr), *parts)


def test_unknown_run_id_is_refused(fresh: Store) -> None:
    assert_refused(run(fresh, words(resume="abc123")), "run id 'abc123'", "copy the id from the MLflow UI")
    assert_refused(run(fresh, words(resume="latest")), "run id 'latest'", "mlflow run . -e train")
    assert_refused(run(fresh, words(resume="no/such")), "run id 'no/such'", "letters and digits")
    assert fresh.runs() == []


def test_finished_run_is_not_resumed(own: Finished) -> None:
    before = own.store.metrics(own.run_id)
    assert_refused(run(own.store, words(resume=own.run_id)), f"resume={own.run_id} (finished)", "start a new run")
    assert own.store.metrics(own.run_id) == before
    assert own.store.tags(own.run_id)["nfa.state"] == "finished"


def unfinished(own: Finished) -> Finished:
    own.store.change("UPDATE tags SET value = 'killed' WHERE key = 'nfa.state'")
    own.store.change("UPDATE runs SET status = 'KILLED'")
    return own


OTHER = {
    "optimizer": "muon",
    "lr": 0.5,
    "epochs": 5,
    "width": 16,
    "depth": 3,
    "activation": "tanh",
    "init": "small",
    "loss": "cross-entropy",
    "weighting": "ghm",
    "ghm_bins": 5,
    "ghm_momentum": 0.75,
    "ghm_alpha": 0.5,
    "label_noise": 0.1,
    "batch_size": 32,
    "weight_decay": 0.1,
    "momentum": 0.5,
    "companion_lr": 0.5,
    "seed": 1,
    "schedule": "0-3",
    "max_samples": 100,
    "precision": "bfloat16",
    "dataset": "svhn",
}


def test_every_parameter_that_decides_the_weights_or_series_is_tried() -> None:
    free = {item.name for item in dataclasses.fields(TrainConfig) if item.metadata["free_on_resume"]}
    assert set(OTHER) | free == {item.name for item in dataclasses.fields(TrainConfig)}
    assert free == {"data_dir", "device", "resume", "run_name"}


def test_resume_with_changed_parameters_names_each_and_changes_nothing(own: Finished) -> None:
    unfinished(own)
    before = own.store.tags(own.run_id)
    ended = run(own.store, words(resume=own.run_id, **OTHER))
    resolved = TrainConfig(**TINY).resolved()  # type: ignore[arg-type]
    changes = [f"{name}={value} (the run has {getattr(resolved, name)})" for name, value in OTHER.items()]
    assert_refused(ended, *changes, "the run's own parameters", "start a new run without resume")
    assert own.store.tags(own.run_id) == before


def test_resume_with_the_run_s_own_parameters_typed_again_goes_on(own: Finished) -> None:
    unfinished(own)
    ended = run(own.store, tiny(resume=own.run_id[:9], lr=0.1, device="cpu", run_name="again"))
    assert ended.code == 0, ended.output
    assert own.store.tags(own.run_id)["nfa.state"] == "finished"
    assert own.store.runs() == [own.run_id]


def test_resume_of_a_run_that_train_did_not_make_is_refused(store: Store) -> None:
    wrapper = client().create_run("0", tags={"nfa.state": "killed", "nfa.resumes": "abc"}).info.run_id
    assert_refused(run(store, words(resume=wrapper)), f"resume={wrapper}", "a training run")


def test_read_only_store_is_refused(own: Finished) -> None:
    uri = f"sqlite:///file:{own.store.database}?mode=ro&uri=true"
    for argv in (tiny(), words(resume=own.run_id)):
        unfinished(own)
        assert_refused(run(own.store, argv, MLFLOW_TRACKING_URI=uri), "mode=ro", "MLFLOW_TRACKING_URI")
    assert own.store.runs() == [own.run_id]


@pytest.mark.parametrize("argv", [tiny(), words(resume="abc")], ids=["new", "resume"])
def test_server_that_is_not_there_is_refused(argv: Sequence[str], fresh: Store) -> None:
    ended = run(fresh, argv, MLFLOW_TRACKING_URI="http://127.0.0.1:9")
    assert_refused(ended, "http://127.0.0.1:9", "a reachable and writable store")


def test_store_of_an_unknown_kind_is_refused(fresh: Store) -> None:
    assert_refused(run(fresh, tiny(), MLFLOW_TRACKING_URI="carrier-pigeon://loft"), "carrier-pigeon://loft")


@dataclass(frozen=True)
class FileLimit:
    """No file of this process grows beyond this: what a full disk looks like."""

    size: int

    def __call__(self) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (self.size, self.size))


def test_disk_too_full_for_a_new_store_is_refused(tmp_path: Path) -> None:
    store = Store(tmp_path)
    ended = run(store, tiny(), before=FileLimit(50_000))
    assert_refused(ended, str(store.database), "disk space")


def test_disk_too_full_for_the_store_s_rows_is_refused(own: Finished) -> None:
    ended = run(own.store, tiny(), before=FileLimit(200_000))
    assert_refused(ended, "tracking store", "disk space")
    assert own.store.runs() == [own.run_id]


def test_disk_too_full_for_the_checkpoints_is_refused_before_any_training(fresh: Store) -> None:
    roomy = fresh.database.stat().st_size + 500_000
    ended = run(fresh, tiny(width=1024), before=FileLimit(roomy))
    assert_refused(ended, "file size limit", "smaller network")
    for run_id in fresh.runs():
        assert fresh.tags(run_id)["nfa.state"] == "failed"
        assert fresh.metrics(run_id) == []
        assert not fresh.artifact(run_id).exists()
