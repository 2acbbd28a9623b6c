"""Import a folder of old checkpoint files as a tracked run."""

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from nfa.console import bar, stage
from nfa.content import file_sha256, unpickled
from nfa.errors import NfaError, Refusal, headline, reading
from nfa.measures.evaluation import evaluate_split
from nfa.plain_text import counted
from nfa.registry import tracking
from nfa.registry.commands import command
from nfa.registry.datasets import images, splits
from nfa.registry.datasets.images import ImageData
from nfa.registry.descriptions import describe_end, of_examples
from nfa.registry.families.mlp import old_checkpoints
from nfa.registry.families.mlp.config import ImportConfig, TrainConfig
from nfa.registry.families.mlp.family import Classifiers
from nfa.registry.families.mlp.old_checkpoints import FoundFiles, Sizes
from nfa.registry.families.mlp.session import stored_config
from nfa.registry.families.mlp.workload import MLPClassifier
from nfa.registry.families.stored import config_digest
from nfa.registry.signals import shielded
from nfa.registry.stopwatch import Stopwatch
from nfa.registry.tracking import TrackedRun
from nfa.registry.training.config_json import SPACE_MARGIN, data_inputs, write_config
from nfa.workloads.devices import choose_device

REMEDY = (
    "copy it again, or leave its epoch out with epochs; if it needs pickle and you trust it, save it again as "
    "torch.save({'state_dict': model.state_dict()}, …)"
)
TRAINING_FACTS = ("dataset", "data_dir", "width", "depth", "activation", "loss", "seed")


def import_checkpoints(_: ImportConfig, clock: Stopwatch, found: FoundFiles) -> None:
    """Check every file, then store and evaluate each epoch in a new run."""
    device = choose_device(found.config.device)
    with clock.section("data"):
        data = images.load(found.config.dataset, found.data)
    stage("data", f"{data.name}: {data.features} pixels, {data.classes} classes")
    config = _checked(found, data)
    stored = _stored_config(config, found, data)
    ids = splits.decide(data.train_labels, data.test_labels, seed=config.seed, label_noise=0.0, classes=data.classes)
    workload = MLPClassifier(TrainConfig(**stored["train"]), data, ids, device)
    called = f"{workload.data.name} mlp {config.width}×{config.depth} imported from {found.folder.name}"
    with tracking.open_run("import_checkpoints", "mlp", name=config.run_name, otherwise=called) as run:
        job = _Import(run, stored, workload, found)
        job.describe(config)
        try:
            job.store()
            job.finish()
        except tracking.StoreError as error:
            remedy = "fix it (permissions, disk space), then import again"
            raise NfaError(f"the tracking store failed: {headline(error)}\n  do: {remedy}") from error
        results, after = of_examples(job.test, len(ids["test"])), command("analyze", run_id=run.run_id)
        describe_end(run, Classifiers().title(stored), results=results, after=after)
    stage("next", after)
    stage("done", run.link)


def _checked(found: FoundFiles, data: ImageData) -> ImportConfig:
    """Return the parameters with the width and depth of the tensors; raise `Refusal` if a file does not fit."""
    config, files = found.config, found.files
    for file in bar(files.values(), "check", unit="file"):
        sizes = old_checkpoints.sizes(read(found.folder, file.path), file.path)
        config = old_checkpoints.agree(config, sizes, file.path)
        _check_fit(sizes, data, file.path)
    stage("files", f"{counted(len(files), 'checkpoint')}, epochs {min(files)} to {max(files)}, in {found.folder}")
    return config


def _check_fit(found: Sizes, data: ImageData, path: str) -> None:
    if (found.inputs, found.classes) != (data.features, data.classes):
        got = f"{path} (a network of {found.inputs} inputs and {found.classes} outputs) with dataset={data.name}"
        allowed = f"{data.features} inputs (pixels) and {data.classes} outputs (classes)"
        raise Refusal(got, allowed, "name the dataset that the network was trained on")


