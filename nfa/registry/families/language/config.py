"""Parameters of the fine-tuning of language models."""

import dataclasses
from dataclasses import dataclass
from typing import Any

from nfa import checkpoint_schedule
from nfa.errors import Refusal
from nfa.options import Auto, CheckedOptions, check_fields, device_option, option
from nfa.registry.training.optimizer_parameters import OptimizerParameters
from nfa.registry.training.optimizer_table import ALLOWED
from nfa.registry.training.rates import SCHEDULES
from nfa.registry.training.seeds import check_seeds, seeds_option, workers_option
from nfa.registry.typed_values import SEED_LIMIT

INITS = ("random", "svd", "pissa", "olora", "gaussian", "orthogonal", "full")
RESIDUAL = ("pissa", "olora")  # inits that are parts of the base weights and are subtracted from them
STARTS = ("residual", "warm")
PRECISIONS = ("float32", "bfloat16", "float16", "float64")
HALF = ("bfloat16", "float16")
QUESTIONS: dict[str, Any] = {"path": "file", "path_unless": ("stdlib",)}
TARGETS = "q_proj,k_proj,v_proj,o_proj,gate_proj,up_proj,down_proj"
LORA_SCHEDULE = "0,5,10,15,20,30,40,60,80,100,150,200,300,500,1000"
ADAM = ("adam", "adamw")
ADAM_RATES = {"lora": 2e-4, "full": 2e-5}
TINY_ADAM_RATES = {"lora": 5e-3, "full": 1e-3}
RATES = "for adam and adamw 2e-4 (full: 2e-5), with base tiny 5e-3 (full: 1e-3); else that of train"


def listed(text: str) -> list[str]:
    """Split comma-separated words, without repetitions."""
    return list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))


def check_targets(text: str) -> None:
    """Raise `Refusal` if no module is named."""
    if not listed(text):
        raise Refusal(f"targets={text!r}", "ends of module paths, comma-separated", f"targets={TARGETS}")


@dataclass(frozen=True)
class LoraTraining(OptimizerParameters):
    """Parameters that a fine-tuning and a whole experiment share."""

    optimizer: str = option("adamw", f"optimizer: {ALLOWED}")
    lr: float | Auto = option("auto", f"learning rate; auto = {RATES}", above=0)
    lr_schedule: str = option("linear", "how the learning rate changes during training", choices=SCHEDULES)
    lr_step: int = option(50, "optimizer steps after which lr_schedule=step multiplies the learning rate", at_least=1)
    clip_norm: float = option(1.0, "gradients with a larger norm are clipped to it; 0 = no clipping", at_least=0)
    base_model: str = option(
        "tiny",
        "base model: tiny (byte-level, trained locally), smollm2, a hub id, a folder, or a GGUF file",
        path="file or folder",
        path_unless=("tiny", "smollm2"),
    )
    data: str = option(
        "stdlib",
        "questions and answers: stdlib (docstrings of Python's standard library, which come with nfa), a .json or "
        ".jsonl file with the keys question and answer, or others (docs/conventions.md, files of questions), or a "
        "hub id",
        **QUESTIONS,
    )
    val_data: str = option("", "file of held-out questions; empty = a random tenth of the data", **QUESTIONS)
    split_seed: int = option(
        1717, "seed of the choice of the held-out tenth, independent of seed", at_least=0, below=2**63
    )
    max_items: int = option(0, "use only the first questions of the data; 0 = all", at_least=0, below=2**31)
    eval_items: int = option(0, "evaluate only the first held-out questions; 0 = all", at_least=0, below=2**31)
    rank: int = option(16, "rank of the adapter", at_least=1, below=2**16)
    alpha: float = option(16.0, "scale of the adapter: the update is alpha / rank × B A", above=0)
    dropout: float = option(0.0, "dropout rate of the adapter's inputs", at_least=0, below=1)
    targets: str = option(TARGETS, "adapted modules, by ends of their paths, comma-separated")
    epochs: int = option(1, "passes through the training questions", at_least=1, below=10**6)
    batch_size: int = option(4, "questions per batch", at_least=1, below=2**20)
    accumulation: int = option(4, "batches per optimizer step", at_least=1, below=2**20)
    max_length: int = option(
        512, "most tokens of a question with its answer; longer ones are left out and counted", at_least=2, below=2**31
    )
    eval_every: int | Auto = option(
        "auto", "optimizer steps between evaluations; auto = a tenth of all steps", at_least=1
    )
    schedule: str = option(
        "auto",
        f"optimizer steps with a checkpoint; auto = {LORA_SCHEDULE} (full: none); 0 and the last are always included",
    )
    precision: str = option(
        "auto",
        "precision; auto = bfloat16 autocast on a GPU that supports it, else float32",
        choices=("float32", "bfloat16"),
    )
    base_precision: str = option(
        "float32", "precision in which the base model's weights are stored", choices=PRECISIONS
    )
    device: str = device_option(free_on_resume=True)

    def check(self) -> None:
        """Raise `Refusal` for parameters with which no training is possible."""
        check_fields(self)
        self.check_optimizer()
        if self.schedule != "auto":
            checkpoint_schedule.parse(self.schedule, 0)
        check_targets(self.targets)

    @property
    def target_list(self) -> list[str]:
        """The targets, without repetitions."""
        return listed(self.targets)

    @property
    def step_size(self) -> int:
        """Questions per optimizer step."""
        return self.batch_size * self.accumulation


