"""What `train` and `demo` refuse."""

import gzip
import os
import struct

from tests.support.refusals import Prepare, Scene, table

TABLE = """
train --optimizer sdg | optimizer='sdg' | all, sgd, adam, adamw, muon, or the name of | optimizer=sgd
train --dataset digit | dataset='digit' | digits, svhn | dataset=digits
train --widht 8 | parameter 'widht' | width, depth | did you mean --width?
train --zzzzzz 8 | parameter 'zzzzzz' | optimizer, lr | see --help
train lr=0.1 | word 'lr=0.1' | optimizer, lr | did you mean --lr?
train --width -3 | width=-3 | a whole number ≥ 1 | default, 1024
train --lr -1e-3 | lr=-0.001 | a number > 0, or auto | default, auto
train --lr=-1e-3 | lr=-0.001 | a number > 0, or auto | default, auto
train --lr 0 | lr=0 | a number > 0 | default, auto
train --epochs 0 | epochs=0 | a whole number ≥ 1 | default, 100
train --lr fast | lr='fast' | a number > 0, or auto | for example lr=0.1
train --epochs 2.5 | epochs='2.5' | a whole number ≥ 1 | for example epochs=100
train --lr nan | lr=nan | a number > 0 | default, auto
train --weight_decay inf | weight_decay=inf | a number ≥ 0 | default, 0.0
train --epochs nan | epochs='nan' | a whole number ≥ 1 | for example epochs=100
train --epochs auto | epochs='auto' | a whole number | for example epochs=100
train --epochs 111111111111111111111111111111 | epochs=1111 | a whole number ≥ 1 and < 10000000 | default, 100
train --width 999999999999999999 | width=9999 | a whole number ≥ 1 and < | default, 1024
train --width $many_digits | width=1111 | a whole number ≥ 1 and < | default, 1024
train --width $too_many_digits | width='1111 | a whole number ≥ 1 | for example width=1024
train --seed 9223372036854775808 | seed=9223372036854775808 | < 9223372036854775808 | default, 1717
train --label_noise 1 | label_noise=1.0 | ≥ 0 and < 1 | default, 0.0
train --lr 1 --lr 2 | --lr given twice | each parameter once | keep one --lr
train --lr | --lr without a value | --lr VALUE | add a value after --lr
train --epochs '' | epochs='' | a whole number ≥ 1 | for example epochs=100
train --optimizer= | optimizer='' | all, sgd, adam, adamw, muon, or the name of | optimizer=sgd
train --schedule '' | schedule '' | a-b/step | 0-20,40,60,80,100
train --schedule 0-20,x | schedule '0-20,x' (at 'x') | a-b/step | 0-20,40
train --schedule 20-0 | schedule '20-0' | a ≤ b | correct '20-0'
train --schedule 0-20/0 | schedule '0-20/0' | step of at least 1 | correct '0-20/0'
train --optimizer adam --momentum 0.9 | momentum=0.9 with optimizer=adam | momentum for sgd and muon
    | leave momentum=auto
train --dataset fashion-mnist --data_dir nowhere | nowhere lacks train-images-idx3-ubyte.gz
    | a folder with train-images-idx3-ubyte.gz | data_dir=FOLDER
train --dataset fashion-mnist --data_dir . | . lacks train-images-idx3-ubyte.gz
    | a folder with train-images-idx3-ubyte.gz | download train-images-idx3-ubyte.gz
train --dataset cifar10 --data_dir nowhere | nowhere lacks | a folder with cifar-10-binary.tar.gz
    | download cifar-10-binary.tar.gz from
train --ghm_bins 5 | ghm_bins=5 with weighting=none | ghm_… with weighting=ghm | weighting=ghm
train --ghm_momentum 0.75 | ghm_momentum=0.75 with weighting=none | ghm_… with weighting=ghm | weighting=ghm
train --ghm_alpha 0.0 | ghm_alpha=0.0 with weighting=none | ghm_… with weighting=ghm | weighting=ghm
train --weighting ghm --ghm_momentum 1.0 | ghm_momentum=1.0 | a number ≥ 0 and < 1
    | leave ghm_momentum out to use its default
train --weighting ghm --ghm_momentum -0.1 | ghm_momentum=-0.1 | a number ≥ 0 and < 1
    | leave ghm_momentum out to use its default
train --weighting ghm --ghm_bins 0 | ghm_bins=0 | a whole number ≥ 1 and < 1001
    | leave ghm_bins out to use its default, 10
train --weighting ghm --ghm_alpha -1.0 | ghm_alpha=-1.0 | a number ≥ 0 and < 10
    | leave ghm_alpha out to use its default, 1.0
train --weighting focal | weighting='focal' | none, ghm | weighting=none
train --device gpu | device='gpu' | auto, cpu, cuda, cuda:N, or another device that has float64 | device=auto
train --device '' | device='' | auto, cpu, cuda, cuda:N, or another device that has float64 | device=auto
train --max_samples 1150 | max_samples=1150 | to 1149 training examples | max_samples=0
train --seeds 1,x | seeds='1,x' (at 'x') | ranges a-b | seeds=1-3
train --seeds 3-1 | seeds='3-1' | ranges a-b | seeds=1-3
train --seeds 1-3,2 | seeds='1-3,2' (at '2') | each once | seeds=1-3
train --seeds 1-3 --seed 7 | seeds=1-3 with seed=7 | one of them | leave seed out
train --n_workers 2 | n_workers=2 for a single training | n_workers=1 | seeds=1-3
train --n_workers 0 --seeds 1-3 | n_workers=0 | a whole number ≥ 1 | leave n_workers out
demo --epochs 0 | epochs=0 | a whole number ≥ 1 and < 1000 | leave epochs out to use its default, 12
demo --width x | width='x' | a whole number ≥ 1 and < 4097 | for example width=64
demo --lr 1 | parameter 'lr' | epochs, width, depth, seed, output_dir | see --help
[store]
train --device meta | device='meta' | auto, cpu, cuda, cuda:N, or another device that has float64 | device=auto
train --device cuda:9 | device='cuda:9' | auto, cpu, cuda, cuda:N, or another device that has float64 | device=auto
train --width 1000000 --depth 2 | width=1000000 depth=2 | a network that fits into this machine's
    | smaller width or depth
train --resume abc123 | run id 'abc123' | a run in | copy the id from the MLflow UI
train --resume latest | run id 'latest' | an experiment with a training run | mlflow run . -e train
train --resume no/such | run id 'no/such' | letters and digits | copy the id from the MLflow UI
[training]
train --resume $run | resume=$run (finished) | a killed or failed run | start a new run
[own_training: killed]
train --resume $run --n_workers 2 | n_workers=2 for a single training | n_workers=1 | leave n_workers out
train --resume $run --seeds 1-3 | resume with seeds=1-3 (the run has ) | the run's own parameters | leave these out
[nothing: damaged images]
train --dataset fashion-mnist --data_dir . | train-images-idx3-ubyte.gz with MD5 | MD5 | delete it
[store: no network]
train --dataset svhn | train_32x32.mat | test_32x32.mat | $address…$cache/svhn…data_dir=
tune --fixed dataset=svhn,data_dir=$folder | train_32x32.mat | a folder with train_32x32.mat, test_32x32.mat
    | download train_32x32.mat, test_32x32.mat
[store: no server]
train | http://127.0.0.1:9 | a reachable and writable store | fix its permissions, disk space or address
train --resume abc | http://127.0.0.1:9 | a reachable and writable store | fix its permissions, disk space or address
tune | tracking store http://127.0.0.1:9 | a reachable and writable store | fix its permissions, disk space or address
[store: no such kind of store]
train | carrier-pigeon://loft
[own_training: read only]
train --epochs 1 | mode=ro | a reachable and writable store | MLFLOW_TRACKING_URI
train --resume $run | mode=ro | a reachable and writable store | MLFLOW_TRACKING_URI
[store: a run of mlflow run]
train --resume $wrapper | resume=$wrapper | a training run | give the id of the training run itself
[store: a file in the way]
demo --output_dir file | output_dir=file | a writable folder | choose another folder
"""


