"""A fine-tuning made ready: questions and base model read, and everything checked before a run is opened."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nfa.console import stage
from nfa.registry import stored_runs, tracking
from nfa.registry.families.language import questions
from nfa.registry.families.language.answer_tokens import Encoded, encode
from nfa.registry.families.language.base.models import BaseModel, find_base, load_tokenizer
from nfa.registry.families.language.checks import check_targets
from nfa.registry.families.language.config import HALF, TrainLoraConfig
from nfa.registry.families.language.factors import StartFactors, factors_of
from nfa.registry.families.language.fitting import Sides, trained
from nfa.registry.families.language.question_splits import split
from nfa.registry.families.language.questions import QuestionData
from nfa.registry.families.language.workload import DTYPES, LanguageModel
from nfa.registry.families.protocol import Ids, Ready
from nfa.registry.families.stored import check_same
from nfa.registry.folders import typed_folder
from nfa.registry.machine import check_memory
from nfa.registry.stopwatch import Stopwatch
from nfa.registry.tracking import TrackedRun
from nfa.registry.training.config_json import training_config
from nfa.workloads.devices import check_precision, choose_device

INITIAL = "initial_adapter.safetensors"
LOGIT_COPIES = 4  # in float32: the logits, their softmax, its gradient, and what is cast
KEPT_WIDTHS = 24  # activations of a block that a backward pass needs, in widths of the model


@dataclass(frozen=True)
class Asked:
    """Questions, as text and as tokens, and the base model that is asked them."""

    questions: QuestionData
    base: BaseModel
    encoded: Encoded

    @property
    def facts(self) -> dict[str, Any]:
        """What config.json says of the questions."""
        return {
            "name": self.questions.name,
            "digest": self.questions.digest(),
            "items": len(self.questions.pairs),
            "too_long": len(self.encoded.too_long),
            "empty": len(self.questions.empty),
            "leaked": self.questions.leaked,
        }


@dataclass(frozen=True)
class ReadyToTune(Ready):
    """With the factors that the adapter starts from, where these are of another run."""

    factors: StartFactors | None


def read(config: TrainLoraConfig, clock: Stopwatch, found: QuestionData | None) -> Asked:
    """Questions (`found`, or those that are named) with their base model."""
    check_precision(config.precision, choose_device(config.device))
    with clock.section("data"):
        data = found or questions.load(config.data, config.val_data)
    with clock.section("base model"):
        base = find_base(config.base_model)
        stage("base", f"{base.name}, {base.parameters:,} parameters, {base.digest[:12]}")
    with clock.section("data"):
        return Asked(data, base, encode(data.pairs, load_tokenizer(base), config.max_length))


def prepare(config: TrainLoraConfig, asked: Asked, run: TrackedRun | None, ids: Ids | None) -> ReadyToTune:
    """The workload, with the examples and the start that `run` has stored; `Refusal` for what cannot be trained."""
    config = config.resolved()
    factors = _stored_start(config, asked, run) if run else factors_of(config, asked.base)
    initial = factors.adapter if factors else None
    sides = check_targets(config, asked.base, initial)
    ids = stored_runs.example_ids(run.run_id) if run else ids or _examples(config, asked)
    if factors:
        config = dataclasses.replace(config, factors=factors.run_id)
    workload = LanguageModel(config, asked.base, asked.encoded, ids, choose_device(config.device), initial)
    _check_memory(workload, sides)
    return ReadyToTune(config, workload, asked, ids, factors)


def _stored_start(config: TrainLoraConfig, asked: Asked, run: TrackedRun) -> StartFactors | None:
    """The adapter at step 0 of a continued run; `Refusal` where its data or base model are others by now."""
    stored = tracking.config(run.run_id)
    check_same(asked.questions.name, asked.questions.digest(), stored["data"]["digest"])
    check_same(f"base model {config.base_model}", asked.base.digest, stored["base"]["digest"])
    if config.init == "full":
        return None
    return StartFactors(config.factors, tracking.get_tensors(run.run_id, INITIAL)[0], stored["factors"])


def _examples(config: TrainLoraConfig, asked: Asked) -> dict[str, list[int]]:
    """Which questions are trained on and which are held out."""
    data = asked.questions
    trained = data.train_items if data.train_items is not None else len(data.pairs)
    beyond = range(config.max_items, trained) if config.max_items else ()
    left_out = sorted({*asked.encoded.too_long, *data.empty, *beyond})
    ids = split(len(data.pairs), data.train_items, left_out, config.split_seed)
    return {**ids, "val": ids["val"][: config.eval_items or None]}


def lines(ready: Ready) -> Iterator[tuple[str, str]]:
    """What is trained on, and what is left out."""
    asked, ids = ready.data, ready.example_ids
    text = f"{asked.questions.name}: {len(ids['train'])} questions to train on, {len(ids['val'])} held out"
    if asked.encoded.too_long:
        text += f"; {len(asked.encoded.too_long)} longer than max_length={ready.config.max_length} are left out"
    if asked.questions.empty:
        text += f"; {len(asked.questions.empty)} with an empty question or answer are left out"
    yield "data", text
    if asked.questions.leaked:
        leaked = f"{asked.questions.leaked} held-out questions are also in the training file"
        yield "notice", f"{leaked}: eval/loss is too low"


def stored_config(config: TrainLoraConfig, asked: Asked) -> dict[str, Any]:
    """Content of the `config.json` of a fine-tuning, before there is a model."""
    train = {**dataclasses.asdict(config), "resume": ""}
    return training_config("train_lora", "lora", TrainLoraConfig, train, asked.facts)


def rebuild(
    stored: Mapping[str, Any],
    ids: Ids,
    device: torch.device,
    data_dir: str | None,
    tensors: Callable[[str], Mapping[str, Tensor]],
) -> LanguageModel:
    """The workload of a run's config.json."""
    train = TrainLoraConfig(**stored["train"])
    moved = {name: _moved(getattr(train, name), data_dir) for name in ("data", "val_data")}
    data = questions.load(moved["data"], moved["val_data"])
    check_same(data.name, data.digest(), stored["data"]["digest"])
    base = find_base(train.base_model)
    check_same(f"base model {train.base_model}", base.digest, stored["base"]["digest"])
    encoded = encode(data.pairs, load_tokenizer(base), train.max_length)
    return LanguageModel(train, base, encoded, ids, device, None if train.init == "full" else tensors(INITIAL))


