"""What the steps of the LoRA experiment refuse, and the experiment itself."""

from collections.abc import Callable
from typing import Any

from tests.support import lora_runs
from tests.support.analyses import undrawn
from tests.support.refusals import Scene, cases, table

WORDS = table("""
lora_svd --teacher ./absent --base_model tiny | teacher='./absent' (no such file or folder)
lora_svd --teacher tiny --base_model tinny | base_model='tinny' (no known name
lora_svd --teacher tiny --base_model tiny --rank 33 | rank=33 for model.layers.0
lora_svd --teacher tiny --base_model tiny --targets q | targets='q', which no module
lora_svd --rank 0 | rank=0 | a whole number ≥ 1
lora_svd --run_id abc --teacher tiny | run_id=abc with teacher=tiny
lora_svd --teacher tiny | teacher=tiny without base_model
lora_svd --teacher tiny --base_model tiny --targets ' ,' | targets=' ,'
lora_svd --alpha 0.0 | alpha=0.0 | a number > 0
lora_svd --rnk 4 | parameter 'rnk' | … | did you mean --rank?
lora_svd --teacher nowhere/at/all --base_model tiny | teacher='nowhere/at/all'
synthesize_teacher --target_rank 12 --rank 16 | target_rank=12 with rank=16
synthesize_teacher --output_dir /dev/null/x | output_dir=/dev/null/x
compare_lora --runid x | parameter 'runid' | run_id | did you mean --run_id?
synthesize_teacher --decay -1.0 | decay=-1.0
lora_experiment --starts svd-warm,orthogonal --rank 3 | init=orthogonal with rank=3
lora_experiment --starts svd-warm --rank 33 | init=svd with rank=33, more than
lora_experiment --starts pissa --rank 33 --target_rank 64 | init=pissa with rank=33, more than
lora_experiment --targets nonsense | targets='nonsense'
lora_experiment --starts svd | starts='svd' (at 'svd')
lora_experiment --steps 2 --mode full | steps='2' (at '2') with mode=full
lora_experiment --steps 12 | steps='12' (at '12') with mode=simplified
lora_experiment --steps 1,,2 | (at '')
lora_experiment --seeds 1,1 | seeds='1,1' | different whole numbers
lora_experiment --dropout 0.1 | dropout=0.1 with init=svd start=residual
lora_experiment --targets no_such | targets='no_such'
""")
OF_AN_ADAPTER = table(
    """
lora_svd --rank 5 | rank=5 for model.layers.0.self_attn.q_proj, whose update has rank 4 at most
lora_svd --rank 4 --checkpoint 7 | checkpoint=7 of run $short | its checkpoints: 0, 10
lora_svd --rank 4 --run_id nosuchrun | run id 'nosuchrun'
synthesize_teacher --target_rank 2 | target_rank=2 for an adapter of rank 4
synthesize_teacher --target_rank 12 --rank 5
    | rank=5 for model.layers.0.self_attn.q_proj, whose update has rank 4 at most
synthesize_teacher --target_rank 12 --checkpoint 7 | checkpoint=7 of run $short | its checkpoints: 0, 10
synthesize_teacher --target_rank 12 --run_id nosuchrun | run id 'nosuchrun'
""",
    scene="adapter",
)


def adapter(**changed: Any) -> Callable[[Scene], object]:
    """One more run with an adapter."""

    def make(scene: Scene) -> None:
        scene.names["changed"] = lora_runs.adapter_run(**changed).run_id

    return make


UNFIT = cases(
    "synthesize_teacher --target_rank 12 --run_id $changed",
    {
        "of another program": (adapter(entrypoint="train"), "made by train | a run of train_lora"),
        "without factors": (
            adapter(drop="layers.0.self_attn.q_proj.lora_"),
            "targets without weights: model.layers.0.self_attn.q",
        ),
        "half a pair": (
            adapter(drop="0.mlp.up_proj.lora_A"),
            "without weights: model.layers.0.mlp.up_proj; …up_proj.lora_B",
        ),
        "other names": (
            adapter(rename={"0.self_attn": "0.attention"}),
            "targets without weights: model.layers.0.self_attn.k_proj…match no target: model.layers.0.attention.k",
        ),
    },
    scene="adapter",
)


def two_bases(**changed: Any) -> Callable[[Scene], object]:
    """Folders of a base model and of one that is tuned, or nearly."""

    def make(scene: Scene) -> None:
        lora_runs.base_folder(scene.folder / "base")
        lora_runs.base_folder(scene.folder / "tuned", **changed)

    return make


TEACHERS = cases(
    "lora_svd --rank 4 --teacher tuned --base_model base",
    {
        "of fewer layers": (
            two_bases(layers=1),
            "targets without weights: model.layers.1.mlp.down_proj…no target: none",
        ),
        "of more layers": (two_bases(layers=3), "without weights: none; …no target: model.layers.2.mlp.down_proj"),
        "of other shapes": (
            two_bases(intermediate=40),
            "gate_proj of …tuned with shape [40, 32] | shape [48, 32]",
        ),
    },
    scene="store",
) + table(
    "lora_svd --teacher base --base_model base --targets query | targets='query' | q_proj",
    scene="store",
    prepare=two_bases(),
)


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


RUNS = [
    *table(
        "lora_svd --rank 4 --run_id $full --base_model tuned"
        " | tuned with digest …as the base of run | …base with digest",
        scene="adapter",
        prepare=run_of_another_base,
    ),
    *table(
        "lora_svd --rank 4 --run_id $teacher --checkpoint 10"
        " | checkpoint=10 with run_id=$teacher (a synthesised teacher)",
        scene="adapter",
        prepare=teacher_run,
    ),
    *table(
        "lora_svd --rank 4 --run_id $parent | it stands for several | first…second",
        scene="adapter",
        prepare=parent_of_two,
    ),
]
ROWS = [*WORDS, *OF_AN_ADAPTER, *UNFIT, *TEACHERS, *RUNS]
