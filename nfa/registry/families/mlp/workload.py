"""The workload of an MLP that classifies images."""

from collections.abc import Iterator, Mapping, Sequence

import torch
import torch.nn as nn
from torch import Tensor

from nfa.grouping import groups_of_sites
from nfa.parameter_groups import ParameterGroups
from nfa.registry.datasets.images import ImageData, Images, Labels
from nfa.registry.families.mlp.config import TrainConfig
from nfa.registry.families.mlp.ghm import TERMS, Harmonised
from nfa.registry.families.mlp.losses import LOSSES
from nfa.registry.families.mlp.model import MLP, initialise
from nfa.registry.training.optimizers import Group, Optimizers, build
from nfa.seeding import generator
from nfa.workload import Batch, MeanLoss, Workload


class MLPClassifier(Workload):
    """The workload of `train`: rebuilt anywhere from `config`, the published data and the stored ids."""

    name = "mlp"

    def __init__(
        self,
        config: TrainConfig,
        data: ImageData,
        example_ids: Mapping[str, Sequence[int]],
        device: torch.device | str = "cpu",
    ) -> None:
        self.config, self.data, self.example_ids = config, data, example_ids
        self.device = torch.device(device)
        labels = data.train_labels.copy()
        labels[list(example_ids.get("noisy", ()))] = list(example_ids.get("noisy_labels", ()))
        self._pools = {
            "train": self._pool(data.train_images, labels),
            "test": self._pool(data.test_images, data.test_labels),
        }
        self._loss = LOSSES[config.loss]

    def _pool(self, images: Images, labels: Labels) -> tuple[Tensor, Tensor]:
        pixels = torch.tensor(images, dtype=torch.float32, device=self.device).div_(self.data.scale)
        return pixels, torch.tensor(labels, device=self.device)

    def ids(self, split: str) -> Sequence[int]:
        return self.example_ids[split]

    def model(self) -> MLP:
        config = self.config
        mlp = MLP(
            self.data.features, self.data.classes, width=config.width, depth=config.depth, activation=config.activation
        )
        initialise(mlp, config.init, generator(config.seed, "init"))
        return mlp.to(self.device)

    def optimizers(self, model: MLP) -> Optimizers:
        """Return the configured optimizer for this model."""
        config, weights = self.config.resolved(), model.matrices()
        return build(config, [Group(weights[:-1], weights[-1:])], config.rate_on(len(self.ids("train"))))

    def objective(self) -> Harmonised | MeanLoss:
        """Return the training objective; `losses` are always unweighted."""
        config = self.config
        if config.weighting == "none":
            return MeanLoss(self.losses)
        terms = TERMS[config.loss]
        return Harmonised(terms, bins=config.ghm_bins, momentum=config.ghm_momentum, alpha=config.ghm_alpha)

    def described_loss(self, *, plain: bool) -> str:
        """Return the loss in words; with `plain`, without the weights of examples."""
        train = self.config
        weighted = not plain and train.weighting != "none"
        return f"{train.loss}, weights of {train.weighting} fixed over these examples" if weighted else train.loss

    def batches(self, split: str, *, batch_size: int, ids: Sequence[int] | Tensor | None = None) -> Iterator[Batch]:
        images, labels = self._pools["test" if split == "test" else "train"]
        chosen = torch.as_tensor(self.example_ids[split] if ids is None else ids)
        for start in range(0, len(chosen), batch_size):
            part = chosen[start : start + batch_size]
            index = part.to(self.device)
            yield Batch(images[index], labels[index], part)

    def outputs(self, model: nn.Module, batch: Batch) -> Tensor:
        outputs: Tensor = model(batch.inputs)
        return outputs

    def losses(self, outputs: Tensor, batch: Batch) -> Tensor:
        return self._loss(outputs, batch.targets)

    def metrics(self, outputs: Tensor, batch: Batch) -> Mapping[str, Tensor]:
        return {"accuracy": (outputs.argmax(dim=1) == batch.targets).to(outputs.dtype)}

    def classes(self, batch: Batch) -> Tensor:
        labels: Tensor = batch.targets
        return labels

    def stratified(self) -> int:
        return len(self.example_ids["probe"])

    def noisy(self) -> Sequence[int]:
        return self.example_ids.get("noisy", ())

    def sites(self, model: nn.Module) -> Mapping[str, nn.Module]:
        assert isinstance(model, MLP)
        return {f"layer_{index}": layer for index, layer in enumerate(model.layers)}

    def readout(self, model: nn.Module) -> str | None:
        return next(reversed(list(self.sites(model))), None)

    def groups(self, model: nn.Module) -> ParameterGroups:
        return groups_of_sites(model, self.sites(model))