@dataclass(frozen=True)
class TrainLoraConfig(LoraTraining):
    """Fine-tune a causal language model on questions and answers, with a low-rank adapter (LoRA) or in full."""

    init: str = option(
        "random", "initial adapter; svd = from a run of lora_svd; full = no adapter, train the weights themselves",
        choices=INITS,
    )  # fmt: skip
    start: str = option(
        "residual", "init=svd: the model starts as the base model (residual) or with the update added (warm)",
        choices=STARTS,
    )  # fmt: skip
    factors: str = option("", "init=svd: id of the run of lora_svd")
    steps: int = option(0, "optimizer steps; 0 = as many as epochs has", at_least=0, below=10**7)
    seed: int = option(1717, "seed of question order, initial adapter and dropout", at_least=0, below=SEED_LIMIT)
    seeds: str = seeds_option()
    n_workers: int = workers_option()
    resume: str = option("", "id of a killed or failed run to continue", free_on_resume=True)
    run_name: str = option("", "name of the run in MLflow; empty = named by what ran", free_on_resume=True)

    def __post_init__(self) -> None:
        self.check()
        check_seeds(self)
        self._check_init()
        self._check_precision()

    def _check_init(self) -> None:
        if self.init == "svd" and not self.factors:
            raise Refusal("init=svd without factors", "the id of a run of lora_svd", "factors=<run id>")
        if self.init != "svd" and self.factors:
            raise Refusal(f"factors={self.factors} with init={self.init}", "factors for init=svd", "init=svd")
        if self.residual and self.dropout:
            got = f"dropout={self.dropout} with {self._said}"
            raise Refusal(
                got, "no dropout, because it would not apply to what was subtracted from the base", "dropout=0"
            )
        if self.init == "orthogonal" and self.rank % 2:
            raise Refusal(f"init=orthogonal with rank={self.rank}", "an even rank", f"rank={self.rank + 1}")
        if self.init == "full" and self.dropout:
            raise Refusal(f"dropout={self.dropout} with init=full", "dropout of adapters", "dropout=0")

    def _check_precision(self) -> None:
        if self.base_precision not in HALF:
            return
        if self.residual:
            got = f"base_precision={self.base_precision} with {self._said}"
            allowed = "float32 or float64, because subtracting the adapter from the base would be rounded"
            raise Refusal(got, allowed, "base_precision=float32")
        if self.init == "full":
            got = f"base_precision={self.base_precision} with init=full"
            raise Refusal(got, "float32 or float64, because these weights are trained", "base_precision=float32")

    @property
    def residual(self) -> bool:
        """Whether the initial adapter is subtracted from the base, so that the model starts as the base model."""
        return self.init in RESIDUAL or (self.init == "svd" and self.start == "residual")

    @property
    def _said(self) -> str:
        return f"init={self.init}" + (f" start={self.start}" if self.init == "svd" else "")

    def resolved(self) -> "TrainLoraConfig":
        """Return the configuration with `auto` in optimizer and checkpoint schedule replaced by its value."""
        rates = TINY_ADAM_RATES if self.base_model == "tiny" else ADAM_RATES
        known = {
            "schedule": "0" if self.init == "full" else LORA_SCHEDULE,
            **self.values_of_auto(dict.fromkeys(ADAM, rates["full" if self.init == "full" else "lora"])),
        }
        return dataclasses.replace(
            self, **{name: value for name, value in known.items() if getattr(self, name) == "auto"}
        )


@dataclass(frozen=True)
class CompareLoraConfig(CheckedOptions):
    """Compare fine-tunings with different starts on the same questions, by seed, at equal steps and equal compute."""

    run_id: str = option("latest", "runs of train_lora, comma-separated; an experiment stands for its trainings")
    target: float | Auto = option("auto", "held-out loss to reach; auto = the final loss of random adapters")
    seed: int = option(1717, "seed of the bootstrap", at_least=0, below=2**63)
    output_dir: str = option("", "folder to copy all files to; empty = no copy")
    run_name: str = option("", "name of the run in MLflow; empty = named by what ran")
