"""What a finished fine-tuning leaves behind, whatever its adapter started from."""

import csv
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import get_linear_schedule_with_warmup

from nfa import reference
from nfa.errors import DivergedError
from nfa.registry import stored_runs
from nfa.registry.families.language import scores as answer_scores
from nfa.registry.families.language.adapters import put_in
from nfa.registry.families.language.base.models import find_base, load_model
from nfa.registry.families.language.compute import training_operations
from nfa.registry.families.language.config import TrainLoraConfig
from nfa.registry.families.language.report import stored_answers
from nfa.registry.families.language.scores import score_answers
from tests.support.fine_tunings import (
    ALPHA,
    ARMS,
    CHECKPOINTS,
    EVALUATED,
    HELD_OUT,
    ITEMS,
    MODULES,
    RANK,
    STEPS,
    TOO_LONG,
    TRAINED,
    Arms,
    factors_for,
    logits_of,
    used_place,
    write_questions,
)
from tests.support.stores import Store, used

TRAIN = ("train/step_loss", "train/grad_norm", "train/learning_rate")
BLOCKS = ("block_0", "block_1")
ADAPTED = [name for name in ARMS if name != "full"]
RESIDUAL = ("svd residual", "pissa", "olora")


@pytest.fixture
def here(arms: Arms, monkeypatch: pytest.MonkeyPatch) -> Iterator[Arms]:
    """In the store of the arms."""
    with used(arms.store, monkeypatch), used_place(arms.place):
        yield arms


def base_in(here: Arms, dtype: torch.dtype = torch.float64) -> Any:
    return load_model(here.place.base(), dtype)


def held_out_loss(model: Any, workload: Any) -> float:
    """Mean over answer tokens, item by item, without padding."""
    items, starts = workload.questions.ids, workload.questions.starts
    val = workload.ids("val")
    logits = [logits_of(model, items[item].tolist()) for item in val]
    return float(reference.token_mean(logits, [items[item] for item in val], [starts[item] for item in val]))


# ---- the run


@pytest.mark.parametrize("name", ARMS)
def test_run_is_finished_and_carries_the_tags_of_the_contract(name: str, arms: Arms) -> None:
    run_id = arms.ids[name]
    tags = arms.store.tags(run_id)
    assert arms.store.status(run_id) == "FINISHED"
    assert (tags["nfa.state"], tags["nfa.entrypoint"], tags["nfa.workload"]) == ("finished", "train_lora", "lora")
    losses = arms.series(name)["eval/loss"]
    assert int(tags["nfa.best_epoch"]) == min(CHECKPOINTS, key=lambda step: losses[step])


@pytest.mark.parametrize("name", ARMS)
def test_metric_series_have_the_keys_and_steps_of_the_contract(name: str, arms: Arms) -> None:
    found = {key: sorted(of_key) for key, of_key in arms.series(name).items()}
    expected = {key: list(range(1, STEPS + 1)) for key in TRAIN}
    expected |= {"eval/loss": EVALUATED, "nfa/flops": EVALUATED}
    expected |= {f"flow/{key}": EVALUATED[1:] for key in ("grad_norm", *(f"{b}/update_ratio" for b in BLOCKS))}
    assert found == expected
    assert all(math.isfinite(value) for of_key in arms.series(name).values() for value in of_key.values())


def test_learning_rates_are_those_of_transformers(arms: Arms) -> None:
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=0.02)
    schedule = get_linear_schedule_with_warmup(optimizer, 0, STEPS)
    rates = arms.series("random")["train/learning_rate"]
    for step in range(1, STEPS + 1):
        assert rates[step] == pytest.approx(schedule.get_last_lr()[0], rel=1e-12)
        assert rates[step] == pytest.approx(0.02 * (1 - (step - 1) / STEPS))
        optimizer.step()
        schedule.step()


@pytest.mark.parametrize("name", ARMS)
def test_it_learns(name: str, arms: Arms) -> None:
    losses = arms.series(name)["eval/loss"]
    assert losses[STEPS] < losses[0] - 0.05


