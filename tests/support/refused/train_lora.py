"""What `train_lora` refuses."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.support.fine_tunings import MODULES, RANK, Place, factor_run, factors_for
from tests.support.lora_runs import gpt2_folder
from tests.support.refusals import Scene, cases, table

WORDS = table("""
train_lora --init svd | init=svd without factors | id of a run of lora_svd | factors=<run id>
train_lora --factors abc | factors=abc with init=random | factors for init=svd | init=svd
train_lora --init pissa --dropout 0.1 | dropout=0.1 with init=pissa | no dropout | dropout=0
train_lora --init svd --factors abc --dropout 0.05 | dropout=0.05 with init=svd start=residual | no dropout
    | dropout=0
train_lora --init svd --factors abc --base_precision bfloat16 | base_precision=bfloat16 with init=svd start=residual
    | float32 or float64 | base_precision=float32
train_lora --init full --base_precision float16 | base_precision=float16 with init=full | float32 | float32
train_lora --init full --dropout 0.1 | dropout=0.1 with init=full | adapters | dropout=0
train_lora --init loftq | init='loftq' | random, svd, pissa, olora | init=
train_lora --start cold | start='cold' | residual, warm | start=
train_lora --schedule 0- | schedule '0-' | … | write, for example
train_lora --schedule 0,9-3 | schedule '0,9-3' | a ≤ b | correct '9-3'
train_lora --rank 0 | rank=0 | ≥ 1 | rank
train_lora --alpha 0 | alpha=0.0 | > 0 | alpha
train_lora --targets ' , ' | targets=' , ' | comma-separated | targets=q_proj
train_lora --lr fast | lr='fast' | > 0 | lr=0.1
train_lora --steps ten | steps='ten' | ≥ 0 | steps=0
train_lora --init orthogonal --rank 3 | init=orthogonal with rank=3
train_lora --targets nonsense | targets='nonsense', which no module fits
train_lora --rank 65535 | init=random with rank=65535, more than model.layers.0.self_attn.q_proj has
train_lora --rank 33 --init pissa | init=pissa with rank=33, more than
train_lora --data absent.jsonl | data=absent.jsonl
train_lora --val_data absent.json | val_data=absent.json
train_lora --base_model ./absent | base_model='./absent'
""")


def slow_in_bfloat16(scene: Scene) -> None:
    scene.monkeypatch.setattr("nfa.workloads.devices.has_bfloat16_units", lambda _: False)


GOOD = {"question": "Why?", "answer": "So."}


def asking(*items: dict[str, Any]) -> Callable[[Scene], object]:
    """Questions in bad.jsonl."""
    text = "\n".join(map(json.dumps, items))
    return lambda scene: (scene.folder / "bad.jsonl").write_text(text)


QUESTIONS = cases(
    "train_lora $tiny --rank 4 --data bad.jsonl",
    {
        "missing fields": (asking(GOOD, {"question": "Why?"}), "1 of 2 items\n    line 2: fields question"),
        "empty answer": (asking(GOOD, {"question": "Why?", "answer": " "}), "line 2: answer is empty"),
        "no text": (asking(GOOD, {"question": 3, "answer": "So."}), "line 2: question is a number, not text"),
        "one item": (
            asking(GOOD),
            "1 items, 0 of them too long, empty or beyond max_items: 1 to train on, 0 to validate on",
        ),
        "all too long": (asking(*[{**GOOD, "answer": "So" * 99}] * 5), "5 items, 5 of them too long"),
    },
    scene="questions",
)
MODELS = table(
    """
train_lora $tiny --rank 4 --data absent.jsonl | absent.jsonl
train_lora $asked --val_data absent.jsonl | val_data
train_lora $asked --targets q_proj,query_key_value | targets='query_key_value', which no module fits
    | down_proj, gate_proj, k_proj, lm_head, o_proj, q_proj, up_proj, v_proj
train_lora $asked --targets lm_head | targets='lm_head', whose weights are also another module's (tied)
train_lora $tiny --data $data --init pissa --rank 9
    | init=pissa with rank=9, more than model.layers.0.self_attn.k_proj has (8) | … | rank=8
train_lora $tiny --data $data --init olora --rank 9
    | init=olora with rank=9, more than model.layers.0.self_attn.k_proj has (8) | … | rank=8
train_lora $tiny --data $data --init orthogonal --rank 3 | init=orthogonal with rank=3 | … | rank=4
""",
    scene="questions",
)


def gpt2(scene: Scene) -> None:
    """A base model whose layers are Conv1D."""
    gpt2_folder(scene.folder / "gpt2")


def factors_of_another_base(scene: Scene) -> None:
    scene.names.update(factors=factor_run(place(scene), digest="f" * 64), digest=place(scene).base().digest[:12])


def factors_of_another_rank(scene: Scene) -> None:
    scene.names["factors"] = factor_run(place(scene), rank=2)


def run_that_has_lost_its_factors(scene: Scene) -> None:
    factors_of_another_rank(scene)
    scene.stored().artifact(scene.names["factors"], "svd_factors_rank2.safetensors").unlink()


def factors_of_other_modules(scene: Scene) -> None:
    wrong = {key.replace("model.", "transformer.", 1): tensor for key, tensor in factors_for(place(scene)).items()}
    scene.names["factors"] = factor_run(place(scene), wrong)


def factors_of_all_modules(scene: Scene) -> None:
    scene.names["factors"] = factor_run(place(scene))


NARROW = f"{MODULES[3]}.lora_A.weight"


def factors_of_other_sizes(scene: Scene) -> None:
    factors = factors_for(place(scene))
    scene.names["factors"] = factor_run(place(scene), factors | {NARROW: factors[NARROW][:, :5].contiguous()})


def place(scene: Scene) -> Place:
    return Place(Path(scene.names["place"]))


FACTORS = cases(
    "train_lora $asked --init svd --factors $factors",
    {
        "of another base": (
            factors_of_another_base,
            "factors=$factors, made for $place/base (ffffffffffff) | $digest | …",
        ),
        "of another rank": (factors_of_another_rank, f"factors=$factors of rank 2 with rank={RANK} | … | rank=2"),
        "none": (run_that_has_lost_its_factors, "(it holds no factors)"),
        "of other modules": (
            factors_of_other_modules,
            f"targets without factors: {', '.join(sorted(MODULES)[:8])} … (14)"
            "…factors without a target: transformer.layers.0.",
        ),
        "of other sizes": (factors_of_other_sizes, f"{NARROW} with shape [4, 5]"),
    },
    scene="questions",
)
PREPARED = [
    *table(
        "train_lora $asked --precision bfloat16 | precision=bfloat16 on cpu | … | precision=float32",
        scene="questions",
        prepare=slow_in_bfloat16,
    ),
    *table(
        "train_lora --base_model gpt2 --data $data --max_length 70 --init olora --targets c_attn"
        " | whose layers are Conv1D | … | init=pissa",
        scene="questions",
        prepare=gpt2,
    ),
    *table("train_lora $asked --init svd --factors cafe | run id 'cafe'", scene="questions"),
    *table(
        "train_lora $asked --init svd --factors $factors --targets q_proj"
        " | targets without factors: none; factors without a target: model.layers.0.mlp.down_proj",
        scene="questions",
        prepare=factors_of_all_modules,
    ),
]
ROWS = [*WORDS, *QUESTIONS, *MODELS, *FACTORS, *PREPARED]
