"""Language models so small that everything about them can be computed: random Llamas, questions of a few tokens."""

import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nfa import seeding
from nfa.registry.families.language.answer_tokens import Encoded, encode
from nfa.registry.families.language.base import tiny
from nfa.registry.families.language.base.models import BaseModel, find_base, load_tokenizer
from nfa.registry.families.language.base.quiet import quiet
from nfa.registry.families.language.base.tiny_settings import TinySettings
from nfa.registry.families.language.config import TrainLoraConfig
from nfa.registry.families.language.questions import Pair
from nfa.registry.families.language.workload import LanguageModel
from tests.support.llamas import saved

SETTINGS = TinySettings(hidden=16, layers=2, heads=2, key_value_heads=1, intermediate=24, deviation=0.3)
RANK, ALPHA = 3, 5.0
WORDS = 11  # the vocabulary whose every output is differentiated
LENGTHS = [(3, 2), (7, 4), (2, 1), (5, 4), (4, 3), (9, 2), (2, 2)]  # tokens of questions and of answers
OPTIONS: dict[str, Any] = {"rank": RANK, "alpha": ALPHA, "base_precision": "float64", "seed": 3}


@cache
def _kept() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory()


def base_folder() -> Path:
    """A random Llama of two blocks and its tokenizer of bytes, where `find_base` finds them."""
    folder = Path(_kept().name) / "bytes"
    if not folder.exists():
        with seeding.untouched(), quiet():
            torch.manual_seed(1)
            saved(folder, tiny.untrained(SETTINGS))
    return folder


def tiny_language(init: str = "random", **options: Any) -> LanguageModel:
    """The workload of `train_lora` on 24 questions of bytes; no factor of the adapter is zero."""
    base = find_base(str(base_folder()))
    pairs = [Pair((("user", f"{'ab' * (place % 5)}{place}?"),), "yes" * (1 + place % 4)) for place in range(24)]
    train = list(range(20))
    ids = {"train": train, "val": list(range(20, 24)), "test": [], "probe": train[::-1]}
    config = TrainLoraConfig(base_model=str(base.folder), init=init, **{**OPTIONS, **options})
    tokenizer = load_tokenizer(base.folder)
    initial = None if init == "full" else _factors(LanguageModel(config, base, encode([], tokenizer, 99), {}))
    return LanguageModel(config, base, encode(pairs, tokenizer, 99), ids, initial=initial)


@cache
def _few_words() -> BaseModel:
    folder = Path(_kept().name) / "words"
    with seeding.untouched(), quiet():
        torch.manual_seed(2)
        model = tiny.untrained(SETTINGS)
        model.resize_token_embeddings(WORDS, mean_resizing=False)
        model.save_pretrained(folder)
    return BaseModel("words", folder, "0" * 64, sum(weight.numel() for weight in model.parameters()))


def language_of_words(
    init: str = "random", lengths: Sequence[tuple[int, int]] = LENGTHS, **options: Any
) -> LanguageModel:
    """The same on questions and answers of these lengths in 11 words, in float64 unless said otherwise."""
    random = torch.Generator().manual_seed(4)
    ids = [torch.randint(WORDS, (sum(both),), generator=random) for both in lengths]
    questions = Encoded(ids, [question for question, _ in lengths], [])
    every = list(range(len(lengths)))
    config = TrainLoraConfig(init=init, **{**OPTIONS, **options})
    split = {"train": every, "val": every, "test": [], "probe": every}
    initial = None if init == "full" else _factors(LanguageModel(config, _few_words(), questions, split))
    return LanguageModel(config, _few_words(), questions, split, initial=initial)


def _factors(workload: LanguageModel) -> dict[str, Tensor]:
    """A random adapter, as one is after some training."""
    workload.model()
    random = torch.Generator().manual_seed(5)
    assert workload.initial is not None
    return {
        name: 0.3 * torch.randn(value.shape, generator=random).to(value) for name, value in workload.initial.items()
    }
