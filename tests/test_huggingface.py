"""`AlignmentCallback` in a Hugging Face Trainer: what it records of a language model, whole or with LoRA."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import mlflow
import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F
from analyses import series, undrawn
from stores import Store
from torch import Tensor
from toys import seeded

import nfa
from nfa.errors import Refusal

WORDS, LENGTH, STEPS = 24, 5, 3
PROJECTIONS = [f"self_attn.{part}_proj" for part in "qkvo"] + [f"mlp.{part}_proj" for part in ("gate", "up", "down")]
PLAIN = [f"model.layers.{index}.{name}" for index in (0, 1) for name in PROJECTIONS]


def language_model() -> nn.Module:
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        vocab_size=WORDS,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        attention_dropout=0.1,
        tie_word_embeddings=False,
    )
    return seeded(transformers.LlamaForCausalLM, config)


def with_lora() -> nn.Module:
    """B starts from random numbers, so that the adapters have gradients on both sides from the first step."""

    def build() -> nn.Module:
        peft = pytest.importorskip("peft")
        options = {"r": 2, "lora_dropout": 0.1, "target_modules": ["q_proj", "v_proj"], "init_lora_weights": False}
        return peft.get_peft_model(language_model(), peft.LoraConfig(**options))

    return seeded(build)


def examples(count: int) -> tuple[dict[str, Tensor], Tensor]:
    """Inputs, and the words that follow in each."""
    words = torch.randint(WORDS, (count, LENGTH + 1), generator=torch.Generator().manual_seed(0))
    return {"input_ids": words[:, :-1], "attention_mask": torch.ones(count, LENGTH, dtype=torch.int64)}, words[:, 1:]


def next_word(logits: Tensor, words: Tensor) -> Tensor:
    return F.cross_entropy(logits.transpose(1, 2), words, reduction="none").mean(dim=1)


def trained(model: nn.Module, folder: Path, *callbacks: Any, steps: int = STEPS) -> nn.Module:
    transformers = pytest.importorskip("transformers")
    inputs, _ = examples(16)
    rows = [{"input_ids": row, "labels": row} for row in inputs["input_ids"]]
    arguments = transformers.TrainingArguments(
        output_dir=str(folder),
        max_steps=steps,
        per_device_train_batch_size=4,
        learning_rate=0.01,
        use_cpu=True,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
        seed=3,
    )
    transformers.Trainer(model, arguments, train_dataset=rows, callbacks=list(callbacks)).train()
    return model


def recording(loss: Any, count: int, **options: Any) -> Any:
    """An `AlignmentCallback`; its import is that of transformers."""
    from nfa.huggingface import AlignmentCallback

    return AlignmentCallback(loss, examples(count), **options)


@pytest.fixture
def run(store: Store) -> Iterator[Store]:
    """The store in which this process has an active run; nothing is drawn."""
    with undrawn(), mlflow.start_run():
        yield store


def recorded(store: Store) -> Mapping[str, Mapping[int, float]]:
    (run_id,) = store.runs()
    return series(store, run_id)


def test_every_projection_is_a_site_and_the_scheduled_steps_are_recorded(run: Store, tmp_path: Path) -> None:
    trained(language_model(), tmp_path, recording(next_word, 6, schedule="0,2-3"))
    found, (run_id,) = recorded(run), run.runs()
    assert {key.rpartition("/")[0] for key in found} == {*PLAIN, "probe"}
    assert list(found["model.layers.1.mlp.down_proj/h_vs_m"]) == [0, 2, 3]
    assert list(found["model.layers.0.self_attn.q_proj/agop_nfm_init_removed"]) == [2, 3]
    assert set(found["probe/loss"]) == {0, 2, 3}
    assert found["probe/loss"][3] != found["probe/loss"][0]
    assert all(f"{site}/agop_nfm_se" in found for site in PLAIN)  # there are many outputs
    assert run.json(run_id, "alignment.json")["conventions"]["directions"] == "2 random, seed 1717"
    assert run.artifact(run_id, "similarities.csv").exists()


def test_training_is_bitwise_the_same_as_without_and_values_are_those_of_nfa_watch(run: Store, tmp_path: Path) -> None:
    relations = "agop_nfm,g_vs_h,h_vs_m"
    seen = trained(language_model(), tmp_path, recording(next_word, 6, relations=relations, every=1))
    found = recorded(run)
    alone = trained(language_model(), tmp_path)
    for name, weight in alone.state_dict().items():
        assert torch.equal(seen.state_dict()[name], weight), name
    with nfa.watch(alone, next_word, examples(6), relations=relations, prefix="alone/") as watch:
        values = {key.removeprefix("alone/"): value for key, value in watch.record(STEPS).items()}
    assert {key: found[key][STEPS] for key in values} == pytest.approx(values, abs=1e-6)


def test_adapted_layers_are_sites_with_the_weight_that_they_have_together(run: Store, tmp_path: Path) -> None:
    callback = recording(next_word, 6, relations="nfm_stable_rank,agop_nfm_init_removed", every=1)
    model = trained(with_lora(), tmp_path, callback)
    found = recorded(run)
    sites = {key.rpartition("/")[0] for key in found} - {"probe"}
    assert not [site for site in sites if "lora" in site or "base_layer" in site]
    adapted = [f"base_model.model.model.layers.{index}.self_attn.{part}_proj" for index in (0, 1) for part in "qv"]
    assert {key.rpartition("/")[0] for key in found if "init_removed" in key} == set(adapted)  # the others stay
    for site in adapted:
        layer = model.get_submodule(site)
        together = layer.base_layer.weight + layer.get_delta_weight("default")
        squares = torch.linalg.svdvals(together.detach().double()) ** 2
        expected = float(squares.square().sum() / squares.max().square())
        assert found[f"{site}/nfm_stable_rank"][STEPS] == pytest.approx(expected, rel=1e-5)


def test_refusals_come_before_the_first_step(store: Store, tmp_path: Path) -> None:
    model = language_model()
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    with pytest.raises(Refusal, match="no active MLflow run"):
        trained(model, tmp_path, recording(next_word, 6))
    assert store.runs() == []
    reduced = recording(lambda logits, words: next_word(logits, words).mean(), 6)
    with mlflow.start_run(), pytest.raises(Refusal, match="losses of shape"):
        trained(model, tmp_path, reduced)
    assert all(torch.equal(model.state_dict()[name], weight) for name, weight in before.items())
