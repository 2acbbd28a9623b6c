"""Language models that are fine-tuned on questions and answers, as a family."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from nfa.bookkeeping import FLOPS
from nfa.registry.families.entry_point import EntryPoint, trains
from nfa.registry.families.language import questions
from nfa.registry.families.language.base.known_layers import known_layers, targeted
from nfa.registry.families.language.base.model_names import place
from nfa.registry.families.language.config import TrainLoraConfig
from nfa.registry.families.language.fitting import Sides, check_rank, trained
from nfa.registry.families.language.question_files import check_hub, existing, is_file_name, is_hub_id
from nfa.registry.families.protocol import Family
from nfa.registry.folders import typed_folder
from nfa.registry.machine import check_memory

HERE = "nfa.registry.families.language"
FLOAT = 4  # bytes
KEYS = (
    "eval/loss", "train/step_loss", "train/grad_norm", "train/learning_rate", FLOPS, "flow/grad_norm",
    "flow/block_*/update_ratio",
)  # fmt: skip


class LanguageModels(Family):
    """Causal language models with a low-rank adapter, or fine-tuned in full."""

    name, entrypoint, config, unit = "lora", "train_lora", TrainLoraConfig, "step"
    trained_by, extra = f"{HERE}.training:LanguageTraining", "language"
    entry_points: ClassVar[Mapping[str, EntryPoint]] = {
        "train_lora": trains(f"{HERE}.config:TrainLoraConfig"),
        "compare_lora": EntryPoint(
            f"{HERE}.config:CompareLoraConfig",
            f"{HERE}.comparison.compare_lora:compare_lora",
            results="comparison.json",
            verdicts=f"{HERE}.comparison.report:verdicts_of",
        ),
        "lora_experiment": EntryPoint(
            f"{HERE}.experiment.config:LoraExperimentConfig",
            f"{HERE}.experiment.lora_experiment:lora_experiment",
            f"{HERE}.questions:look",
            results="comparison.json",
            verdicts=f"{HERE}.comparison.report:verdicts_of",
        ),
        "synthesize_teacher": EntryPoint(
            f"{HERE}.teacher.config:SynthesizeTeacherConfig", f"{HERE}.teacher.synthesize_teacher:synthesize_teacher"
        ),
        "lora_svd": EntryPoint(
            f"{HERE}.teacher.config:LoraSvdConfig",
            f"{HERE}.teacher.lora_svd:lora_svd",
            check=f"{HERE}.teacher.layers:check_layers",
        ),
    }
    data = ("base_model", "data", "val_data", "max_length")
    objective = "eval/loss"
    space = "lr=log:1e-5:3e-2,rank=4|8|16|32,alpha=log:4:64,init=random|gaussian|orthogonal|pissa|olora"
    files = ("initial_adapter.safetensors",)

    told = frozenset({"data", "base_model", "init", "start", "rank"})

    def called(self, config: TrainLoraConfig) -> str:
        data, base = Path(config.data).name, Path(config.base_model).name
        start = f"svd {config.start}" if config.init == "svd" else config.init
        return f"{data} {base} {start}" + ("" if config.init == "full" else f" rank {config.rank}")

    def telling(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """Leave out the run of the factors, because each seed of an experiment has one of its own."""
        return {name: value for name, value in super().telling(config).items() if name != "factors"}

    def subject(self, stored: Mapping[str, Any]) -> str:
        train = stored["train"]
        how = "full fine-tuning" if train["init"] == "full" else f"LoRA of rank {train['rank']}, init={train['init']}"
        return f"{stored['base']['name'].rpartition('/')[2]} on {stored['data']['name']}, {how}"

    def loss(self, stored: Mapping[str, Any]) -> str:  # noqa: ARG002 - the same for all
        return "cross-entropy per answer token"

    def metric_keys(self, config: TrainLoraConfig) -> list[str]:  # noqa: ARG002 - the same for all
        return list(KEYS)

    def check(self, trainings: Sequence[TrainLoraConfig]) -> None:
        for name, file in {(name, getattr(one, name)) for one in trainings for name in ("data", "val_data")}:
            if is_file_name(file):
                existing(typed_folder(file), f"{name}={file}")
            elif is_hub_id(file):
                check_hub(file)
        bases = {one.base_model for one in trainings}
        for base in bases:
            place(base, "base_model")
        layers = {base: known_layers(base) for base in bases}
        for one in trainings:
            _check_layers(one, layers[one.base_model])

    def look(self, config: TrainLoraConfig) -> Any:
        """The questions, where all of them lie in files."""
        return questions.look(config)


def _check_layers(config: TrainLoraConfig, layers: Sides | None) -> None:
    """Targets, rank and memory of a fine-tuning; nothing is known of a base model without `layers`."""
    if layers is None:
        return
    sides = targeted(layers, config.target_list)
    check_rank(config, sides)
    check_memory(
        trained(config, sides),
        f"rank={config.rank} for {len(sides)} modules of base_model={config.base_model}",
        "a smaller rank, fewer targets, or a smaller base model",
        more=FLOAT * sum(o * i for o, i in layers.values()),
    )
