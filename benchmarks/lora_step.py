"""A training step of LoRA fine-tuning: this project's loop, and transformers' Trainer with PEFT on the same batches."""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor
from torch.utils.data import SequentialSampler
from transformers import Trainer, TrainerCallback, TrainingArguments

from benchmarks.record import ratio, store
from nfa import unfinished
from nfa.registry.families.language import adapters, questions
from nfa.registry.families.language.answer_tokens import collate, encode
from nfa.registry.families.language.base.models import find_base, load_model, load_tokenizer
from nfa.registry.families.language.config import TrainLoraConfig
from nfa.registry.families.language.session import loop
from nfa.registry.families.language.training import split
from nfa.registry.families.language.workload import ADAM_ARGUMENTS, LanguageModel

ROUNDS = 4
CONFIG = TrainLoraConfig(base_model="smollm2", precision="float32", steps=ROUNDS + 1)


def workload() -> LanguageModel:
    """SmolLM2 with an adapter of rank 16 at all seven targets, on docstrings of the standard library."""
    data, base = questions.load(CONFIG.data), find_base(CONFIG.base_model)
    encoded = encode(data.pairs, load_tokenizer(base.folder), CONFIG.max_length)
    return LanguageModel(CONFIG, base, encoded, split(len(data.pairs), None, encoded.too_long, CONFIG.split_seed))


def next_step(work: LanguageModel) -> Callable[[], float]:
    """A function that makes the next step of this project's loop and returns its loss."""
    training = loop(work, work.model())

    def step() -> float:
        training.run(training.progress.epoch + 1, lambda _: None)
        return float(training.last["loss"])

    return step


class InTurn(TrainerCallback):
    """After each step of a Trainer, one of the other loop; losses and seconds of both."""

    def __init__(self, other: Callable[[], float]) -> None:
        self.other = other
        self.losses: dict[str, list[float]] = {"this": [], "Trainer": []}
        self.seconds: dict[str, list[float]] = {"this": [], "Trainer": []}

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.resumed = time.perf_counter()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        started = time.perf_counter()
        self.seconds["Trainer"].append(started - self.resumed)
        self.losses["this"].append(self.other())
        self.resumed = time.perf_counter()
        self.seconds["this"].append(self.resumed - started)

    def on_log(self, *_: Any, **named: Any) -> None:
        if "loss" in named["logs"]:
            self.losses["Trainer"].append(float(named["logs"]["loss"]))


class InOrder(Trainer):
    """A Trainer whose data set is of batches, taken as they come."""

    def _get_train_sampler(self, *_: Any) -> SequentialSampler:
        return SequentialSampler(self.train_dataset)  # type: ignore[arg-type]


def batches(work: LanguageModel) -> list[dict[str, Tensor]]:
    """The parts of all steps, as transformers' models take them."""
    found = []
    for part in (part for step in range(work.steps) for part in work.order(step).split(CONFIG.batch_size)):
        items = part.tolist()
        starts = [work.questions.starts[item] for item in items]
        tokens, mask, labels = collate([work.questions.ids[item] for item in items], starts)
        found.append({"input_ids": tokens, "attention_mask": mask, "labels": labels})
    return found


def trainer(work: LanguageModel, in_turn: InTurn) -> Trainer:
    """Of the same adapter, optimizer and batches."""
    from peft import LoraConfig, get_peft_model

    adapter = LoraConfig(
        r=CONFIG.rank, lora_alpha=int(CONFIG.alpha), target_modules=CONFIG.target_list, task_type="CAUSAL_LM"
    )
    model = get_peft_model(load_model(work.base), adapter)
    assert work.initial is not None
    adapters.write_adapter(model, work.initial)
    arguments = TrainingArguments(
        output_dir=str(unfinished.place()),
        per_device_train_batch_size=1,  # batch of 4 questions
        gradient_accumulation_steps=CONFIG.accumulation,
        max_steps=work.steps,
        learning_rate=float(work.config.lr),
        lr_scheduler_type="linear",
        adam_beta1=ADAM_ARGUMENTS["betas"][0],
        adam_beta2=ADAM_ARGUMENTS["betas"][1],
        adam_epsilon=ADAM_ARGUMENTS["eps"],
        weight_decay=CONFIG.weight_decay,
        max_grad_norm=CONFIG.clip_norm,
        optim="adamw_torch_fused",
        logging_steps=1,
        report_to=[],
        save_strategy="no",
        use_cpu=True,
        disable_tqdm=True,
        remove_unused_columns=False,
    )

    def first(features: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
        return features[0]

    data: Any = batches(work)
    return InOrder(model, arguments, data_collator=first, train_dataset=data, callbacks=[in_turn])


def conversion() -> dict[str, float]:
    """Seconds until SmolLM2 is found, with an empty cache and once more."""
    command = [sys.executable, "-m", "benchmarks.lora_step", "find"]
    with tempfile.TemporaryDirectory() as cache:
        environment = {**os.environ, "NFA_CACHE": cache}
        found = [
            float(
                subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout.split()[-1]
            )
            for _ in range(2)
        ]
    first, again = (round(seconds, 1) for seconds in found)
    return {"finding the base model, first time: s": first, "finding the base model, again: s": again}


def find() -> None:
    """Print the seconds that it takes in this process."""
    started = time.perf_counter()
    find_base(CONFIG.base_model)
    print(time.perf_counter() - started)


def main() -> None:
    """Time, compare and record."""
    work = workload()
    in_turn = InTurn(next_step(work))
    trainer(work, in_turn).train()
    seconds = {way: of_way[1:] for way, of_way in in_turn.seconds.items()}
    apart = [abs(a - b) for a, b in zip(*in_turn.losses.values(), strict=True)]
    tokens = statistics.mean(work.positions(step) for step in range(1, work.steps))
    results: dict[str, Any] = {f"{way}: s per step": round(statistics.median(of), 2) for way, of in seconds.items()}
    results["this / Trainer"] = round(ratio(seconds["this"], seconds["Trainer"]), 3)
    results["largest difference of a step's loss"] = f"{max(apart):.1e}"
    results |= conversion()
    notes = [
        f"SmolLM2-135M-Instruct, rank {CONFIG.rank} at {len(CONFIG.target_list)} kinds of layers, "
        f"{CONFIG.accumulation} batches of {CONFIG.batch_size} questions per step ({tokens:,.0f} tokens on average), "
        f"AdamW, float32; medians of {ROUNDS} steps, one of each in turn. Trainer is that of transformers with "
        "PEFT, with the same batches, start and optimizer, without saving.",
        "Both losses are means over the answer tokens of a step. The loop of nfa leaves out the logits before the "
        "first answer of a batch.",
        "The base model is a GGUF file that is converted once. The process had already imported everything.",
    ]
    store("lora_step", "A training step of LoRA fine-tuning", results, notes)


if __name__ == "__main__":
    if sys.argv[1:] == ["find"]:
        find()
    else:
        main()
