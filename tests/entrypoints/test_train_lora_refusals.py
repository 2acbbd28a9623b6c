"""What `train_lora` refuses: exit 2, one message, and no run."""

import json
import os
import shutil
import time
from collections import namedtuple
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from nfa import seeding
from nfa.maths.bfloat16 import has_bfloat16_units
from nfa.registry.families.language import family
from nfa.registry.families.language.base.quiet import quiet
from tests.support.fine_tunings import MODULES, RANK, Place, factor_run, factors_for, used_place
from tests.support.refusals import Refused, assert_refused_before_anything_heavy
from tests.support.stores import Store


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with used_place(Place.made(tmp_path_factory.mktemp("refused"))) as made:
        yield made


@pytest.fixture
def refused(
    store: Store, place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """What is said to the tiny fine-tuning with some parameters; no run was made by it."""
    ending = Refused("train_lora", monkeypatch, capsys)

    def ended(**changed: Any) -> str:
        before = store.runs()
        said = ending(place.words(**changed))
        assert store.runs() == before
        return said

    return ended


# ---- words, before anything heavy


WORDS = {
    "svd without factors": ({"init": "svd"}, "init=svd without factors", "id of a run of lora_svd", "factors=<run id>"),
    "factors without svd": ({"factors": "abc"}, "factors=abc with init=random", "factors for init=svd", "init=svd"),
    "dropout of pissa": (
        {"init": "pissa", "dropout": 0.1}, "dropout=0.1 with init=pissa", "no dropout", "dropout=0",
    ),
    "dropout of a residual start": (
        {"init": "svd", "factors": "abc", "dropout": 0.05},
        "dropout=0.05 with init=svd start=residual", "no dropout", "dropout=0",
    ),
    "half precision under a residual start": (
        {"init": "svd", "factors": "abc", "base_precision": "bfloat16"},
        "base_precision=bfloat16 with init=svd start=residual", "float32 or float64", "base_precision=float32",
    ),
    "half precision in full": (
        {"init": "full", "base_precision": "float16"}, "base_precision=float16 with init=full", "float32", "float32",
    ),
    "dropout in full": ({"init": "full", "dropout": 0.1}, "dropout=0.1 with init=full", "adapters", "dropout=0"),
    "unknown init": ({"init": "loftq"}, "init='loftq'", "random, svd, pissa, olora", "init="),
    "unknown start": ({"start": "cold"}, "start='cold'", "residual, warm", "start="),
    "schedule": ({"schedule": "0-"}, "schedule '0-'", "", "write, for example"),
    "schedule backwards": ({"schedule": "0,9-3"}, "schedule '0,9-3'", "a ≤ b", "correct '9-3'"),
    "rank": ({"rank": 0}, "rank=0", "≥ 1", "rank"),
    "alpha": ({"alpha": 0}, "alpha=0.0", "> 0", "alpha"),
    "no targets": ({"targets": " , "}, "targets=' , '", "comma-separated", "targets=q_proj"),
    "rate": ({"lr": "fast"}, "lr='fast'", "> 0", "lr=0.1"),
    "no number": ({"steps": "ten"}, "steps='ten'", "≥ 0", "steps=0"),
}  # fmt: skip


@pytest.mark.parametrize("case", WORDS)
def test_words_that_do_not_fit_are_refused(case: str, refused: Callable[..., str]) -> None:
    asked, got, allowed, remedy = WORDS[case]
    said = refused(**asked)
    assert got in said.split("  allowed: ")[0], said
    assert allowed in said.split("  allowed: ")[1].split("\n  do: ")[0], said
    assert remedy in said.split("\n  do: ")[1], said


def test_words_are_refused_before_anything_heavy_is_loaded(tmp_path: Path) -> None:
    argv = "--init pissa --dropout 0.1"
    assert_refused_before_anything_heavy("train_lora", argv, "dropout=0.1 with init=pissa", tmp_path)


@pytest.mark.skipif(has_bfloat16_units(torch.device("cpu")), reason="this processor has bfloat16 units")
def test_bfloat16_without_units_for_it_is_refused(refused: Callable[..., str]) -> None:
    said = refused(precision="bfloat16")
    assert "precision=bfloat16 on cpu" in said
    assert "do: precision=float32" in said


# ---- questions


GOOD = {"question": "Why?", "answer": "So."}
QUESTIONS = {
    "missing fields": ([GOOD, {"question": "Why?"}], "1 of 2 items\n    line 2: fields question"),
    "empty answer": ([GOOD, {"question": "Why?", "answer": " "}], "line 2: answer is empty"),
    "no text": ([GOOD, {"question": 3, "answer": "So."}], "line 2: question is a number, not text"),
    "one item": ([GOOD], "1 items, 0 of them too long, empty or beyond max_items: 1 to train on, 0 to validate on"),
    "all too long": ([{**GOOD, "answer": "So" * 99}] * 5, "5 items, 5 of them too long"),
}


@pytest.mark.parametrize("case", QUESTIONS)
def test_questions_that_cannot_be_trained_on_are_refused(
    case: str, refused: Callable[..., str], tmp_path: Path
) -> None:
    items, got = QUESTIONS[case]
    file = tmp_path / "bad.jsonl"
    file.write_text("\n".join(map(json.dumps, items)))
    assert got in refused(data=file).split("  allowed: ")[0]


def test_a_file_that_is_not_there_is_refused(refused: Callable[..., str], tmp_path: Path) -> None:
    assert "absent.jsonl" in refused(data=tmp_path / "absent.jsonl")
    assert "val_data" in refused(val_data=tmp_path / "absent.jsonl")


# ---- targets and adapters


def test_targets_that_fit_no_module_are_refused_with_those_that_would(refused: Callable[..., str]) -> None:
    said = refused(targets="q_proj,query_key_value")
    assert "targets='query_key_value', which no module fits" in said
    assert "allowed: down_proj, gate_proj, k_proj, lm_head, o_proj, q_proj, up_proj, v_proj" in said
    assert "targets='lm_head', whose weights are tied to another module's" in refused(targets="lm_head")


@pytest.mark.parametrize("init", ["pissa", "olora"])
def test_a_rank_beyond_the_weights_own_is_refused_for_parts_of_them(init: str, refused: Callable[..., str]) -> None:
    said = refused(init=init, rank=9)
    assert f"init={init} with rank=9, more than model.layers.0.self_attn.k_proj has (8)" in said
    assert "do: rank=8" in said


def test_an_odd_rank_is_refused_for_an_orthogonal_start(refused: Callable[..., str]) -> None:
    said = refused(init="orthogonal", rank=3)
    assert "init=orthogonal with rank=3" in said
    assert "do: rank=4" in said


def test_olora_of_conv1d_layers_is_refused(refused: Callable[..., str], tmp_path: Path) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    from nfa.registry.families.language.base import tiny

    with seeding.untouched(), quiet():
        config = GPT2Config(
            vocab_size=tiny.VOCABULARY, n_positions=99, n_embd=8, n_layer=1, n_head=2, bos_token_id=1, eos_token_id=1
        )
        GPT2LMHeadModel(config).save_pretrained(tmp_path / "gpt2")
        tiny.tokenizer().save_pretrained(tmp_path / "gpt2")
    said = refused(base_model=tmp_path / "gpt2", init="olora", targets="c_attn")
    assert "whose layers are Conv1D" in said
    assert "do: init=pissa" in said


# ---- factors


def test_factors_of_another_model_or_rank_or_of_none_are_refused(
    refused: Callable[..., str], store: Store, place: Place
) -> None:
    strange, other = factor_run(place, digest="f" * 64), factor_run(place, rank=2)
    said = refused(init="svd", factors=strange)
    assert f"factors={strange}, made for {place.folder / 'base'} (ffffffffffff)" in said
    assert place.base().digest[:12] in said.split("  allowed: ")[1]
    said = refused(init="svd", factors=other)
    assert f"factors={other} of rank 2 with rank={RANK}" in said
    assert "do: rank=2" in said
    store.artifact(other, "svd_factors_rank2.safetensors").unlink()
    assert "(it holds no factors)" in refused(init="svd", factors=other)
    assert "run id 'cafe'" in refused(init="svd", factors="cafe")


def test_factors_of_other_modules_are_refused_with_both_lists(refused: Callable[..., str], place: Place) -> None:
    wrong = {name.replace("model.", "transformer.", 1): tensor for name, tensor in factors_for(place).items()}
    said = refused(init="svd", factors=factor_run(place, wrong))
    got = said.split("  allowed: ")[0]
    assert f"targets without factors: {', '.join(sorted(MODULES)[:8])} … (14)" in got
    assert "factors without a target: transformer.layers.0." in got
    said = refused(init="svd", factors=factor_run(place), targets="q_proj")
    assert "targets without factors: none; factors without a target: model.layers.0.mlp.down_proj" in said


def test_factors_of_other_sizes_are_refused(refused: Callable[..., str], place: Place) -> None:
    factors = factors_for(place)
    name = f"{MODULES[3]}.lora_A.weight"
    factors[name] = factors[name][:, :5].contiguous()
    assert f"{name} with shape [4, 5]" in refused(init="svd", factors=factor_run(place, factors))


# ---- the machine


def test_what_does_not_fit_into_memory_is_refused(refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sysconf", lambda name: 1 if name == "SC_PHYS_PAGES" else 4096)
    assert "rank=4 for 14 modules of base_model=" in refused()
    monkeypatch.setattr(family, "check_memory", lambda *_, **__: None)
    said = refused()
    assert "batch_size=2 in float32 (about " in said
    assert "a smaller batch_size" in said
    assert "or base_precision=bfloat16" in said
    assert "bfloat16" not in refused(init="pissa")


def test_what_does_not_fit_onto_the_disk_is_refused_and_the_run_says_so(
    store: Store, place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(1, 1, 2**20))
    said = Refused("train_lora", monkeypatch, capsys)(place.words())
    assert "1 MB free" in said
    (run_id,) = store.runs()
    assert store.tags(run_id)["nfa.state"] == "failed"
    assert store.checkpoints(run_id) == {}


def test_a_hub_id_without_a_network_is_refused_within_seconds(
    refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    started = time.monotonic()
    said = refused(base_model="someone/something")
    assert "base_model='someone/something' (not a local folder, and not downloadable from the hub" in said
    assert "check the id and the network" in said
    assert time.monotonic() - started < 20
