"""What `tune` refuses."""

from tests.support.refusals import Prepare, Scene, table
from tests.support.tuning_runs import NAME

TABLE = """
tune --objective val/los | objective=val/los (no run logs it) | train/loss, train/accuracy, val/loss
    | did you mean val/loss or train/loss or
tune --space lr=1:1 | space: lr=1:1 (an empty range) | LOW below HIGH | fixed=lr=1.0 for one value
tune --space lr=log:1:1e-5 | space: lr=log:1:1e-5 (a reversed range) | LOW below HIGH | lr=log:1e-05:1.0
tune --space learning_rate=0.1:1 | space: parameter 'learning_rate' | optimizer, lr, momentum, weight_decay
    | see docs/parameters.md
tune --fixed seeds=1-3 | seeds in a study's trainings | parameters of the training | trial_seeds=N
tune --fixed n_workers=2 | n_workers in a study's trainings | parameters of the training | study's own parameter
tune --fixed epoch=3 | fixed: parameter 'epoch' | optimizer, lr, momentum, weight_decay | did you mean epochs?
tune --constraint flow/grad_norm | constraint='flow/grad_norm' | KEY<NUMBER with <, <=, > or >=
    | constraint=flow/grad_norm<10
tune --constraint flow/grad_normal<1 | constraint=flow/grad_normal (no run logs it)
    | train/loss, train/accuracy, val/loss | did you mean flow/grad_norm?
tune --storage postgres | storage=postgres | … | leave storage out to use a file beside the
tune --sampler tpa | sampler='tpa' | tpe, gp, random, grid | sampler=tpe
tune --objective val/loss,val/accuracy --pruner median | pruner=median with 2 objectives
    | pruner=none, because several objectives do | pruner=none
tune --workload lora --space init=random|orthogonal,rank=2:8 | init=orthogonal with rank=3 | an even rank | rank=4
tune --workload eeg --space n_head=1:4 | d_model=32 with n_head=3 | a width that is a multiple of n_head | d_model=192
tune --workload lora --space init=random|olora,rank=8|48 | init=olora with rank=48, more than
    | a rank up to 32: the adapter is a part of | rank=32
tune --workload lora --fixed targets=nonsense | targets='nonsense', which no module fits
    | down_proj, gate_proj, k_proj, lm_head | targets=down_proj,gate_proj
tune --workload eeg --fixed data_dir=absent | data_dir=absent | a folder with the data
    | check the path; relative paths start at the
tune --workload lora --fixed base_model=./absent | base_model='./absent' | tiny, smollm2, a folder (config.json
    | check the path, or base_model=smollm2 or tiny
tune --storage sqlite:////absent/optuna.db | storage=sqlite:////absent/optuna.db | … | create /absent
[store]
tune --storage postgresql://me:secret@127.0.0.1:1/studies | Connection refused | …
    | correct the address, start the database, or
tune --storage sqlite:////nowhere/optuna.db | storage= | … | create /nowhere
tune --storage oracle://x/y | oracle | … | correct the address, start the database, or
[study]
tune $study --fixed $fixed --space lr=log:1e-3:1 --storage $url
    | study_name=s with…space lr=log:0.001:1.0 (it has lr=log:0.0001:1.0,optimizer=sgd|adam) | … | another study_name
tune $study --fixed $fixed --space $space --objective val/accuracy --storage $url
    | study_name=s with…objective | … | another study_name
tune $study --fixed epochs=5 --space $space --storage $url
    | study_name=s with…fixed epochs=5 (it has epochs=4 | … | another study_name
tune $study --fixed $fixed --space $space --trial_seeds 2 --storage $url
    | study_name=s with…trial_seeds 2 (it has 1) | … | another study_name
tune $study --fixed $fixed --space $space --storage $url
    | is not in this tracking store | a study whose run is in this store | MLFLOW_TRACKING_URI
[store: foreign study]
tune --study_name s --storage $url | study_name=s (not created by tune) | a study of tune, or a new name
    | choose another study_name
"""


def foreign_study(scene: Scene) -> None:
    """A study that another program has made."""
    import optuna

    scene.names["url"] = f"sqlite:///{scene.folder}/foreign.db"
    study = optuna.create_study(study_name=NAME, storage=scene.names["url"])
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)


PREPARED: dict[str, Prepare] = {"foreign study": foreign_study}
ROWS = table(TABLE, PREPARED)
