"""`WatchCallback` in a Hugging Face Trainer: what it records of a language model, whole or with LoRA."""

import copy
import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import mlflow
import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

import nfa
from nfa.errors import Refusal
from nfa.learned import learned_state, load_learned
from nfa.observe.answers import answers, check_answers
from nfa.registry import tracking
from nfa.registry.tracking.sources import find_sources
from nfa.sinks import Memory
from nfa.workloads.packed_examples import PROBE_EXAMPLES, unpacked
from nfa.workloads.probe import Probe
from tests.support.analyses import series, undrawn
from tests.support.snapshots import assert_same
from tests.support.stores import Store
from tests.support.toy_models import seeded

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


def trained(model: nn.Module, folder: Path, *callbacks: Any, resume: str | None = None, **more: Any) -> nn.Module:
    trainer(model, folder, *callbacks, **more).train(resume_from_checkpoint=resume)
    return model


def trainer(model: nn.Module, folder: Path, *callbacks: Any, steps: int = STEPS, **more: Any) -> Any:
    transformers = pytest.importorskip("transformers")
    inputs, _ = examples(16)
    rows = [{"input_ids": row, "labels": row} for row in inputs["input_ids"]]
    options = {"save_strategy": "no", **more}
    arguments = transformers.TrainingArguments(
        output_dir=str(folder),
        max_steps=steps,
        per_device_train_batch_size=4,
        learning_rate=0.01,
        use_cpu=True,
        report_to="none",
        disable_tqdm=True,
        seed=3,
        **options,
    )
    return transformers.Trainer(model, arguments, train_dataset=rows, eval_dataset=rows[:4], callbacks=list(callbacks))


def recording(loss: Any, count: int, **options: Any) -> Any:
    """An `WatchCallback`; its import is that of transformers."""
    from nfa.callbacks.huggingface import WatchCallback

    return WatchCallback(loss, examples(count), **options)