@pytest.mark.parametrize("name", ARMS)
def test_the_artifacts_are_those_of_the_contract_and_no_others(name: str, arms: Arms) -> None:
    init = ARMS[name].get("init", "random")
    folder = arms.store.artifact(arms.ids[name])
    found = {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}
    expected = {f"checkpoints/step_{step:06d}.safetensors" for step in CHECKPOINTS}
    expected |= {"config.json", "example_ids.json", "results.json", "timing.json", f"training_log_{init}.csv"}
    expected |= {"arrays/eval_losses.npy", "arrays/eval_losses.json", "state/latest.pt", "series.npz"}
    final = {"model.safetensors", "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"}
    if init != "full":
        expected |= {"initial_adapter.safetensors"}
        final = {"adapter_config.json", "adapter_model.safetensors"}
    expected |= {f"final_model_{init}/{file}" for file in final}
    if name == "random":
        expected |= {"plots/loss_curves_random.png", "plots/loss_curves_random.pdf", "plots/preview.png"}
        assert len((folder / "plots/loss_curves_random.png").read_bytes()) > 10_000
    assert found == expected


def test_runs_of_different_inits_share_no_name_of_an_output(arms: Arms) -> None:
    """So that both can be written into one folder: a fault of existing programs."""
    names = {}
    for name in ("random", "svd residual", "pissa", "full"):
        folder = arms.store.artifact(arms.ids[name])
        names[name] = {
            str(file.relative_to(folder)) for file in folder.rglob("*_*_*") if "checkpoints" not in str(file)
        }
        names[name] = {path for path in names[name] if path.startswith(("final_model", "training_log", "plots"))}
    every = [path for found in names.values() for path in found]
    assert len(every) == len(set(every))


