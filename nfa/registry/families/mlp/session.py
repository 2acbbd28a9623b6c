"""The session of a classifier's training: its description, and gradient harmonising."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from nfa.figures.training_analysis import Series
from nfa.registry import tracking
from nfa.registry.datasets.images import ImageData
from nfa.registry.families.mlp.config import TrainConfig
from nfa.registry.families.mlp.family import Classifiers
from nfa.registry.families.mlp.figures.ghm_histogram import ghm_histogram
from nfa.registry.families.mlp.ghm import Harmonised
from nfa.registry.families.mlp.model import MLP
from nfa.registry.families.mlp.workload import MLPClassifier
from nfa.registry.families.protocol import Ready
from nfa.registry.training.alignment_session import AlignmentSession, fields_of
from nfa.registry.training.config_json import training_config
from nfa.registry.training.optimizers import Optimizers
from nfa.workload import Batch


def stored_config(entrypoint: str, train: Mapping[str, Any], data: ImageData) -> dict[str, Any]:
    """Return the content of a classifier's config.json; `train` holds the known fields of `TrainConfig`."""
    described = {
        "name": data.name,
        "digest": data.digest(),
        "published_train": len(data.train_labels),
        "published_test": len(data.test_labels),
        "features": data.features,
        "classes": data.classes,
    }
    return training_config(entrypoint, "mlp", TrainConfig, train, described)


class ClassifierSession(AlignmentSession):
    """The training of a classifier, with AGOP and NFM measured at its checkpoints."""

    workload: MLPClassifier
    model: MLP

    def described(self, ready: Ready) -> dict[str, Any]:
        return stored_config("train", fields_of(self.config), ready.data)

    def optimizers(self) -> Optimizers:
        return self.workload.optimizers(self.model)

    def model_line(self) -> str:
        config, data = self.config, self.workload.data
        sizes = f"{data.features} → {config.width} × {config.depth} → {data.classes}"
        return f"MLP {sizes}, {config.activation}, {self.parameters():,} parameters"

    def title(self) -> str:
        return Classifiers().title(self.stored)

    def recorders(self) -> list[tuple[Callable[[Tensor, Batch], None], Callable[[], dict[str, float]]]]:
        """Return the histogram of gradient norms if it weights the examples."""
        if not isinstance(self.objective, Harmonised):
            return []
        histogram = self.objective.histogram()
        return [(histogram.update, histogram.values)]

    def draw_series(self, series: Mapping[str, Series]) -> None:
        super().draw_series(series)
        if self.config.weighting == "ghm":
            figure = ghm_histogram(series, self.config.ghm_bins, title=self.title())
            tracking.save_picture(self.run, figure, "ghm_histogram")