def stopping(step: int) -> Any:
    """Ends a training after a step as a person would."""
    transformers = pytest.importorskip("transformers")

    class Stopping(transformers.TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
            if state.global_step == step:
                raise KeyboardInterrupt

    return Stopping()


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
    assert all(f"{site}/agop_nfm_chance" in found for site in PLAIN)
    assert run.json(run_id, "alignment.json")["conventions"]["directions"] == "2 random, seed 1717"  # of many outputs
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


def test_without_a_run_the_callback_writes_to_the_sink_that_it_is_given(tmp_path: Path) -> None:
    memory = Memory()
    trained(language_model(), tmp_path, recording(next_word, 6, sink=memory, relations="h_vs_m", schedule="0,3"))
    assert list(memory.series[f"{PLAIN[0]}/h_vs_m"]) == [0, 3]
    assert {*memory.texts} == {"alignment.json", "similarities.csv"}


def test_refusals_come_before_the_first_step(store: Store, tmp_path: Path) -> None:
    model = language_model()
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    with pytest.raises(Refusal, match="a watch without an active MLflow run"):
        trained(model, tmp_path, recording(next_word, 6))
    assert store.runs() == []
    reduced = recording(lambda logits, words: next_word(logits, words).mean(), 6)
    with mlflow.start_run(), pytest.raises(Refusal, match="losses of shape"):
        trained(model, tmp_path, reduced)
    assert all(torch.equal(model.state_dict()[name], weight) for name, weight in before.items())


# ---- a training that is resumed


WATCHED = {"relations": "agop_nfm_init_removed,h_vs_m", "sites": "*.down_proj", "every": 1, "checkpoints": True}
SAVING = {"save_strategy": "steps", "save_steps": 4, "steps": 8}
SITE = "model.layers.1.mlp.down_proj"


def test_a_training_that_is_resumed_in_its_run_has_the_values_of_one_that_was_never_cut(
    store: Store, tmp_path: Path
) -> None:
    """Cut at step 6 of 8 and resumed from the checkpoint of step 4: a step that is logged twice is an error."""
    with undrawn(), mlflow.start_run():
        trained(language_model(), tmp_path / "whole", recording(next_word, 6, **WATCHED), **SAVING)
    (whole,) = store.runs()
    with undrawn(), mlflow.start_run() as run, suppress(KeyboardInterrupt):
        trained(language_model(), tmp_path, recording(next_word, 6, **WATCHED), stopping(6), **SAVING)
    last = str(tmp_path / "checkpoint-4")
    with undrawn(), mlflow.start_run(run_id=run.info.run_id):
        trained(language_model(), tmp_path, recording(next_word, 6, **WATCHED), resume=last, **SAVING)
    assert tracking.epochs(run.info.run_id) == list(range(9))
    expected, found = series(store, whole), series(store, run.info.run_id)
    assert list(found[f"{SITE}/agop_nfm_init_removed"]) == list(range(1, 9))
    assert found.keys() == expected.keys()
    for key, of_key in expected.items():
        assert found[key] == pytest.approx(of_key, abs=1e-6), key


def test_resumed_in_a_run_of_its_own_the_series_of_the_start_end_and_a_line_says_so(
    run: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained(language_model(), tmp_path, **SAVING)
    last = str(tmp_path / "checkpoint-4")
    trained(language_model(), tmp_path, recording(next_word, 6, **WATCHED), resume=last, **SAVING)
    found = recorded(run)
    assert list(found[f"{SITE}/h_vs_m"]) == [4, 5, 6, 7, 8]
    assert not [key for key in found if "init_removed" in key]
    assert "the run continues from step 4 and has no stored initial weights" in capsys.readouterr().out


@pytest.mark.parametrize("again", [False, True])
def test_a_trainer_that_has_failed_and_is_kept_as_in_a_notebook_hinders_none_that_goes_on_in_its_run(
    again: bool, run: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    failed = trainer(language_model(), tmp_path, recording(next_word, 6, **WATCHED), stopping(6), **SAVING)
    with suppress(KeyboardInterrupt):
        failed.train()
    failed.remove_callback(next(one for one in failed.callback_handler.callbacks if type(one).__name__ == "Stopping"))
    other = failed if again else trainer(language_model(), tmp_path, recording(next_word, 6, **WATCHED), **SAVING)
    other.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
    assert list(recorded(run)[f"{SITE}/agop_nfm_init_removed"]) == list(range(1, 9))
    assert "was watched before ended after step 6 without reporting it" in capsys.readouterr().out


def test_two_callbacks_of_one_trainer_are_refused_under_one_name(run: Store, tmp_path: Path) -> None:
    with pytest.raises(Refusal, match="prefix='', which another watch of this run uses"):
        trained(language_model(), tmp_path, *(recording(next_word, 6, **WATCHED) for _ in range(2)))
    assert not recorded(run).get(f"{SITE}/h_vs_m", {}).get(1)


# ---- the last step


@pytest.mark.parametrize(("early", "last"), [(False, 7), (True, 4)])
def test_the_last_step_has_the_weights_that_training_ended_with_though_the_best_ones_are_loaded(
    early: bool, last: int, run: Store, tmp_path: Path
) -> None:
    transformers, kept = pytest.importorskip("transformers"), {}

    class Keeping(transformers.TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
            kept[state.global_step] = copy.deepcopy(learned_state(kwargs["model"]))

    often = {
        f"{what}_{name}": value for what in ("eval", "save") for name, value in (("strategy", "steps"), ("steps", 2))
    }
    best = {"load_best_model_at_end": True, "metric_for_best_model": "eval_loss", "greater_is_better": True}
    callback = recording(next_word, 6, relations="h_vs_m", every=100, checkpoints=True)
    callbacks = [Keeping(), callback, *([transformers.EarlyStoppingCallback(1)] if early else [])]
    model = trained(language_model(), tmp_path, *callbacks, steps=7, **often, **best)
    assert_same(learned_state(model), kept[2])
    assert tracking.epochs(run.runs()[0]) == [0, last]
    assert_same(tracking.get_tensors(run.runs()[0], tracking.stored_path(run.runs()[0], last))[0], kept[last])
    assert list(recorded(run)["probe/loss"]) == [0, last]


@pytest.mark.usefixtures("run")
def test_weights_that_were_replaced_behind_the_callback_are_not_recorded_as_the_last_step(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    transformers, memory = pytest.importorskip("transformers"), Memory()

    class Averaging(transformers.TrainerCallback):
        def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
            kwargs["model"].lm_head.requires_grad_(False).weight.mul_(0.5).requires_grad_()

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
            control.should_training_stop = False

    callback = recording(next_word, 6, relations="h_vs_m", every=100, sink=memory)
    trained(language_model(), tmp_path, Averaging(), callback, num_train_epochs=1, steps=-1)
    assert list(memory.series["probe/loss"]) == [0]
    said = "the weights were replaced after step 4, by the best ones or by an average, so the last step is not recorded"
    assert said in capsys.readouterr().out


# ---- options


def test_by_default_records_are_as_far_apart_as_five_percent_of_the_time_allows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("nfa.watching.pace.SHARE", 1e-9)  # no step is so long
    memory = Memory()
    trained(language_model(), tmp_path, recording(next_word, 6, relations="h_vs_m", sink=memory), steps=7)
    assert list(memory.series["probe/loss"]) == [0, 7]
    assert "every=auto records " in capsys.readouterr().out


def test_every_study_is_recorded_at_the_first_step_and_the_last_however_short_training_is(
    run: Store, tmp_path: Path
) -> None:
    callback = recording(next_word, 6, studies="alignment,directions,flow", sites="*.down_proj", prefix="lm/")
    trained(language_model(), tmp_path, callback)
    found = recorded(run)
    for key in ("lm/gradient/mean_cosine", f"lm/flow/{SITE}/grad_rms", f"lm/{SITE}/h_vs_m", "lm/probe/loss"):
        assert list(found[key]) == [0, STEPS], key
    assert run.tags(run.runs()[0])["nfa.coverage.lm"]


def batch_of_dicts() -> Any:
    inputs, labels = examples(6)
    return {**inputs, "labels": labels}


def list_of_dicts() -> Any:
    inputs, labels = examples(6)
    rows = zip(inputs["input_ids"], inputs["attention_mask"], labels, strict=True)
    return [{"input_ids": words, "attention_mask": mask, "labels": label} for words, mask, label in rows]


@pytest.mark.parametrize("probe", [batch_of_dicts, list_of_dicts])
def test_a_probe_may_be_what_the_trainer_takes(probe: Callable[[], Any], run: Store, tmp_path: Path) -> None:
    from nfa.callbacks.huggingface import WatchCallback

    options = {"relations": "h_vs_m", "schedule": 0, "chance": False}  # the data set's size is known of a list only
    trained(language_model(), tmp_path, WatchCallback(next_word, probe(), **options))
    trained(language_model(), tmp_path, recording(next_word, 6, prefix="pair/", **options))
    found = recorded(run)
    assert {key.removeprefix("pair/"): value for key, value in found.items() if key.startswith("pair/")} == {
        key: pytest.approx(value, abs=1e-6) for key, value in found.items() if not key.startswith("pair/")
    }


@pytest.mark.parametrize("studies", ["directions,flow", "alignment"])
def test_in_bfloat16_training_is_bitwise_the_same_and_everything_is_recorded(
    studies: str, run: Store, tmp_path: Path
) -> None:
    callback = recording(next_word, 6, studies=studies, every=1)
    seen = trained(language_model(), tmp_path, callback, bf16=True)
    alone = trained(language_model(), tmp_path, bf16=True)
    for name, weight in alone.state_dict().items():
        assert torch.equal(seen.state_dict()[name], weight), name
    found = recorded(run)
    expected = {"alignment": f"{SITE}/h_vs_m"}.get(studies, f"flow/{SITE}/grad_rms")
    assert list(found[expected]) == [0, 1, 2, 3]


# ---- checkpoints


@pytest.mark.parametrize(("make", "bf16"), [
    (language_model, False),
    (with_lora, True),
    pytest.param(language_model, True, marks=pytest.mark.slow),
    pytest.param(with_lora, False, marks=pytest.mark.slow),
])  # fmt: skip
@pytest.mark.usefixtures("run")
def test_checkpoints_are_loaded_into_a_model_that_is_built_again_and_it_answers_as_stored(
    make: Callable[[], nn.Module], bf16: bool, tmp_path: Path
) -> None:
    """The answers are those of the weights' own type, whatever autocast the Trainer puts around forward."""
    model = trained(make(), tmp_path, recording(next_word, 9, studies="flow", checkpoints=True, every=1), bf16=bf16)
    (source,) = find_sources("latest")
    assert tracking.epochs(source.info.run_id) == [0, 1, 2, 3]
    tensors, metadata = tracking.get_tensors(source.info.run_id, tracking.stored_path(source.info.run_id, STEPS))
    assert {name for name in tensors if "lora" in name} == {name for name in learned_state(model) if "lora" in name}
    rebuilt = make()
    load_learned(rebuilt, tensors)
    asked = unpacked(*tracking.get_tensors(source.info.run_id, PROBE_EXAMPLES))
    probe = Probe(rebuilt, next_word, *examples(9))
    assert len(asked) == 8
    stored = json.loads(metadata["answers"])
    assert len(stored) == 256
    check_answers(stored, answers(probe, rebuilt, asked), "step 3")