@pytest.mark.parametrize("name", ARMS)
def test_training_log_has_the_columns_of_the_specification_and_the_values_of_the_series(name: str, arms: Arms) -> None:
    init = ARMS[name].get("init", "random")
    text = arms.store.artifact(arms.ids[name], f"training_log_{init}.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(text.splitlines()))
    assert list(rows[0]) == ["step", "epoch", "init_method", "loss", "learning_rate", "grad_norm", "eval_loss"]
    assert [int(row["step"]) for row in rows] == list(range(STEPS + 1))
    assert {row["init_method"] for row in rows} == {init}
    assert [float(row["epoch"]) for row in rows] == pytest.approx([step / 5 for step in range(STEPS + 1)])
    series = arms.series(name)
    keys = {"loss": TRAIN[0], "grad_norm": TRAIN[1], "learning_rate": TRAIN[2], "eval_loss": "eval/loss"}
    for column, key in keys.items():
        found = {int(row["step"]): float(row[column]) for row in rows if row[column]}
        assert found == series[key], column
    assert "nan" not in text


def test_results_say_the_same_as_the_series(arms: Arms) -> None:
    for name, options in ARMS.items():
        results, series = arms.store.json(arms.ids[name], "results.json"), arms.series(name)
        losses = series["eval/loss"]
        best = min(losses, key=lambda step: losses[step])
        assert results == {
            "init": options.get("init", "random"),
            "start": options.get("start"),
            "steps": STEPS,
            "initial_loss": losses[0],
            "final_loss": losses[STEPS],
            "best_loss": losses[best],
            "best_step": best,
            "operations": series["nfa/flops"][STEPS],
            "held_out": HELD_OUT,
        }


# ---- its configuration and data


@pytest.mark.parametrize("name", ARMS)
def test_config_describes_base_data_and_adapted_modules(name: str, here: Arms) -> None:
    stored, base = here.store.json(here.ids[name], "config.json"), here.place.base()
    options = here.place.options(**ARMS[name]) | ({"factors": here.factors} if "start" in ARMS[name] else {})
    assert TrainLoraConfig(**stored["train"]) == TrainLoraConfig(**options).resolved()
    expected = {"name": base.name, "digest": base.digest, "parameters": base.parameters, "own_dropout": {}}
    assert stored["base"] == expected
    assert (stored["entrypoint"], stored["workload"]) == ("train_lora", "lora")
    assert stored["modules"] == MODULES
    assert stored["residual"] is (name in RESIDUAL)
    assert stored["data"]["items"] == ITEMS
    assert stored["data"]["leaked"] == 0
    facts = {"run_id", "rank", "alpha", "base_name", "base_digest", "source_run_id", "circular", "init_flops"}
    assert stored["factors"].keys() == (facts if "start" in ARMS[name] else set())
    params = here.store.params(here.ids[name])
    assert set(params) == set(TrainLoraConfig.__dataclass_fields__) - {"resume"}


def test_questions_that_are_too_long_are_counted_and_nowhere(here: Arms, capsys: pytest.CaptureFixture[str]) -> None:
    stored = here.store.json(here.ids["random"], "config.json")
    ids = here.store.json(here.ids["random"], "example_ids.json")
    assert stored["data"]["too_long"] == len(TOO_LONG)
    assert {split: len(of) for split, of in ids.items()} == {
        "train": TRAINED,
        "val": HELD_OUT,
        "test": 0,
        "probe": TRAINED,
    }
    assert sorted(ids["train"] + ids["val"]) == sorted(set(range(ITEMS)) - set(TOO_LONG))
    assert sorted(ids["probe"]) == ids["train"]
    here.place.workload()
    assert f"{len(TOO_LONG)} longer than max_length=70 are left out" in capsys.readouterr().out


def test_data_are_logged_as_dataset_inputs(arms: Arms) -> None:
    query = (
        "SELECT d.name, d.digest, t.value FROM inputs i JOIN datasets d ON d.dataset_uuid = i.source_id "
        "JOIN input_tags t ON t.input_uuid = i.input_uuid WHERE i.destination_id = ?"
    )
    rows = arms.store.rows(query, arms.ids["random"])
    assert sorted(split for _, _, split in rows) == ["train", "val"]
    assert {name for name, _, _ in rows} == {"questions.jsonl"}
    assert len({digest for _, digest, _ in rows}) == 2
    assert sorted(rows) == sorted(arms.store.rows(query, arms.ids["svd warm"]))


def test_every_arm_has_the_same_examples(arms: Arms) -> None:
    first, *others = (arms.store.json(run_id, "example_ids.json") for run_id in arms.ids.values())
    assert all(other == first for other in others)


# ---- where it starts


@pytest.mark.parametrize("name", [name for name in ARMS if name != "svd warm"])
def test_the_first_evaluation_is_the_base_s_loss(name: str, here: Arms) -> None:
    _, workload = stored_runs.load_checkpoint(here.ids[name], 0)
    expected = held_out_loss(base_in(here), workload)
    rel = 1e-12 if ARMS[name].get("base_precision") == "float64" else 1e-5
    assert here.series(name)["eval/loss"][0] == pytest.approx(expected, rel=rel)


@pytest.mark.parametrize("init", ["pissa", "svd"])
def test_in_float64_a_residual_start_is_the_base_to_twelve_digits(init: str, here: Arms) -> None:
    factors = {"factors": here.factors} if init == "svd" else {}
    workload = here.place.workload(init=init, base_precision="float64", **factors)
    expected = held_out_loss(base_in(here), workload)
    found = score_answers(workload, workload.model(), workload.ids("val"))
    assert found.loss == pytest.approx(expected, rel=1e-12)


def test_a_warm_start_is_the_base_with_the_update(here: Arms) -> None:
    _, workload = stored_runs.load_checkpoint(here.ids["svd warm"], 0)
    model = base_in(here)
    put_in(model, factors_for(here.place), 3.0 / RANK)
    found = here.series("svd warm")["eval/loss"][0]
    assert found == pytest.approx(held_out_loss(model, workload), rel=1e-5)
    assert found != pytest.approx(here.series("random")["eval/loss"][0], rel=1e-4)


@pytest.mark.parametrize("name", ["svd residual", "svd warm"])
def test_factors_are_those_of_their_run_for_this_alpha(name: str, arms: Arms) -> None:
    """(alpha / rank) B A stays the update whatever alpha this adapter has; all modules got theirs."""
    found = load_file(arms.store.artifact(arms.ids[name], "initial_adapter.safetensors"))
    given = factors_for(arms.place)
    assert found.keys() == given.keys() == {f"{name}.lora_{part}.weight" for name in MODULES for part in "AB"}
    for module in MODULES:
        keys = f"{module}.lora_B.weight", f"{module}.lora_A.weight"
        update = reference.lora_update(found[keys[0]], found[keys[1]], ALPHA, RANK)
        expected = reference.lora_update(given[keys[0]], given[keys[1]], 3, RANK)
        torch.testing.assert_close(update, expected, rtol=1e-5, atol=1e-7)


def test_the_same_seed_has_the_same_batches_whatever_the_start(arms: Arms) -> None:
    """At the first step random and residual models are the same function of the same questions."""
    first = {name: arms.series(name)["train/step_loss"][1] for name in ARMS}
    for name in (*RESIDUAL, "full"):
        assert first[name] == pytest.approx(first["random"], rel=1e-5), name
    assert first["svd warm"] != pytest.approx(first["random"], rel=1e-4)
    flops = [arms.series(name)["nfa/flops"] for name in ADAPTED]
    assert all(other == flops[0] for other in flops)


# ---- what it stores


@pytest.mark.parametrize("name", ARMS)
def test_checkpoints_give_the_logged_losses_again(name: str, here: Arms) -> None:
    for step in CHECKPOINTS:
        model, workload = stored_runs.load_checkpoint(here.ids[name], step)
        found = score_answers(workload, model, workload.ids("val"))
        assert found.loss == pytest.approx(here.series(name)["eval/loss"][step], rel=1e-7)


@pytest.mark.parametrize("name", ARMS)
def test_checkpoints_hold_what_is_trained_and_nothing_else(name: str, arms: Arms) -> None:
    for tensors in arms.store.checkpoints(arms.ids[name]).values():
        if name == "full":
            expected = {f"{module}.weight" for module in MODULES}
        else:
            expected = {f"base_model.model.{module}.lora_{p}.default.weight" for module in MODULES for p in "AB"}
        assert tensors.keys() == expected


@pytest.mark.parametrize("name", ADAPTED)
def test_the_final_adapter_on_the_pristine_base_is_the_last_checkpoint(name: str, here: Arms) -> None:
    from peft import PeftModel

    model, workload = stored_runs.load_checkpoint(here.ids[name], STEPS)
    folder = here.store.artifact(here.ids[name], f"final_model_{ARMS[name].get('init', 'random')}")
    loaded = PeftModel.from_pretrained(base_in(here), folder).double()
    item = workload.questions.ids[workload.ids("val")[0]].tolist()
    expected = logits_of(model, item)
    torch.testing.assert_close(
        logits_of(loaded, item), expected.double(), rtol=0, atol=1e-5 * float(expected.abs().max())
    )
    told = json.loads((folder / "adapter_config.json").read_text())
    assert told["r"] == RANK * (2 if name in RESIDUAL else 1)
    assert told["lora_alpha"] / told["r"] == ALPHA / RANK
    assert Path(told["base_model_name_or_path"]) == here.place.folder / "base"


def test_the_final_model_of_a_full_fine_tuning_is_one_of_transformers(here: Arms) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = here.store.artifact(here.ids["full"], "final_model_full")
    model, workload = stored_runs.load_checkpoint(here.ids["full"], STEPS)
    loaded = AutoModelForCausalLM.from_pretrained(folder)
    item = workload.questions.ids[workload.ids("val")[0]].tolist()
    torch.testing.assert_close(logits_of(loaded, item), logits_of(model, item))
    assert AutoTokenizer.from_pretrained(folder).eos_token_id == item[-1]
    assert find_base(str(folder)).parameters == here.place.base().parameters
    before = load_file(here.place.folder / "base" / "model.safetensors")
    changed = {
        name for name, weight in loaded.state_dict().items() if name in before and not torch.equal(weight, before[name])
    }
    assert changed == {f"{module}.weight" for module in MODULES}


def test_each_held_out_answer_s_loss_is_stored_for_every_evaluation(here: Arms) -> None:
    for name in ("random", "full"):
        found = stored_answers(here.ids[name])
        assert list(found) == EVALUATED
        for step, scores in found.items():
            assert scores.loss == here.series(name)["eval/loss"][step]
    ids = here.store.json(here.ids["random"], "example_ids.json")["val"]
    table = np.load(here.store.artifact(here.ids["random"], "arrays/eval_losses.npy"), allow_pickle=False)
    _, workload = stored_runs.load_checkpoint(here.ids["random"], 0)
    for column, item in enumerate(ids):
        tokens, start = workload.questions.ids[item], workload.questions.starts[item]
        loss, count = reference.answer_loss(logits_of(base_in(here), tokens.tolist()), tokens, start)
        assert table[0, column] == pytest.approx(float(loss), rel=1e-5)
        assert found[0].tokens[column] == count


def test_operations_are_of_all_tokens_seen_padding_included(here: Arms) -> None:
    model, workload = stored_runs.load_checkpoint(here.ids["random"], 0)
    seen = 0
    for step in range(STEPS):
        ids = workload.order(step)
        for batch in workload.batches("train", batch_size=2, ids=ids):
            longest = max(len(workload.questions.ids[item]) for item in batch.ids.tolist())
            seen += len(batch) * longest
    assert here.series("random")["nfa/flops"][STEPS] == training_operations(model, seen)


# ---- other ways


def test_a_file_of_held_out_questions_is_used_whole_and_leaks_are_told(
    here: Arms, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    held_out = write_questions(tmp_path / "held_out.json", 4)
    held_out.write_text(json.dumps([json.loads(line) for line in held_out.read_text().splitlines()]))
    workload = here.place.workload(val_data=str(held_out), eval_items=3, max_items=10)
    assert workload.ids("val") == [ITEMS, ITEMS + 1, ITEMS + 2]
    assert workload.ids("train") == [place for place in range(10) if place not in TOO_LONG]
    assert "4 held-out questions are also in the training file" in capsys.readouterr().out


def test_data_named_from_here_are_found_from_anywhere(store: Store, arms: Arms) -> None:
    with used_place(arms.place):
        data = write_questions(Path("questions.jsonl"))
        run_id = arms.place.tune(data=data.name, steps=1, eval_every=1)
        assert store.json(run_id, "config.json")["train"]["data"] == str(data.resolve())
        assert store.json(run_id, "config.json")["data"]["name"] == "questions.jsonl"


def test_a_base_in_half_precision_is_trained_with_an_adapter_in_single(here: Arms) -> None:
    workload = here.place.workload(base_precision="bfloat16")
    model = workload.model()
    dtypes: dict[bool, set[Any]] = {True: set(), False: set()}
    for weight in model.parameters():
        dtypes[weight.requires_grad].add(weight.dtype)
    assert dtypes == {True: {torch.float32}, False: {torch.bfloat16}}
    (batch,) = workload.batches("val", batch_size=4)
    outputs: Tensor = workload.outputs(model, batch)
    assert workload.losses(outputs, batch).isfinite().all()


def test_held_out_answers_of_any_length_are_scored_without_more_memory_than_it_takes(
    here: Arms, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In batches of fewer questions where these are long; the same values."""
    workload = here.place.workload(base_precision="float64")
    model, ids = workload.model(), workload.ids("train")
    expected = score_answers(workload, model, ids)
    sizes: list[int] = []
    batches = workload.batches
    monkeypatch.setattr(workload, "batches", lambda *a, **k: (sizes.append(k["batch_size"]), batches(*a, **k))[1])
    monkeypatch.setattr(answer_scores, "TOKENS", 150)
    found = score_answers(workload, model, ids)
    assert sizes == [150 // max(len(workload.questions.ids[item]) for item in ids)] == [2]
    torch.testing.assert_close(found.sums, expected.sums, rtol=1e-12, atol=0)
    assert torch.equal(found.tokens, expected.tokens)


def test_a_training_that_diverges_fails_with_a_hint_and_keeps_its_last_finite_checkpoint(
    store: Store, arms: Arms
) -> None:
    with (
        used_place(arms.place),
        pytest.raises(DivergedError, match=r"step \d.*Try a smaller learning rate than lr=1e\+30"),
    ):
        arms.place.tune(lr=1e30)
    (run_id,) = store.runs()
    assert store.tags(run_id)["nfa.state"] == "failed"
    checkpoints = store.checkpoints(run_id)
    assert "step_000000.safetensors" in checkpoints
    assert all(tensor.isfinite().all() for tensors in checkpoints.values() for tensor in tensors.values())
    assert all(math.isfinite(value) for _, _, value in store.metrics(run_id))
