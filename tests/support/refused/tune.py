"""What `tune` refuses."""

from typing import Any

from tests.support.processes import words
from tests.support.refusals import Scene, table
from tests.support.tuning_runs import NAME, OPTIONS

WORDS = table("""
tune --objective val/los | objective=val/los (no run logs it)
tune --space lr=1:1 | space: lr=1:1 (an empty range)
tune --space lr=log:1:1e-5 | space: lr=log:1:1e-5 (a reversed range)
tune --space learning_rate=0.1:1 | space: parameter 'learning_rate'
tune --fixed epoch=3 | fixed: parameter 'epoch'
tune --constraint flow/grad_norm | constraint='flow/grad_norm'
tune --constraint flow/grad_normal<1 | constraint=flow/grad_normal (no run logs it)
tune --storage postgres | storage=postgres
tune --sampler tpa | sampler='tpa'
tune --objective val/loss,val/accuracy --pruner median | pruner=median with 2 objectives
tune --workload lora --space init=random|orthogonal,rank=2:8 | init=orthogonal with rank=3
tune --workload eeg --space n_head=1:4 | d_model=32 with n_head=3
tune --workload lora --space init=random|olora,rank=8|48 | init=olora with rank=48, more than
tune --workload lora --fixed targets=nonsense | targets='nonsense', which no module fits
tune --workload eeg --fixed data_dir=absent | data_dir=absent
tune --workload lora --fixed base_model=./absent | base_model='./absent'
tune --storage sqlite:////absent/optuna.db | storage=sqlite:////absent/optuna.db
""")
UNREACHABLE = table(
    """
tune --storage postgresql://me:secret@127.0.0.1:1/studies | Connection refused
tune --storage sqlite:////nowhere/optuna.db | no database file can be made in /nowhere
tune --storage oracle://x/y | oracle
""",
    scene="store",
)


def search(**changed: Any) -> str:
    """The search of the study that is there, changed where given."""
    return " ".join(["tune", *words(**{**OPTIONS, **changed}), "--storage $url"])


ANOTHER = [
    row
    for changed, said in (
        ({"space": "lr=log:1e-3:1"}, "space lr=log:0.001:1.0 (it has lr=log:0.0001:1.0,optimizer=sgd|adam)"),
        ({"objective": "val/accuracy"}, "objective"),
        ({"fixed": "epochs=5"}, "fixed epochs=5 (it has epochs=4"),
        ({"seeds": 2}, "seeds 2 (it has 1)"),
    )
    for row in table(
        f"{search(**changed)} | study_name={NAME} with…{said} | … | another study_name",
        scene="study",
    )
]
OF_ANOTHER_STORE = table(f"{search()} | is not in this tracking store | … | MLFLOW_TRACKING_URI", scene="study")


def foreign_study(scene: Scene) -> None:
    """A study that another program has made."""
    import optuna

    scene.names["url"] = f"sqlite:///{scene.folder}/foreign.db"
    study = optuna.create_study(study_name=NAME, storage=scene.names["url"])
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)


FOREIGN = table(f"{search()} | not made by tune", scene="store", prepare=foreign_study)
ROWS = [*WORDS, *UNREACHABLE, *ANOTHER, *OF_ANOTHER_STORE, *FOREIGN]
