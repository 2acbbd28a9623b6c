"""What the tests of `gradient_flow` and `ablate_eeg` share: tiny trainings, analyses in this process, and values."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest

from nfa import reference
from nfa.registry import stored_runs, tracking
from nfa.registry.analyses.config import GradientFlowConfig
from nfa.registry.analyses.gradient_flow import gradient_flow
from nfa.registry.families.eeg.config import TrainEEGConfig
from nfa.registry.families.mlp.config import TrainConfig
from nfa.registry.stopwatch import Stopwatch
from nfa.registry.tracking.event_files import EventFiles
from nfa.registry.training.start import train
from tests.support.analyses import Series
from tests.support.gradient_direction_runs import batch_of
from tests.support.stores import Store

RECORDINGS = {"subjects": 2, "stimuli": 2, "seconds": 40, "channels": 4, "window_seconds": 2.0}
SIZES = {"d_model": 8, "d_inner": 8, "n_layers": 1, "n_head": 2, "conv_kernel_size": 3}
EEG: dict[str, Any] = {**RECORDINGS, **SIZES, "epochs": 3, "eval_every": 3, "histograms_every": 0, "device": "cpu"}
MLP = {"width": 8, "depth": 2, "epochs": 4, "schedule": "0-2,4", "batch_size": 64, "max_samples": 300}
RATIO, UPDATE = "flow/front_output_ratio", "flow/front_output_update_ratio"
CUSTOM = {"preset": "custom"}
SGD = {"optimizer": "sgd", "lr": 0.01, "dropout": 0.0}
EEG_RUNS: dict[str, dict[str, Any]] = {
    "v1": {"preset": "v1", "schedule": "0-3"},
    "scale": {**CUSTOM, "gradient_scale": 2.0},
    "output": {**CUSTOM, "output_grad_scale": 0.5},
    "both": {**CUSTOM, "gradient_scale": 2.0, "output_grad_scale": 0.5},
    "v1, sgd": {"preset": "v1", **SGD},
    "scale, sgd": {**CUSTOM, "gradient_scale": 2.0, **SGD},
}
MLP_RUNS: dict[str, dict[str, Any]] = {
    "mlp": {"optimizer": "sgd"},
    "shallow": {"optimizer": "sgd", "depth": 1},
    "ghm": {"optimizer": "adam", "lr": 0.01, "weighting": "ghm", "loss": "cross-entropy", "ghm_bins": 5},
}


@contextmanager
def undrawn() -> Iterator[None]:
    """Drawing takes longer than a tiny training."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tracking, "save_picture", lambda *_, **__: None)
        patch.setattr(EventFiles, "figure", lambda *_: None)
        yield


def train_all() -> None:
    """Every run of `MLP_RUNS` and `EEG_RUNS`, in the store that this process uses."""
    with undrawn():
        for name, changes in MLP_RUNS.items():
            train(TrainConfig(**{**MLP, **changes, "run_name": name}), Stopwatch())
        for name, changes in EEG_RUNS.items():
            train(TrainEEGConfig(**{**EEG, **changes, "run_name": name}), Stopwatch())


def flow_of(store: Store, *names: str, pictures: bool = False, **options: Any) -> str:
    """Id of the run that an analysis in this process makes, of runs by name: of several, the one that compares them."""
    known, ids = store.runs(), store.named()
    config = GradientFlowConfig(run_id=",".join(ids[name] for name in names), device="cpu", **options)
    if pictures:
        gradient_flow(config)
    else:
        with undrawn():
            gradient_flow(config)
    return next(run_id for run_id in store.runs() if run_id not in known)


def at(values: Series, epoch: int) -> dict[str, float]:
    """Values of an epoch by key."""
    return {key: of_key[epoch] for key, of_key in values.items() if epoch in of_key}


def expected(source: str, epoch: int, n: int, losses: Any = None) -> dict[str, float]:
    """Gradient and weight change of every group by the reference, of the first `n` of the probe."""
    model, workload = stored_runs.load_checkpoint(source, epoch, device="cpu")
    start, _ = stored_runs.load_checkpoint(source, 0, device="cpu")
    gradients = reference.mean_gradients(model, workload, batch_of(source, n), losses)
    before, after = dict(start.named_parameters()), dict(model.named_parameters())
    found = {}
    for group, names in workload.groups(model).names.items():
        found[f"flow/{group}/grad_rms"] = reference.root_mean_square([gradients[name] for name in names])
        if epoch:
            change = reference.relative_change([before[n] for n in names], [after[n] for n in names])
            found[f"flow/{group}/weight_change"] = change
    return found


def of_kind(values: Mapping[str, float], *kinds: str) -> dict[str, float]:
    """Those whose key ends so."""
    return {key: value for key, value in values.items() if key.endswith(kinds)}