def read(folder: Path, path: str) -> dict[str, Tensor]:
    """Return the weights of an old file under the names of our MLP; raise `Refusal` if it has none."""
    with reading(path, "undamaged files of torch.save with tensors, numbers and text", REMEDY):
        content = unpickled(folder / path)
        state = content.get("state_dict", content) if isinstance(content, Mapping) else content
        if not isinstance(state, Mapping) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
            got, allowed = f"{path} ({type(state).__name__} inside)", "{'state_dict': tensors by name}"
            raise Refusal(got, allowed, "choose such a file")
        return old_checkpoints.rename({str(key): tensor for key, tensor in state.items()}, path)


def _stored_config(config: ImportConfig, found: FoundFiles, data: ImageData) -> dict[str, Any]:
    train = {name: getattr(config, name) for name in TRAINING_FACTS}
    digests = {file.path: file_sha256(found.folder / file.path) for file in found.files.values()}
    content = {str(epoch): {"path": file.path, "sha256": digests[file.path]} for epoch, file in found.files.items()}
    source = {"folder": str(found.folder), "files": content}
    return {**stored_config("import_checkpoints", train, data), "source": source}


class _Import:
    def __init__(self, run: TrackedRun, stored: Mapping[str, Any], workload: MLPClassifier, found: FoundFiles) -> None:
        self.run, self.stored, self.workload, self.folder, self.files = run, stored, workload, found.folder, found.files
        self.model = workload.model()
        self.digest = config_digest(stored)
        self.val_losses: dict[int, float] = {}

    def describe(self, config: ImportConfig) -> None:
        """Check the disk space, then store everything about the run that is known before its first checkpoint."""
        weights = sum(weight.nbytes for weight in self.model.parameters())
        tracking.check_space(self.run.info, total=weights * len(self.files) + SPACE_MARGIN, largest=weights)
        self.run.log_params({**dataclasses.asdict(config), **self.stored["train"]})
        self.run.log_datasets(data_inputs(self.stored, self.workload.example_ids))
        write_config(self.run, self.stored)
        tracking.put_json(self.run.info, "example_ids.json", self.workload.example_ids)
        stage("model", f"MLP {config.width} × {config.depth}, {config.activation}")
        stage("run", f"{self.run.run_id}, {counted(len(self.files), 'checkpoint')}")

    def store(self) -> None:
        """Store the weights and metrics of every epoch."""
        for epoch, file in bar(self.files.items(), "import", unit="file"):
            self.model.load_state_dict(read(self.folder, file.path))
            values = {**self._evaluate("train", epoch), **self._evaluate("val", epoch)}
            with shielded():
                model_id = tracking.save_checkpoint(
                    self.run, self.model, epoch=epoch, step=None, config_digest=self.digest
                )
                self.run.metrics.log(values, epoch, model_id)
                self.run.metrics.flush()
                self.run.tag({"nfa.trained": "true"})
            self.val_losses[epoch] = values["val/loss"]
            stage(f"epoch {epoch}", f"train {values['train/loss']:.4g}  val {values['val/loss']:.4g}")

    def _evaluate(self, split: str, epoch: int) -> dict[str, float]:
        values = evaluate_split(self.model, self.workload, split)
        if not all(map(math.isfinite, values.values())):
            path = self.files[epoch].path
            raise NfaError(f"{split}/loss of {path} is not finite; leave epoch {epoch} out with epochs")
        return values

    def finish(self) -> None:
        """Log the test metrics of the last epoch, and tag the best one."""
        last = max(self.files)
        test = self.test = self._evaluate("test", last)
        self.run.metrics.log(test, last)
        self.run.tag({"nfa.best_epoch": str(min(self.val_losses, key=self.val_losses.__getitem__))})
        stage("test", f"loss {test['test/loss']:.4g}, accuracy {test['test/accuracy']:.4f}")
