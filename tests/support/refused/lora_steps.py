"""What the steps of the LoRA experiment refuse, and the experiment itself."""

from collections.abc import Callable
from typing import Any

from tests.support import lora_runs
from tests.support.analyses import undrawn
from tests.support.refusals import Prepare, Scene, table

TABLE = """
lora_svd --teacher ./absent --base_model tiny | teacher='./absent' (no such file or folder)
    | tiny, smollm2, a folder (config.json | check the path, or teacher=smollm2 or tiny
lora_svd --teacher tiny --base_model tinny | base_model='tinny' (not a known name, and no such folder)
    | tiny, smollm2, a folder (config.json | did you mean tiny?
lora_svd --teacher tiny --base_model tiny --rank 33 | rank=33 for model.layers.0
    | 1 to 32; further directions would be zero | rank=32
lora_svd --teacher tiny --base_model tiny --targets q | targets='q', which no module fits
    | down_proj, gate_proj, k_proj, lm_head | targets=down_proj,gate_proj
lora_svd --rank 0 | rank=0 | a whole number ≥ 1 | leave rank out to use its default, 16
lora_svd --run_id abc --teacher tiny | run_id=abc with teacher=tiny | either a run, or a teacher with its
    | leave one of them out
lora_svd --teacher tiny | teacher=tiny without base_model | a teacher together with its base model | base_model=MODEL
lora_svd --teacher tiny --base_model tiny --targets ' ,' | targets=' ,' | ends of module paths, comma-separated
    | targets=q_proj,k_proj,v_proj,o_proj,gate_proj
lora_svd --alpha 0.0 | alpha=0.0 | a number > 0 | leave alpha out to use its default, 16.0
lora_svd --rnk 4 | parameter 'rnk' | run_id, checkpoint, teacher, base_model | did you mean --rank?
lora_svd --teacher nowhere/at/all --base_model tiny | teacher='nowhere/at/all' | tiny, smollm2, a folder (config.json
    | check the path, or teacher=smollm2 or tiny
synthesize_teacher --target_rank 12 --rank 16 | target_rank=12 with rank=16 | a number ≥ 16
    | target_rank=64, or a smaller rank
synthesize_teacher --output_dir /dev/null/x | output_dir=/dev/null/x | a writable folder | choose another folder
compare_lora --runid x | parameter 'runid' | run_id | did you mean --run_id?
synthesize_teacher --decay -1.0 | decay=-1.0 | a number ≥ 0 and < 1000 | leave decay out to use its default, 0.04
lora_experiment --starts svd-warm,orthogonal --rank 3 | init=orthogonal with rank=3 | an even rank | rank=4
lora_experiment --starts svd-warm --rank 33
    | init=svd with rank=33, more than model.layers.0.self_attn.k_proj
    | a rank up to 32: the adapter is a part of | rank=32
lora_experiment --starts pissa --rank 33 --target_rank 64 | init=pissa with rank=33, more than
    | a rank up to 32: the adapter is a part of | rank=32
lora_experiment --targets nonsense | targets='nonsense' | down_proj, gate_proj, k_proj, lm_head
    | targets=down_proj,gate_proj
lora_experiment --starts svd | starts='svd' (at 'svd') | svd-residual, svd-warm, pissa, olora | starts=svd-residual
lora_experiment --steps 2 --mode full | steps='2' (at '2') with mode=full | 1 base, 3 svd, 4 svd-lora, 5 compare
    | steps=all
lora_experiment --steps 12 | steps='12' (at '12') with mode=simplified | 1 base, 2 synthesize, 3 svd, 4 svd-lora, 5
    | steps=all
lora_experiment --steps 1,,2 | (at '') | 1 base, 2 synthesize, 3 svd, 4 svd-lora, 5 | steps=all
lora_experiment --seeds 1,1 | seeds='1,1' (at '1') | each once | seeds=1-3
lora_experiment --dropout 0.1 | dropout=0.1 with init=svd start=residual | no dropout, because it would not apply to
    | dropout=0
lora_experiment --targets no_such | targets='no_such' | down_proj, gate_proj, k_proj, lm_head
    | targets=down_proj,gate_proj
[adapter]
lora_svd --rank 5 | rank=5 for model.layers.0.self_attn.q_proj, whose update has at most rank 4
    | 1 to 4; further directions would be zero and | rank=4
lora_svd --rank 4 --checkpoint 7 | checkpoint=7 of run $short | its checkpoints: 0, 10 | choose one of them
lora_svd --rank 4 --run_id nosuchrun | run id 'nosuchrun' | a run in | copy the id from the MLflow UI, or check
synthesize_teacher --target_rank 2 | target_rank=2 for an adapter of rank 4 | a number ≥ 4
    | target_rank=64, or a smaller rank
synthesize_teacher --target_rank 12 --rank 5
    | rank=5 for model.layers.0.self_attn.q_proj, whose update has at most rank 4 | 1 to 4 | rank=auto
synthesize_teacher --target_rank 12 --checkpoint 7 | checkpoint=7 of run $short | its checkpoints: 0, 10
    | choose one of them
synthesize_teacher --target_rank 12 --run_id nosuchrun | run id 'nosuchrun' | a run in
    | copy the id from the MLflow UI, or check
[adapter: of another program]
synthesize_teacher --target_rank 12 --run_id $changed | made by train | a run of train_lora
    | mlflow run . -e train_lora
[adapter: without factors]
synthesize_teacher --target_rank 12 --run_id $changed | targets without weights: model.layers.0.self_attn.q
    | weights for each target, and no others | use files of the same model and targets
[adapter: half a pair]
synthesize_teacher --target_rank 12 --run_id $changed | without weights: model.layers.0.mlp.up_proj; …up_proj.lora_B
    | weights for each target, and no others | use files of the same model and targets
[adapter: other names]
synthesize_teacher --target_rank 12 --run_id $changed
    | targets without weights: model.layers.0.self_attn.k_proj…match no target: model.layers.0.attention.k
    | weights for each target, and no others | use files of the same model and targets
[store: of fewer layers]
lora_svd --rank 4 --teacher tuned --base_model base
    | targets without weights: model.layers.1.mlp.down_proj…no target: none | weights for each target, and no others
    | use files of the same model and targets
[store: of more layers]
lora_svd --rank 4 --teacher tuned --base_model base | without weights: none; …no target: model.layers.2.mlp.down_proj
    | weights for each target, and no others | use files of the same model and targets
[store: of other shapes]
lora_svd --rank 4 --teacher tuned --base_model base | gate_proj of …tuned with shape [40, 32] | shape [48, 32]
    | set base_model to the model that it was
[store: two bases]
lora_svd --teacher base --base_model base --targets query | targets='query' | q_proj | targets=down_proj,gate_proj
[adapter: full fine-tuning]
lora_svd --rank 4 --run_id $full --base_model tuned | tuned with digest …as the base of run | …base with digest
    | base_model=FOLDER, where the run's base is
[adapter: synthesised teacher]
lora_svd --rank 4 --run_id $teacher --checkpoint 10 | checkpoint=10 with run_id=$teacher (a synthesised teacher)
    | a checkpoint of a training | leave checkpoint out
[adapter: parent of two]
lora_svd --rank 4 --run_id $parent | it stands for several | first…second | choose one of these ids
"""