def _moved(path: str, data_dir: str | None) -> str:
    """Where a file of that name is in `data_dir`; names of data sets stay."""
    if not data_dir or not Path(path).suffix:
        return path
    return str(typed_folder(data_dir) / Path(path).name)


def memory_of(workload: LanguageModel) -> float:
    """Bytes that a training takes, about: the base, what is trained, and the activations of the longest batch."""
    from transformers import AutoConfig

    shape = AutoConfig.from_pretrained(workload.base.folder).get_text_config()
    config = workload.config
    longest = max(len(workload.questions.ids[item]) for split in ("train", "val") for item in workload.ids(split))
    tokens = longest * min(config.batch_size, len(workload.ids("train")))
    weights = workload.base.parameters * DTYPES[config.base_precision].itemsize
    activations = KEPT_WIDTHS * shape.hidden_size * shape.num_hidden_layers + LOGIT_COPIES * shape.vocab_size
    return float(weights + 4 * tokens * activations)


def _check_memory(workload: LanguageModel, sides: Sides) -> None:
    config, base = workload.config, workload.base
    sizes = f"base_model={base.name} batch_size={config.batch_size} in {config.base_precision}"
    remedy = "a smaller batch_size (and a larger accumulation), max_length or base model"
    if config.base_precision not in HALF and config.init != "full" and not config.residual:
        remedy += ", or base_precision=bfloat16"
    check_memory(trained(config, sides), sizes, remedy, more=memory_of(workload))