def damaged_images(scene: Scene) -> None:
    """Files of the names that are looked for, with something else in them."""
    from nfa.registry.datasets.image_files import SOURCES

    for name, *_ in SOURCES["fashion-mnist"].files.values():
        header = struct.pack(">HBBI", 0, 8, 1, 3)
        (scene.folder / name).write_bytes(gzip.compress(header + bytes(3)))


def no_network(scene: Scene) -> None:
    """And nothing said of what is being fetched."""
    import pooch

    from nfa.registry.datasets.image_files import SOURCES

    for kind in ("http", "https", "all"):
        for name in (f"{kind}_proxy", f"{kind}_proxy".upper()):
            scene.monkeypatch.setenv(name, "http://127.0.0.1:9")
    scene.monkeypatch.setenv("no_proxy", "")
    scene.monkeypatch.setattr(pooch.get_logger(), "disabled", True)
    scene.names.update(address=SOURCES["svhn"].address, cache=os.environ["NFA_CACHE"])


def no_server(scene: Scene) -> None:
    use(scene, "http://127.0.0.1:9")


def no_such_kind_of_store(scene: Scene) -> None:
    use(scene, "carrier-pigeon://loft | a reachable and writable store | fix its permissions, disk space or address")


def read_only(scene: Scene) -> None:
    unfinished(scene)
    use(scene, f"sqlite:///file:{scene.stored().database}?mode=ro&uri=true")


def use(scene: Scene, address: str) -> None:
    import mlflow

    mlflow.set_tracking_uri(address)
    scene.monkeypatch.setenv("MLFLOW_TRACKING_URI", address)


def unfinished(scene: Scene) -> None:
    scene.stored().change("UPDATE tags SET value = 'killed' WHERE key = 'nfa.state'")
    scene.stored().change("UPDATE runs SET status = 'KILLED'")


def wrapper(scene: Scene) -> None:
    """A run as `mlflow run` makes it, which is no training."""
    from nfa.registry.tracking.store import client

    tags = {"nfa.state": "killed", "nfa.resumes": "abc"}
    scene.names["wrapper"] = client().create_run("0", tags=tags).info.run_id


def file_in_the_way(scene: Scene) -> None:
    (scene.folder / "file").write_text("")
    scene.monkeypatch.setattr("nfa.registry.families.mlp.demo.train_each", None)


PREPARED: dict[str, Prepare] = {
    "damaged images": damaged_images,
    "no network": no_network,
    "no server": no_server,
    "no such kind of store": no_such_kind_of_store,
    "read only": read_only,
    "killed": unfinished,
    "a run of mlflow run": wrapper,
    "a file in the way": file_in_the_way,
}
ROWS = table(TABLE, PREPARED)
