"""What a fine-tuning does otherwise than its parameters say stands in a line and in config.json."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from nfa.registry.families.language.adapters import add_adapter, narrower, own_dropout
from nfa.registry.families.language.base.models import find_base, load_model
from nfa.registry.families.language.config import TrainLoraConfig
from nfa.registry.families.registry import family_of
from nfa.registry.stopwatch import Stopwatch
from nfa.registry.training.start import prepared
from tests.support import lora_runs
from tests.support.fine_tunings import MODULES, TOO_LONG, Place, used_place, write_questions
from tests.support.stores import Store


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with used_place(Place.made(tmp_path_factory.mktemp("unasked"))) as made:
        yield made


def test_narrow_layers_and_a_base_s_own_dropout_are_said(
    store: Store, place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = shutil.copytree(place.folder / "base", tmp_path / "base")
    described = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**described, "attention_dropout": 0.25}))
    run_id = place.tune(base_model=str(base), rank=10, steps=1, schedule="0", eval_every=1)
    said = capsys.readouterr().out
    assert "4 of 14 modules have fewer directions than rank=10 (model.layers.0.self_attn.k_proj: 8)" in said
    assert "the base model's own dropout is active in training, regardless of dropout: attention_dropout 0.25" in said
    config = store.json(run_id, "config.json")
    assert config["base"]["own_dropout"] == {"attention_dropout": 0.25}
    assert config["narrower"] == {name: 8 for name in MODULES if name.endswith(("k_proj", "v_proj"))}


def test_nothing_is_said_where_all_is_as_asked(place: Place, capsys: pytest.CaptureFixture[str], store: Store) -> None:
    run_id = place.tune(rank=8, steps=1, schedule="0", eval_every=1, dropout=0.1)
    said = capsys.readouterr().out
    assert "directions than" not in said
    assert "own dropout" not in said
    config = store.json(run_id, "config.json")
    assert (config["base"]["own_dropout"], config["narrower"]) == ({}, {})


def test_empty_answers_are_counted_and_nowhere(
    place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = (write_questions(tmp_path / "some.jsonl", 40)).read_text().splitlines()
    lines[9] = json.dumps({"question": "What?", "answer": " "})
    (tmp_path / "some.jsonl").write_text("\n".join(lines))
    options = place.options(data=str(tmp_path / "some.jsonl"))
    config = TrainLoraConfig(**options)
    ready = prepared(family_of(config), config, Stopwatch())
    assert "1 with an empty question or answer are left out" in capsys.readouterr().out
    facts = ready.data.facts
    assert (facts["items"], facts["empty"], facts["too_long"]) == (40, 1, len(TOO_LONG))
    ids = ready.workload.example_ids
    assert sorted((*ids["train"], *ids["val"])) == [item for item in range(40) if item not in (9, *TOO_LONG)]


def test_factors_that_a_library_has_made_narrower_are_found(tmp_path: Path) -> None:
    """PEFT's PiSSA gives a layer with sides of 8 no more than 8 directions, whatever rank says."""
    model = load_model(find_base(str(lora_runs.base_folder(tmp_path, hidden=16, heads=2, key_value_heads=1))))
    adapted = add_adapter(model, ["q_proj", "k_proj"], rank=12, alpha=4.0, dropout=0.0, init="pissa", seed=0)
    assert narrower(adapted, 12) == {f"model.layers.{layer}.self_attn.k_proj": 8 for layer in range(2)}


def test_dropout_modules_of_a_base_count_and_an_adapter_s_do_not(tmp_path: Path) -> None:
    model = load_model(find_base(str(lora_runs.gpt2_folder(tmp_path))))
    assert own_dropout(model) == {"attn_dropout": 0.1, "drop": 0.1, "dropout": 0.1, "resid_dropout": 0.1}
    adapted = add_adapter(model, ["c_fc"], rank=2, alpha=4.0, dropout=0.5, init="random", seed=0)
    assert own_dropout(adapted) == own_dropout(model)
