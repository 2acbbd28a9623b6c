"""`tiny`: a byte-level Llama of 115,200 parameters, trained from scratch on English docstrings and kept.

A real pretrained base model for tests and first tries: nothing is downloaded.
"""

import hashlib
import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Int
from torch import Tensor

from nfa import seeding
from nfa.console import stage
from nfa.registry.families.language.base import files
from nfa.registry.families.language.base.quiet import quiet
from nfa.registry.families.language.base.tiny_settings import TinySettings
from nfa.registry.folders import cache_folder

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

TEXT = Path(__file__).parent.parent / "stdlib" / "text.txt"
SPECIAL = ("<pad>", "</s>", "<unk>")  # ids 0, 1, 2, as ByT5 has them; byte b is 3 + b
PAD, EOS, UNKNOWN = range(3)
VOCABULARY = len(SPECIAL) + 256
DEFAULT = TinySettings()
HELD_OUT = 20  # every 20th paragraph is not trained on


def folder(settings: TinySettings = DEFAULT) -> Path:
    """The model's folder in the cache, trained where this text, settings and torch have not been seen before."""
    text = TEXT.read_bytes()
    key = hashlib.sha256(text + json.dumps([asdict(settings), torch.__version__]).encode()).hexdigest()
    return files.made_once(cache_folder("base-models") / f"tiny-{key[:16]}", lambda inner: _make(text, settings, inner))


def _make(text: bytes, settings: TinySettings, inner: Path) -> None:
    stage("base model", f"training tiny, a byte-level Llama, on {len(text):,} bytes of English; done once, 5–10 s")
    train, held_out = paragraphs(text)
    model = trained(train, settings)
    loss = held_out_loss(model, held_out, settings.length)
    with quiet():
        model.save_pretrained(inner)
        tokenizer().save_pretrained(inner)
    stage("base model", f"tiny reaches {loss:.2f} nats per byte on held-out text")


def paragraphs(text: bytes) -> tuple[Int[Tensor, " train"], Int[Tensor, " held_out"]]:
    """Token ids of the paragraphs, each ended by EOS; every 20th is held out."""
    parts = text.strip().split(b"\n\n")
    held_out = parts[::HELD_OUT]
    return _ids([part for place, part in enumerate(parts) if place % HELD_OUT]), _ids(held_out)


def _ids(parts: list[bytes]) -> Int[Tensor, " t"]:
    ended = [np.append(np.frombuffer(part, dtype=np.uint8).astype(np.int64) + len(SPECIAL), EOS) for part in parts]
    return torch.from_numpy(np.concatenate(ended))


def trained(ids: Int[Tensor, " t"], settings: TinySettings) -> "PreTrainedModel":
    """A model that predicts the next of `ids`: AdamW, linear warm-up, cosine to 0, gradients clipped to norm 1.

    The same on one machine for the same `ids` and `settings`, whatever the number of threads and the state of the
    global generators, neither of which is changed.
    """
    with _one_thread(), seeding.untouched():
        torch.manual_seed(settings.seed)
        model = untrained(settings)
        optimizer = torch.optim.AdamW(
            model.parameters(), lr=settings.lr, betas=(0.9, 0.95), weight_decay=settings.weight_decay, fused=True
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _share(step, settings))
        random = seeding.generator(settings.seed, "tiny")
        for _ in range(settings.steps):
            starts = torch.randint(len(ids) - settings.length, (settings.batch, 1), generator=random)
            loss = _loss(model, ids[starts + torch.arange(settings.length + 1)])
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
    return model


def untrained(settings: TinySettings) -> "PreTrainedModel":
    """The Llama of `settings` with tied embeddings and initial weights from torch's global generator."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=settings.hidden,
        intermediate_size=settings.intermediate,
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.heads,
        num_key_value_heads=settings.key_value_heads,
        initializer_range=settings.deviation,
        rope_parameters={"rope_type": "default", "rope_theta": settings.rope_theta},
        tie_word_embeddings=True,
        pad_token_id=PAD,
        bos_token_id=None,
        eos_token_id=EOS,
        use_cache=False,
        dtype="float32",
    )
    with quiet():
        return LlamaForCausalLM(config)


def held_out_loss(model: "PreTrainedModel", ids: Int[Tensor, " t"], length: int) -> float:
    """Mean cross-entropy in nats a byte of pieces of `length` + 1 ids, the first of each given."""
    pieces = ids[: len(ids) // (length + 1) * (length + 1)].view(-1, length + 1)
    with _one_thread(), torch.no_grad():
        return float(_loss(model, pieces))


def _loss(model: "PreTrainedModel", ids: Int[Tensor, "n t"]) -> Tensor:
    return F.cross_entropy(model(ids[:, :-1]).logits.flatten(0, 1), ids[:, 1:].flatten())


def _share(step: int, settings: TinySettings) -> float:
    """Return the factor of the learning rate at a step, counted from 0."""
    return min(1.0, (step + 1) / settings.warm_up) * (1 + math.cos(math.pi * step / settings.steps)) / 2


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def tokenizer() -> "PreTrainedTokenizerFast":
    """Return a tokenizer with one token per UTF-8 byte and the ids of `ByT5Tokenizer(extra_ids=0)`, without adding EOS.

    Made with `tokenizers`: ByT5's own is Python code, one and a half to four times slower.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {token: place for place, token in enumerate((*SPECIAL, *_letters()))}
    inner = Tokenizer(models.BPE(vocabulary, []))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    inner.decoder = decoders.ByteLevel()
    pad, eos, unknown = SPECIAL
    make: Callable[..., PreTrainedTokenizerFast] = PreTrainedTokenizerFast
    return make(
        tokenizer_object=inner, pad_token=pad, eos_token=eos, unk_token=unknown, clean_up_tokenization_spaces=False
    )


def _letters() -> list[str]:
    """Return the letter of each byte in byte-level vocabularies: itself if printable, else the next one from 256 on."""
    seen = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    others = iter(range(256, 512))
    return [chr(byte if byte in seen else next(others)) for byte in range(256)]