def adapter(**changed: Any) -> Callable[[Scene], object]:
    """One more run with an adapter."""

    def make(scene: Scene) -> None:
        scene.names["changed"] = lora_runs.adapter_run(**changed).run_id

    return make


def two_bases(**changed: Any) -> Callable[[Scene], object]:
    """Folders of a base model and of one that is tuned, or nearly."""

    def make(scene: Scene) -> None:
        lora_runs.base_folder(scene.folder / "base")
        lora_runs.base_folder(scene.folder / "tuned", **changed)

    return make


def run_of_another_base(scene: Scene) -> None:
    two_bases(seed=1)(scene)
    scene.names["full"] = lora_runs.full_run(scene.folder / "base").run_id


def teacher_run(scene: Scene) -> None:
    from nfa.registry.families.language.teacher.config import SynthesizeTeacherConfig
    from nfa.registry.families.language.teacher.synthesize_teacher import synthesize_teacher

    with undrawn():
        made = synthesize_teacher(SynthesizeTeacherConfig(run_id=scene.names["adapter"], target_rank=8))
    scene.names["teacher"] = made.run_id


def parent_of_two(scene: Scene) -> None:
    from nfa.registry import tracking

    children = [lora_runs.adapter_run(name=name).run_id for name in ("first", "second")]
    with tracking.open_run("lora_experiment", "lora", adopt=False) as parent:
        pass
    insert = "INSERT INTO tags (key, value, run_uuid) VALUES ('mlflow.parentRunId', ?, ?)"
    for child in children:
        scene.stored().change(insert, parent.run_id, child)
    scene.names["parent"] = parent.run_id


PREPARED: dict[str, Prepare] = {
    "of another program": adapter(entrypoint="train"),
    "without factors": adapter(drop="layers.0.self_attn.q_proj.lora_"),
    "half a pair": adapter(drop="0.mlp.up_proj.lora_A"),
    "other names": adapter(rename={"0.self_attn": "0.attention"}),
    "of fewer layers": two_bases(layers=1),
    "of more layers": two_bases(layers=3),
    "of other shapes": two_bases(intermediate=40),
    "two bases": two_bases(),
    "full fine-tuning": run_of_another_base,
    "synthesised teacher": teacher_run,
    "parent of two": parent_of_two,
}
ROWS = table(TABLE, PREPARED)
