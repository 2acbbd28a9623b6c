"""The workload of a Conformer that decodes the envelope of heard speech from EEG, window by window."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor

from nfa.maths.bfloat16 import mixed_precision
from nfa.maths.pearson import pearson
from nfa.parameter_groups import ParameterGroups
from nfa.registry.families.eeg.config import TrainEEGConfig
from nfa.registry.families.eeg.conformer import Conformer, ConformerOptions, initialise
from nfa.registry.families.eeg.data import EEGData, load
from nfa.registry.families.eeg.losses import loss_terms
from nfa.registry.families.eeg.simulated import Simulation, simulated_folder
from nfa.registry.folders import typed_folder
from nfa.registry.training.hidden_matrices import hidden_matrices
from nfa.registry.training.optimizers import Group, Optimizers, build
from nfa.seeding import generator
from nfa.workload import Batch, Workload

ARGUMENTS: dict[str, dict[str, Any]] = {name: {"betas": (0.9, 0.98), "eps": 1e-9} for name in ("adam", "adamw")}
OPTIONS = tuple(item.name for item in dataclasses.fields(ConformerOptions))


class EEGDecoder(Workload):
    """The workload of `train_eeg`: rebuilt anywhere from `config`, the recordings and the stored ids.

    An example is a window, its id the place of the window's first sample among all samples of the data.
    """

    name = "eeg"

    def __init__(
        self,
        config: TrainEEGConfig,
        data: EEGData,
        example_ids: Mapping[str, Sequence[int]],
        device: torch.device | str = "cpu",
    ) -> None:
        self.config, self.data, self.example_ids = config.resolved(), data, example_ids
        self.device = torch.device(device)
        self.window = self.config.window
        asked = dataclasses.asdict(self.config)
        known = {**asked, "channels": data.channels, "subjects": len(data.subjects)}
        self.options = ConformerOptions(**{name: known[name] for name in OPTIONS})

    def ids(self, split: str) -> Sequence[int]:
        return self.example_ids[split]

    def draw(self, epoch: int) -> Tensor:
        """Return ids of an epoch's training windows: random starts in every recording, in random order."""
        random = generator(self.config.seed, f"windows/{epoch}")
        ids = self.data.draw(self.window, int(self.config.windows_per_recording), random)
        return ids[torch.randperm(len(ids), generator=random)]

    def model(self) -> Conformer:
        conformer = Conformer(self.options)
        initialise(conformer, self.config.seed)
        return conformer.to(self.device)

    def optimizers(self, model: nn.Module) -> Optimizers:
        """Return the configured optimizer; with `use_llrd` each part has its own learning rate."""
        config, named = self.config, dict(model.named_parameters())
        rates, per_epoch = self._rates(model), -(-len(self.draw(0)) // int(config.batch_size))
        hidden = set(hidden_matrices(self, model) if config.entry.companion else named)
        groups = [
            Group(
                [named[name] for name in names if name in hidden],
                [named[name] for name in names if name not in hidden],
                factor=rates[group],
            )
            for group, names in self.groups(model).names.items()
        ]
        return build(config, groups, config.rate(int(config.epochs) * per_epoch, per_epoch), ARGUMENTS)

    def _rates(self, model: nn.Module) -> dict[str, float]:
        """Return each group's learning-rate factor: front (to the first half of the blocks), head, and the rest."""
        config, groups = self.config, list(self.groups(model).names)
        if not config.use_llrd:
            return dict.fromkeys(groups, 1.0)
        behind = groups.index(f"block_{self.options.n_layers // 2}")
        rates = {group: config.llrd_front if i < behind else config.llrd_back for i, group in enumerate(groups)}
        return {**rates, "head": config.llrd_output}

    def described_loss(self, *, plain: bool) -> str:  # noqa: ARG002 - no window weighs more than another
        """Return the loss in words."""
        return f"MSE + {self.config.pearson_weight:g} (1 - r)^2"

    def autocast(self) -> AbstractContextManager[Any]:
        """Return the context of mixed precision, if it is configured or chosen by auto."""
        return mixed_precision(self.config.precision, self.device)

    def batches(self, split: str, *, batch_size: int, ids: Sequence[int] | Tensor | None = None) -> Iterator[Batch]:
        """Yield windows of any split; the next batch is read while one is used."""
        chosen = torch.as_tensor(self.example_ids[split] if ids is None else ids, dtype=torch.int64)
        parts = chosen.split(batch_size) if len(chosen) else ()
        with ThreadPoolExecutor(1) as reader:
            waiting = [reader.submit(self._read, part) for part in parts[:1]]
            for index in range(len(parts)):
                read = waiting.pop()
                waiting = [reader.submit(self._read, part) for part in parts[index + 1 : index + 2]]
                yield read.result()

    def _read(self, ids: Tensor) -> Batch:
        eeg, envelope, subjects = self.data.windows(ids, self.window)
        to = partial(Tensor.to, device=self.device, non_blocking=True)
        return Batch((to(eeg), to(subjects)), to(envelope), ids)

    def outputs(self, model: nn.Module, batch: Batch) -> Tensor:
        envelope: Tensor = model(*batch.inputs)
        return envelope

    def losses(self, outputs: Tensor, batch: Batch) -> Tensor:
        error, apart = loss_terms(outputs, batch.targets)
        return error + self.config.pearson_weight * apart

    def metrics(self, outputs: Tensor, batch: Batch) -> Mapping[str, Tensor]:
        error, apart = loss_terms(outputs, batch.targets)
        return {"loss_mse": error, "loss_pearson": apart}

    def correlations(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Return Pearson's r of each window [n] in float64; NaN if a signal is constant, to be counted and left out."""
        return pearson(outputs.squeeze(2), batch.targets.squeeze(2))

    def groups(self, model: nn.Module) -> ParameterGroups:
        """cnn, se, subject, block_0 …, gate, head: modules of the model, never parts of names."""
        assert isinstance(model, Conformer)
        last = len(model.layer_stack) - 1
        parts: dict[str, tuple[str, nn.Module | None]] = {
            "cnn": ("cnn", model.cnn),
            "se": ("se", model.se),
            "subject": ("subject", model.subject),
            **{f"block_{index}": (f"layer_stack.{index}", block) for index, block in enumerate(model.layer_stack)},
            "gate": ("gate", model.gate),
            "head": ("head", model.head),
        }
        names = {
            group: [f"{path}.{name}" for name, _ in module.named_parameters()]
            for group, (path, module) in parts.items()
            if module is not None
        }
        scaled = self.options.gradient_scale if self.options.gradient_scale_position != "before_stack" else 1.0
        return ParameterGroups(names, "block_0", f"block_{last}", "head", scaled / self.options.output_grad_scale)


def read(config: TrainEEGConfig, data_dir: str | None = None) -> EEGData:
    """Return the recordings of a configuration, or those in `data_dir`; simulated ones if neither names a folder."""
    place = config.data_dir if data_dir is None else data_dir
    if place:
        return load(typed_folder(place), window=config.window, split=config.split, unseen=config.unseen)
    names = ("subjects", "stimuli", "seconds", "channels", "snr_db", "split")
    known = {name: getattr(config.resolved(), name) for name in names}
    folder = simulated_folder(Simulation(**known, seed=config.data_seed))
    return load(folder, name="simulated", window=config.window, split=config.split, unseen=config.unseen)
