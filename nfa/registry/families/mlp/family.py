"""MLPs that classify images, as a family."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, ClassVar

from nfa.registry.datasets import catalog
from nfa.registry.datasets.published import PUBLISHED
from nfa.registry.families.mlp.config import COMPARED, TrainConfig
from nfa.registry.families.mlp.sizes import check_sizes
from nfa.registry.families.protocol import EntryPoint, Family, Ids, Quality, Ready
from nfa.registry.folders import check_folder
from nfa.registry.training.optimizer_table import OPTIMIZERS
from nfa.relations import TRAINING

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from nfa.parallel import World
    from nfa.registry.datasets.images import ImageData
    from nfa.registry.families.mlp.session import ClassifierSession
    from nfa.registry.families.mlp.workload import MLPClassifier
    from nfa.registry.stopwatch import Stopwatch
    from nfa.registry.tracking import TrackedRun

HERE = "nfa.registry.families.mlp"


class Classifiers(Family):
    """Bias-free MLPs on images: digits, SVHN, Fashion-MNIST, CIFAR-10."""

    name, entrypoint, config = "mlp", "train", TrainConfig
    entry_points: ClassVar[Mapping[str, EntryPoint]] = {
        "train": EntryPoint(
            f"{HERE}.config:TrainConfig", "nfa.registry.training.start:train", "nfa.registry.families.registry:look"
        ),
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

    def metric_keys(self, config: TrainConfig) -> list[str]:
        scores = [f"{split}/{score}" for split in ("train", "val", "test") for score in ("loss", "accuracy")]
        similarities = [f"layer_{index}/{relation}" for index in range(config.depth) for relation in TRAINING]
        moved = [f"flow/layer_{index}/update_ratio" for index in range(config.depth + 1)]
        harmonised = [f"ghm/{kind}_bin_{index}" for kind in ("share", "weight") for index in range(config.ghm_bins)]
        ghm = ["ghm/loss", *harmonised] if config.weighting == "ghm" else []
        return [*scores, *similarities, "flow/grad_norm", *moved, *ghm]

    def check(self, trainings: Sequence[TrainConfig]) -> None:
        for dataset, folder in {(one.dataset, one.data_dir) for one in trainings if one.data_dir}:
            catalog.locate(dataset, folder)
            check_folder("data_dir", folder)
        for one in trainings:
            check_sizes(one, *PUBLISHED[one.dataset])

    def look(self, config: TrainConfig) -> Any:
        """The files of the data set."""
        return catalog.locate(config.dataset, config.data_dir)

    def variants(self, config: TrainConfig) -> dict[str, TrainConfig]:
        """With optimizer=all, one training each."""
        if config.optimizer != "all":
            return {}
        return {
            name: replace(
                config,
                optimizer=name,
                run_name=name,
                momentum="auto" if OPTIMIZERS[name].momentum is None else config.momentum,
            )
            for name in COMPARED
        }

    def read(self, config: TrainConfig, clock: "Stopwatch", found: Any = None) -> "ImageData":
        from nfa.registry.datasets import images

        with clock.section("data"):
            return images.load(config.dataset, self.look(config) if found is None else found)

    def prepare(
        self, config: TrainConfig, data: "ImageData", run: "TrackedRun | None" = None, ids: Ids | None = None
    ) -> Ready:
        from nfa.registry.families.mlp.session import prepare

        return prepare(config, data, run, ids)

    def lines(self, ready: Ready) -> Iterator[tuple[str, str]]:
        data = ready.data
        images = f"{len(data.train_labels)} + {len(data.test_labels)} images of {data.features} pixels"
        yield "data", f"{data.name}: {images}, {data.classes} classes"

    def stored(self, config: TrainConfig, ready: Ready) -> dict[str, Any]:
        from nfa.registry.families.mlp.session import stored_config

        return stored_config("train", {**asdict(config), "resume": ""}, ready.data)

    def compare(self, parent: "TrackedRun") -> None:
        from nfa.registry.families.mlp.report import compare

        compare(parent)

    def session(
        self, run: "TrackedRun", ready: Ready, clock: "Stopwatch", world: "World",  # noqa: ARG002 - one process
    ) -> "ClassifierSession":  # fmt: skip
        from nfa.registry.families.mlp.session import ClassifierSession

        return ClassifierSession(run, ready, clock)

    def rebuild(
        self,
        stored: Mapping[str, Any],
        ids: Ids,
        *,
        device: "torch.device",
        data_dir: str | None,
        tensors: Callable[[str], Mapping[str, "Tensor"]],  # noqa: ARG002 - all is in config.json
    ) -> "MLPClassifier":
        from nfa.registry.families.mlp.session import rebuild

        return rebuild(stored, ids, device, data_dir)
