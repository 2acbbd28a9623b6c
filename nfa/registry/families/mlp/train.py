"""Train a classifier as a tracked run, or one run for each optimizer under a parent."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import torch

from nfa.console import stage
from nfa.errors import NfaError
from nfa.options import Auto
from nfa.registry import tracking
from nfa.registry.datasets import catalog, images
from nfa.registry.datasets.images import ImageData
from nfa.registry.families.mlp import report, sizes
from nfa.registry.families.mlp.config import OPTIMIZERS, TrainConfig
from nfa.registry.families.mlp.session import train_one
from nfa.registry.families.rebuild import check_same
from nfa.registry.signals import Interrupted
from nfa.registry.stopwatch import Stopwatch
from nfa.registry.tracking import TrackedRun
from nfa.registry.training.settings import stored_config, taken_up
from nfa.registry.training.time_spent import timed
from nfa.workloads.devices import choose_device


def train(config: TrainConfig, files: Mapping[str, Path] | None, clock: Stopwatch) -> None:
    """Start a training, or continue the run `config.resume`; `files` are the dataset's, looked up where None."""
    run = None
    if config.resume:
        run, config = taken_up(config)
        files = None
    device = choose_device(config.device)
    files = catalog.locate(config.dataset, config.data_dir) if files is None else files
    with clock.section("data"):
        data = images.load(config.dataset, files)
    if run:
        check_same(data.name, data.digest(), tracking.config(run.run_id)["data"]["digest"])
    stage(
        "data",
        f"{data.name}: {len(data.train_labels)} + {len(data.test_labels)} images of {data.features} pixels, "
        f"{data.classes} classes",
    )
    check_sizes(config, data)
    run = run or tracking.open_run("train", "mlp", name=config.run_name)
    with run:
        if config.optimizer == "all":
            with timed(run, clock, family=True):
                train_each(run, config, data, device, clock)
        else:
            train_one(run, config, data, device, clock)
    stage("done", f"{run.link}")


def check_sizes(config: TrainConfig, data: ImageData) -> None:
    """`Refusal` for more examples than there are, and for a network that memory cannot hold."""
    sizes.check_sizes(config, len(data.train_labels), data.features, data.classes)


def train_each(
    parent: TrackedRun, config: TrainConfig, data: ImageData, device: torch.device, clock: Stopwatch
) -> None:
    """Children by optimizer, each trained, continued or left as finished; one that fails does not stop the others."""
    tracking.put_json(parent.info, "config.json", stored_config(config, data))
    parent.log_params({name: value for name, value in dataclasses.asdict(config).items() if name != "resume"})
    existing = {
        run.data.tags.get("nfa.variant"): run
        for run in tracking.children(parent.run_id, parent.info.info.experiment_id)
    }
    failures = []
    for optimizer in OPTIMIZERS:
        found = existing.get(optimizer)
        if found and found.data.tags.get("nfa.state") == "finished":
            stage("run", f"{optimizer} is finished already")
            continue
        child = (
            tracking.take_up(found.info.run_id, parent=parent)
            if found
            else tracking.open_run("train", "mlp", name=optimizer, parent=parent, tags={"nfa.variant": optimizer})
        )
        own = dataclasses.replace(
            config, optimizer=optimizer, run_name=optimizer, momentum=_momentum(config, optimizer)
        )
        try:
            with child, clock.part() as spent:
                train_one(child, own, data, device, spent)
        except NfaError as error:
            failures.append(f"{optimizer}: {error}")
        except Interrupted:
            stage("stopped", f"continue all that is unfinished with resume={parent.run_id}")
            raise
        finally:
            if tracking.epochs(child.run_id):
                parent.tag({"nfa.trained": "true"})
    with clock.section("comparison"):
        _compare(parent, config)
    if failures:
        raise NfaError("\n".join(failures))


def _momentum(config: TrainConfig, optimizer: str) -> float | Auto:
    return "auto" if optimizer == "adam" else config.momentum


def _compare(parent: TrackedRun, config: TrainConfig) -> None:
    runs = tracking.children(parent.run_id, parent.info.info.experiment_id)
    variants = {run.data.tags["nfa.variant"]: run.info.run_id for run in runs if "nfa.variant" in run.data.tags}
    series = {name: tracking.history(run_id) for name, run_id in variants.items()}
    sites = [f"layer_{index}" for index in range(config.depth)]
    tracking.save_picture(parent, report.comparison_figure(series, sites), "optimizer_comparison")
    stage("figure", "plots/optimizer_comparison.png and .pdf")
