"""Fine-tunings of language models: questions and base model read and checked before a run is opened, and runs again."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from nfa.console import stage
from nfa.errors import Refusal
from nfa.figures.training_analysis import Series
from nfa.parallel import World
from nfa.registry import stored_runs, tracking
from nfa.registry.families.language import questions, report
from nfa.registry.families.language.answer_tokens import encode
from nfa.registry.families.language.base.models import find_base, load_tokenizer
from nfa.registry.families.language.config import HALF, TrainLoraConfig
from nfa.registry.families.language.factors import StartFactors, factors_of
from nfa.registry.families.language.fitting import Sides, trained
from nfa.registry.families.language.questions import QuestionData
from nfa.registry.families.language.ready import INITIAL, Asked, ReadyToTune, memory_of, stored_config
from nfa.registry.families.language.session import LanguageSession
from nfa.registry.families.language.target_modules import check_targets
from nfa.registry.families.language.workload import LanguageModel
from nfa.registry.families.protocol import FamilyTraining, Ids, Ready, StoredTraining
from nfa.registry.families.stored import check_same
from nfa.registry.folders import typed_folder
from nfa.registry.machine import check_memory
from nfa.registry.stopwatch import Stopwatch
from nfa.registry.tracking import TrackedRun
from nfa.seeding import generator
from nfa.workloads.devices import check_precision, choose_device


class LanguageTraining(FamilyTraining):
    """Trainings of causal language models, with a low-rank adapter or in full."""

    def read(self, config: TrainLoraConfig, clock: Stopwatch, found: QuestionData | None = None) -> Asked:
        check_precision(config.precision, choose_device(config.device))
        with clock.section("data"):
            data = found or questions.load(config.data, config.val_data)
        with clock.section("base model"):
            base = find_base(config.base_model)
            stage("base", f"{base.name}, {base.parameters:,} parameters, {base.digest[:12]}")
        with clock.section("data"):
            return Asked(data, base, encode(data.pairs, load_tokenizer(base.folder), config.max_length))

    def prepare(
        self, config: TrainLoraConfig, data: Asked, run: TrackedRun | None = None, ids: Ids | None = None
    ) -> ReadyToTune:
        config = config.resolved()
        factors = _stored_start(config, data, run) if run else factors_of(config, data.base)
        initial = factors.adapter if factors else None
        sides = check_targets(config, data.base, initial)
        ids = stored_runs.example_ids(run.run_id) if run else ids or _examples(config, data)
        if factors:
            config = dataclasses.replace(config, factors=factors.run_id)
        workload = LanguageModel(config, data.base, data.encoded, ids, choose_device(config.device), initial)
        _check_memory(workload, sides)
        workload.config.check_updates(workload.steps)
        return ReadyToTune(config, workload, data, ids, factors)

    def lines(self, ready: Ready) -> Iterator[tuple[str, str]]:
        asked, ids = ready.data, ready.example_ids
        text = f"{asked.questions.name}: {len(ids['train'])} questions to train on, {len(ids['val'])} held out"
        if asked.encoded.too_long:
            text += f"; {len(asked.encoded.too_long)} longer than max_length={ready.config.max_length} are left out"
        if asked.questions.empty:
            text += f"; {len(asked.questions.empty)} with an empty question or answer are left out"
        yield "data", text
        if asked.questions.leaked:
            leaked = f"{asked.questions.leaked} held-out questions are also in the training file"
            yield "notice", f"{leaked}, so eval/loss is biased towards low values"

    def check_layers(self, configs: Sequence[TrainLoraConfig], data: Callable[[Any], Asked]) -> None:
        for config in configs:
            if config.init != "svd":
                check_targets(config, data(config).base, None)

    def stored(self, config: TrainLoraConfig, ready: Ready) -> dict[str, Any]:
        return stored_config(config, ready.data)

    def session(self, run: TrackedRun, ready: Ready, clock: Stopwatch, world: World) -> LanguageSession:  # noqa: ARG002
        return LanguageSession(run, ready, clock)

    def report_seeds(self, parent: TrackedRun, series: Mapping[str, Series], seeds: Sequence[int], title: str) -> None:
        report.report_seeds(parent, series, seeds, title)

    def rebuild(self, run: StoredTraining) -> LanguageModel:
        train = TrainLoraConfig(**run.config["train"])
        moved = {name: _moved(getattr(train, name), run.data_dir) for name in ("data", "val_data")}
        data = questions.load(moved["data"], moved["val_data"])
        check_same(data.name, data.digest(), run.config["data"]["digest"])
        base = find_base(train.base_model)
        check_same(f"base model {train.base_model}", base.digest, run.config["base"]["digest"])
        encoded = encode(data.pairs, load_tokenizer(base.folder), train.max_length)
        initial = None if train.init == "full" else run.tensors(INITIAL)
        return LanguageModel(train, base, encoded, run.example_ids, run.device, initial)


def _stored_start(config: TrainLoraConfig, asked: Asked, run: TrackedRun) -> StartFactors | None:
    """Return the adapter at step 0 of a resumed run; raise `Refusal` if its data or base model have changed."""
    stored = tracking.config(run.run_id)
    check_same(asked.questions.name, asked.questions.digest(), stored["data"]["digest"])
    check_same(f"base model {config.base_model}", asked.base.digest, stored["base"]["digest"])
    if config.init == "full":
        return None
    return StartFactors(config.factors, tracking.get_tensors(run.run_id, INITIAL)[0], stored["factors"])


def _examples(config: TrainLoraConfig, asked: Asked) -> dict[str, list[int]]:
    """Return the questions that are trained on and held out."""
    data = asked.questions
    trained = data.train_items if data.train_items is not None else len(data.pairs)
    beyond = range(config.max_items, trained) if config.max_items else ()
    left_out = sorted({*asked.encoded.too_long, *data.empty, *beyond})
    ids = split(len(data.pairs), data.train_items, left_out, config.split_seed)
    return {**ids, "val": ids["val"][: config.eval_items or None]}


def _moved(path: str, data_dir: str | None) -> str:
    """Return the path of a file of that name in `data_dir`; names of data sets are unchanged."""
    if not data_dir or not Path(path).suffix:
        return path
    return str(typed_folder(data_dir) / Path(path).name)


def _check_memory(workload: LanguageModel, sides: Sides) -> None:
    config, base = workload.config, workload.base
    sizes = f"base_model={base.name} batch_size={config.batch_size} in {config.base_precision}"
    remedy = "a smaller batch_size (and a larger accumulation), max_length or base model"
    if config.base_precision not in HALF and config.init != "full" and not config.residual:
        remedy += ", or base_precision=bfloat16"
    check_memory(trained(config, sides), sizes, remedy, more=memory_of(workload))


def split(n: int, train_items: int | None, excluded: Sequence[int], seed: int) -> dict[str, list[int]]:
    """The content of a run's example_ids.json for n items: "train" and "val" sorted, "test" empty, "probe".

    The first `train_items` are for training and the others for validation; with None a tenth of them all is drawn for
    validation, rounded down, at least 1 and at most half. Items in `excluded` are nowhere; leaving one out changes the
    draw of at most one other. "probe" is the training items in an order drawn by the seed. `Refusal` where nothing is
    left to train on or to validate on.
    """
    left_out = set(excluded)
    if train_items is None:
        order = torch.randperm(n, generator=generator(seed, "split")).tolist()
        kept = [item for item in order if item not in left_out]
        size = min(max(1, len(kept) // 10), len(kept) // 2)
        val, train = sorted(kept[:size]), sorted(kept[size:])
    else:
        train, val = (
            [item for item in part if item not in left_out] for part in (range(train_items), range(train_items, n))
        )
    if not train or not val:
        raise Refusal(
            f"{n} items, {len(left_out)} of them too long, empty or beyond max_items: {len(train)} to train on, "
            f"{len(val)} to validate on",
            "at least one of each",
            "more items, or a larger max_length or max_items",
        )
    places = torch.randperm(len(train), generator=generator(seed, "probe")).tolist()
    return {"train": train, "val": val, "test": [], "probe": [train[place] for place in places]}
