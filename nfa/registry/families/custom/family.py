"""Any named workload as a family, so that a user's file can do what the families of nfa can."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from nfa.bookkeeping import FLOPS
from nfa.errors import Refusal
from nfa.plain_text import loss_in_words
from nfa.registry.families.custom.config import CustomConfig, searchable
from nfa.registry.families.custom.maker import ALLOWED, SHAPE, find, registered
from nfa.registry.families.custom.trust import WATCHED, trusted
from nfa.registry.families.entry_point import EntryPoint
from nfa.registry.families.protocol import Family, NamedWorkload
from nfa.registry.families.registry import FAMILIES
from nfa.registry.typed_values import assignments
from nfa.relations import KNOWN, TRAINING

HERE = "nfa.registry.families.custom"
SEARCHED = "lr=log:1e-4:1,optimizer=sgd|adam|muon,weight_decay=0|1e-5|1e-4|1e-3"


class NamedWorkloads(Family):
    """The family of one workload: module:function, or a registered name."""

    name, entrypoint, config = "custom", "train", CustomConfig
    trained_by = f"{HERE}.training:CustomTraining"
    entry_points: ClassVar[Mapping[str, EntryPoint]] = {}  # `train` accepts any name
    data = ("workload", "workload_args", "seed", "device")
    objective, space = "val/loss", SEARCHED

    def __init__(self, name: str = "custom") -> None:
        if name not in ("custom", WATCHED, *registered()) and not SHAPE.fullmatch(name):
            names = [one for one in (*FAMILIES, *registered()) if one != "custom"]
            raise Refusal(f"workload={name}", f"{', '.join(names)}, or {ALLOWED}", "choose one of them")
        self.name = name  # type: ignore[misc]  # the tag nfa.workload of its runs

    told = frozenset({"workload", "dataset"})

    def called(self, config: CustomConfig) -> str:
        """Return the function's name, after its argument `dataset` if it has one."""
        defaults = {name: argument.default for name, argument in find(config.workload).arguments.items()}
        data = {**defaults, **config.arguments()}.get("dataset") or ""
        return f"{data} {self._plain}".strip()

    @property
    def _plain(self) -> str:
        return self.name.rpartition("/")[2]  # without the file's folder

    def subject(self, stored: Mapping[str, Any]) -> str:
        if self.name == WATCHED:
            return ""
        words = stored["train"]["workload_args"].replace(",", ", ")
        return f"{self._plain}{f' ({words})' if words else ''}"

    def loss(self, stored: Mapping[str, Any]) -> str:
        return loss_in_words(stored.get("loss", ""))

    def metric_keys(self, config: CustomConfig) -> list[str]:  # its sites are known once there is a model
        scores = [f"{split}/*" for split in ("train", "val", "test")]
        similarities = [f"*/{relation}" for relation in (*TRAINING, *KNOWN)]
        return [*scores, *similarities, "flow/grad_norm", "flow/*/update_ratio", FLOPS, *config.rate_keys]

    def check(self, trainings: Sequence[CustomConfig]) -> None:
        for name, words in {(one.workload, one.workload_args) for one in trainings}:
            find(name).read(words)

    def variants(self, config: CustomConfig) -> dict[str, CustomConfig]:
        return config.variants()

    def telling(self, config: Mapping[str, Any]) -> dict[str, Any]:
        values = super().telling(config)
        return values | assignments("workload_args", values.pop("workload_args", ""))

    def searchable(self, arguments: str) -> type[Any]:
        return searchable(self.name, arguments)

    def code(self, stored: Mapping[str, Any], named: NamedWorkload) -> dict[str, Any]:
        return {"code": trusted(stored, named.name).digest, "arguments": named.arguments}
