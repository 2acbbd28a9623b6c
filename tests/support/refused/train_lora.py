"""What `train_lora` refuses."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.support.fine_tunings import MODULES, Place, factor_run, factors_for
from tests.support.lora_runs import gpt2_folder
from tests.support.refusals import Prepare, Scene, table

TABLE = """
train_lora --seeds 1,1 | seeds='1,1' (at '1') | each once | seeds=1-3
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
train_lora --schedule 0- | schedule '0-' | numbers, a-b, a-b/step, comma-separated
    | write, for example, 0-20,40,60,80,100
train_lora --schedule 0,9-3 | schedule '0,9-3' | a ≤ b | correct '9-3'
train_lora --rank 0 | rank=0 | ≥ 1 | rank
train_lora --alpha 0 | alpha=0.0 | > 0 | alpha
train_lora --targets ' , ' | targets=' , ' | comma-separated | targets=q_proj
train_lora --lr fast | lr='fast' | > 0 | lr=0.1
train_lora --steps ten | steps='ten' | ≥ 0 | steps=0
train_lora --init orthogonal --rank 3 | init=orthogonal with rank=3 | an even rank | rank=4
train_lora --targets nonsense | targets='nonsense', which no module fits | down_proj, gate_proj, k_proj, lm_head
    | targets=down_proj,gate_proj
train_lora --rank 65535 | init=random with rank=65535, more than
    | a rank up to 64: no layer has a larger rank | rank=64
train_lora --rank 33 --init pissa | init=pissa with rank=33, more than
    | a rank up to 32: the adapter is a part of | rank=32
train_lora --data absent.jsonl | data=absent.jsonl | stdlib, a .json or .jsonl file, or a data | check the name
train_lora --val_data absent.json | val_data=absent.json | stdlib, a .json or .jsonl file, or a data | check the name
train_lora --base_model ./absent | base_model='./absent' | tiny, smollm2, a folder (config.json
    | check the path, or base_model=smollm2 or tiny
[questions: missing fields]
train_lora $tiny --rank 4 --data bad.jsonl | 1 of 2 items…line 2: fields question
[questions: empty answer]
train_lora $tiny --rank 4 --data bad.jsonl | line 2: answer is empty
[questions: no text]
train_lora $tiny --rank 4 --data bad.jsonl | line 2: question is a number, not text
[questions: one item]
train_lora $tiny --rank 4 --data bad.jsonl
    | 1 items, 0 of them too long, empty or beyond max_items: 1 to train on, 0 to validate on | at least one of each
    | more items, or a larger max_length or
[questions: all too long]
train_lora $tiny --rank 4 --data bad.jsonl | 5 items, 5 of them too long | at least one of each
    | more items, or a larger max_length or
[questions]
train_lora $tiny --rank 4 --data absent.jsonl | absent.jsonl | stdlib, a .json or .jsonl file, or a data
    | check the name
train_lora $asked --val_data absent.jsonl | val_data | stdlib, a .json or .jsonl file, or a data | check the name
train_lora $asked --targets q_proj,query_key_value | targets='query_key_value', which no module fits
    | down_proj, gate_proj, k_proj, lm_head, o_proj, q_proj, up_proj, v_proj | targets=down_proj,gate_proj
train_lora $asked --targets lm_head | targets='lm_head', whose weights are tied to another module's
    | modules whose weights are not tied | targets without lm_head
train_lora $tiny --data $data --init pissa --rank 9
    | init=pissa with rank=9, more than model.layers.0.self_attn.k_proj
    | a rank up to 8: the adapter is a part of the | rank=8
train_lora $tiny --data $data --init olora --rank 9
    | init=olora with rank=9, more than model.layers.0.self_attn.k_proj
    | a rank up to 8: the adapter is a part of the | rank=8
train_lora $tiny --data $data --init orthogonal --rank 3 | init=orthogonal with rank=3 | an even rank | rank=4
[questions: factors of another base]
train_lora $asked --init svd --factors $factors | factors=$factors, made for $place/base (ffffffffffff) | $digest
    | use the base_model of the factors, or other
[questions: factors of another rank]
train_lora $asked --init svd --factors $factors | factors=$factors of rank 2 with rank=4 | … | rank=2
[questions: factors lost]
train_lora $asked --init svd --factors $factors | (it holds no factors) | a run of lora_svd | mlflow run . -e lora_svd
[questions: factors of other modules]
train_lora $asked --init svd --factors $factors
    | model.layers.0.mlp.down_proj, …model.layers.1.mlp.down_proj … (14)…a target: transformer.layers.0.
[questions: factors of other sizes]
train_lora $asked --init svd --factors $factors | model.layers.0.self_attn.o_proj.lora_A.weight with shape [4, 5]
[questions: slow in bfloat16]
train_lora $asked --precision bfloat16 | precision=bfloat16 on cpu | a device with bfloat16 units | precision=float32
[questions: GPT-2]
train_lora --base_model gpt2 --data $data --max_length 70 --init olora --targets c_attn | whose layers are Conv1D
    | Linear layers, which PEFT's OLoRA supports | init=pissa
[questions]
train_lora $asked --init svd --factors cafe | run id 'cafe' | a run in | copy the id from the MLflow UI, or check
[questions: factors of all modules]
train_lora $asked --init svd --factors $factors --targets q_proj
    | targets without factors: none; factors without a target: model.layers.0.mlp.down_proj
    | two factors for each target, and no others | use the targets that the factors were made
"""
GOOD = {"question": "Why?", "answer": "So."}
NARROW = f"{MODULES[3]}.lora_A.weight"


def slow_in_bfloat16(scene: Scene) -> None:
    scene.monkeypatch.setattr("nfa.workloads.devices.has_bfloat16_units", lambda _: False)


def asking(*items: dict[str, Any]) -> Callable[[Scene], object]:
    """Questions in bad.jsonl."""
    text = "\n".join(map(json.dumps, items))
    return lambda scene: (scene.folder / "bad.jsonl").write_text(text)


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


def factors_of_other_sizes(scene: Scene) -> None:
    factors = factors_for(place(scene))
    scene.names["factors"] = factor_run(place(scene), factors | {NARROW: factors[NARROW][:, :5].contiguous()})


def place(scene: Scene) -> Place:
    return Place(Path(scene.names["place"]))


PREPARED: dict[str, Prepare] = {
    "missing fields": asking(GOOD, {"question": "Why?"}),
    "empty answer": asking(GOOD, {"question": "Why?", "answer": " "}),
    "no text": asking(GOOD, {"question": 3, "answer": "So."}),
    "one item": asking(GOOD),
    "all too long": asking(*[{**GOOD, "answer": "So" * 99}] * 5),
    "factors of another base": factors_of_another_base,
    "factors of another rank": factors_of_another_rank,
    "factors lost": run_that_has_lost_its_factors,
    "factors of other modules": factors_of_other_modules,
    "factors of other sizes": factors_of_other_sizes,
    "factors of all modules": factors_of_all_modules,
    "slow in bfloat16": slow_in_bfloat16,
    "GPT-2": gpt2,
}
ROWS = table(TABLE, PREPARED)
