"""MLPs that classify images, as a family."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from nfa.bookkeeping import FLOPS
from nfa.registry.datasets import image_files
from nfa.registry.datasets.image_sizes import PUBLISHED
from nfa.registry.families.assessment import Quality
from nfa.registry.families.entry_point import EntryPoint, trains
from nfa.registry.families.mlp.config import TrainConfig
from nfa.registry.families.protocol import Family
from nfa.registry.folders import check_folder
from nfa.relations import TRAINING

HERE, ANY = "nfa.registry.families.mlp", "nfa.registry.families.by_name"
SPOKEN = {"mse": "mean squared error", "cross-entropy": "cross-entropy"}


class Classifiers(Family):
    """Bias-free MLPs on images: digits, SVHN, Fashion-MNIST, CIFAR-10."""

    name, entrypoint, config = "mlp", "train", TrainConfig
    trained_by = f"{HERE}.training:ClassifierTraining"
    entry_points: ClassVar[Mapping[str, EntryPoint]] = {
        "train": trains(f"{ANY}:TrainAnyConfig", becomes=f"{ANY}:training_of"),
        "demo": EntryPoint(f"{HERE}.config:DemoConfig", f"{HERE}.demo:demo"),
        "import_checkpoints": EntryPoint(
            f"{HERE}.config:ImportConfig",
            f"{HERE}.import_checkpoints:import_checkpoints",
            f"{HERE}.old_checkpoints:look",
        ),
    }
    data = ("dataset", "data_dir")
    objective, quality = "val/loss", Quality("val/accuracy", "validation accuracy")
    space = "lr=log:1e-4:1,optimizer=sgd|adam|muon,width=log:32:1024,weight_decay=0|1e-5|1e-4|1e-3"

    told = frozenset({"dataset", "width", "depth"})

    def called(self, config: TrainConfig) -> str:
        return f"{config.dataset} mlp {config.width}×{config.depth}"

    def subject(self, stored: Mapping[str, Any]) -> str:
        train, data = stored["train"], stored["data"]
        return f"MLP {data['features']}→{train['width']}×{train['depth']} on {data['name']}"

    def loss(self, stored: Mapping[str, Any]) -> str:
        return SPOKEN.get(stored["train"].get("loss", ""), "")

    def metric_keys(self, config: TrainConfig) -> list[str]:
        scores = [f"{split}/{score}" for split in ("train", "val", "test") for score in ("loss", "accuracy")]
        similarities = [f"layer_{index}/{relation}" for index in range(config.depth) for relation in TRAINING]
        moved = [f"flow/layer_{index}/update_ratio" for index in range(config.depth + 1)]
        harmonised = [f"ghm/{kind}_bin_{index}" for kind in ("share", "weight") for index in range(config.ghm_bins)]
        ghm = ["ghm/loss", *harmonised] if config.weighting == "ghm" else []
        return [*scores, *similarities, "flow/grad_norm", *moved, *ghm, FLOPS, *config.rate_keys]

    def check(self, trainings: Sequence[TrainConfig]) -> None:
        for dataset, folder in {(one.dataset, one.data_dir) for one in trainings if one.data_dir}:
            image_files.locate(dataset, folder)
            check_folder("data_dir", folder)
        for one in trainings:
            one.check_sizes(*PUBLISHED[one.dataset])

    def look(self, config: TrainConfig) -> Any:
        """Find the files of the data set."""
        return image_files.locate(config.dataset, config.data_dir)

    def variants(self, config: TrainConfig) -> dict[str, TrainConfig]:
        return config.variants()
