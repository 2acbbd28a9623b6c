"""Fine-tune a language model on questions and answers as a tracked run."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nfa.console import stage
from nfa.registry import tracking
from nfa.registry.families.language import questions
from nfa.registry.families.language.answer_tokens import Encoded, encode
from nfa.registry.families.language.base.models import BaseModel, find_base, load_tokenizer
from nfa.registry.families.language.checks import check_targets
from nfa.registry.families.language.config import HALF, TrainLoraConfig
from nfa.registry.families.language.factors import StartFactors, factors_of
from nfa.registry.families.language.fitting import Sides, trained
from nfa.registry.families.language.question_splits import split
from nfa.registry.families.language.questions import QuestionData
from nfa.registry.families.language.session import LanguageTraining
from nfa.registry.families.language.workload import DTYPES, LanguageModel
from nfa.registry.families.rebuild import INITIAL, check_same
from nfa.registry.machine import check_memory
from nfa.registry.stopwatch import Stopwatch
from nfa.registry.tracking import TrackedRun
from nfa.registry.training.settings import check_precision, taken_up
from nfa.registry.training.time_spent import timed
from nfa.workloads.devices import choose_device

LOGIT_COPIES = 4  # in float32: the logits, their softmax, its gradient, and what is cast
KEPT_WIDTHS = 24  # activations of a block that a backward pass needs, in widths of the model


@dataclass(frozen=True)
class Prepared:
    """Everything of a training that has been checked: its workload, where its factors are from, facts of its data."""

    workload: LanguageModel
    factors: StartFactors | None
    data: Mapping[str, Any]

    def variant(self, config: TrainLoraConfig, factors: StartFactors | None) -> "Prepared":
        """The same for another training on these questions with this base."""
        known = self.workload
        adapter = factors.adapter if factors else None
        workload = LanguageModel(config, known.base, known.questions, known.example_ids, known.device, adapter)
        return Prepared(workload, factors, self.data)


def train_lora(config: TrainLoraConfig, clock: Stopwatch, data: QuestionData | None = None) -> None:
    """Fine-tune, or continue the run `config.resume`; `data` are its questions, where they have been read."""
    run = None
    if config.resume:
        run, config = taken_up(config)
    ready = prepared(config, clock, run, data)
    with run or tracking.open_run("train_lora", "lora", name=config.run_name) as opened:
        train_one(opened, ready, clock)
    stage("done", opened.link)


def train_one(run: TrackedRun, ready: Prepared, clock: Stopwatch) -> None:
    """Train, or go on training, in `run` up to the last step, and report."""
    job = LanguageTraining(run, ready.workload, ready.factors, ready.data, clock)
    job.describe()
    with timed(run, clock):
        job.restore()
        job.train()
        job.finish()


def prepared(
    config: TrainLoraConfig, clock: Stopwatch, run: TrackedRun | None = None, data: QuestionData | None = None
) -> Prepared:
    """The workload on questions (`data`, or those that are named) and a base model that have been checked.

    `Refusal` for what cannot be trained.
    """
    config = config.resolved()
    device = choose_device(config.device)
    check_precision(config.precision, device)
    with clock.section("data"):
        data = data or questions.load(config.data, config.val_data)
    with clock.section("base model"):
        base = find_base(config.base_model)
        stage("base", f"{base.name}, {base.parameters:,} parameters, {base.digest[:12]}")
        factors = _stored_start(config, data, base, run) if run else factors_of(config, base)
        initial = factors.adapter if factors else None
        sides = check_targets(config, base, initial)
    with clock.section("data"):
        encoded = encode(data.pairs, load_tokenizer(base), config.max_length)
    ids = _examples(config, data, encoded, run)
    if factors:
        config = dataclasses.replace(config, factors=factors.run_id)
    workload = LanguageModel(config, base, encoded, ids, device, initial)
    _check_memory(workload, sides)
    facts = {
        "name": data.name,
        "digest": data.digest(),
        "items": len(data.pairs),
        "too_long": len(encoded.too_long),
        "empty": len(data.empty),
        "leaked": data.leaked,
    }
    return Prepared(workload, factors, facts)


def _stored_start(config: TrainLoraConfig, data: QuestionData, base: BaseModel, run: TrackedRun) -> StartFactors | None:
    """The adapter at step 0 of a continued run; `Refusal` where its data or base model are others by now."""
    stored = tracking.config(run.run_id)
    check_same(data.name, data.digest(), stored["data"]["digest"])
    check_same(f"base model {config.base_model}", base.digest, stored["base"]["digest"])
    if config.init == "full":
        return None
    return StartFactors(config.factors, tracking.get_tensors(run.run_id, INITIAL)[0], stored["factors"])


def _examples(
    config: TrainLoraConfig, data: QuestionData, encoded: Encoded, run: TrackedRun | None
) -> dict[str, list[int]]:
    """The stored split of a continued run, or a new one; said in a line."""
    if run and tracking.has_artifact(run.run_id, "example_ids.json"):
        ids = tracking.example_ids(run.run_id)
    else:
        trained = data.train_items if data.train_items is not None else len(data.pairs)
        beyond = range(config.max_items, trained) if config.max_items else ()
        left_out = sorted({*encoded.too_long, *data.empty, *beyond})
        ids = split(len(data.pairs), data.train_items, left_out, config.split_seed)
        ids["val"] = ids["val"][: config.eval_items or None]
    text = f"{data.name}: {len(ids['train'])} questions to train on, {len(ids['val'])} held out"
    if encoded.too_long:
        text += f"; {len(encoded.too_long)} longer than max_length={config.max_length} are left out"
    if data.empty:
        text += f"; {len(data.empty)} with an empty question or answer are left out"
    stage("data", text)
    if data.leaked:
        stage("notice", f"{data.leaked} held-out questions are also in the training file: eval/loss is too low")
    return ids


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
