"""What analyses refuse."""

import math

from tests.support.gradient_direction_runs import fill, shorten
from tests.support.refusals import Prepare, Scene, table

TABLE = """
analyze --directions 1 | directions='1' | auto, all, or a whole number ≥ 2 | directions=2
analyze --directions 0 | directions='0' | auto, all, or a whole number ≥ 2 | directions=2
analyze --directions -2 | directions='-2' | auto, all, or a whole number ≥ 2 | directions=2
analyze --directions 2.5 | directions='2.5' | auto, all, or a whole number ≥ 2 | directions=2
analyze --directions few | directions='few' | auto, all, or a whole number ≥ 2 | directions=2
analyze --directions= | directions='' | auto, all, or a whole number ≥ 2 | directions=2
analyze --directions 2 --centre jacobian | centre=jacobian with directions=2
    | directions=all, since it is not linear in | directions=all
analyze --directions 3 --agop_power 0.5 | agop_power=0.5 with directions=3 | directions=all, since it is not linear in
    | directions=all
analyze --relations agop_nfm,cka | relations=cka | agop_nfm, | choose some of these
analyze --relations= | relations= | agop_nfm, | choose some of these
analyze --relations zz_* | relations=zz_* | globs, or all | choose some of these
analyze --centre mean | centre='mean' | none, entry, jacobian | centre=
analyze --agop_power 2 | agop_power='2' | 1, 0.5 | agop_power=
analyze --positions all | positions='all' | each, sum | positions=
analyze --precision float16 | precision='float16' | float32, bfloat16, float64 | precision=
analyze --epochs 1,x | epochs '1,x' (at 'x') | a-b/step | 0-20
analyze --epochs 4-1 | epochs '4-1' | a ≤ b | correct '4-1'
analyze --batch_size 0 | batch_size=0 | a whole number ≥ 1 | 1024
analyze --top_k 0 | top_k=0 | a whole number ≥ 1 | 10
analyze --nproc 0 | nproc=0 | a whole number ≥ 1 | 1
analyze --target_se -0.1 | target_se=-0.1 | a number ≥ 0 and < 1 | 0.0
analyze --target_se 0.01 --chance false | target_se=0.01 with chance=false | chance=true, which computes | chance=true
analyze --target_se 0.01 --relations nfm_stable_rank | target_se=0.01 with relations=nfm_stable_rank
    | relations among agop_nfm | relations=agop_nfm
analyze --target_se 0.01 --agop_power 0.5 | target_se=0.01 with agop_power=0.5 | agop_power=1 | agop_power=1
analyze --chance maybe | chance='maybe' | true, false | chance=
analyze --max_samples -1 | max_samples=-1 | a whole number ≥ 0 | 0
analyze --epoch 3 | parameter 'epoch' | run_id, epochs | did you mean --epochs?
gradient_directions --unit samples | unit='samples' | sample, batch | unit=sample
gradient_directions --loss ghm | loss='ghm' | run, plain | loss=run
gradient_directions --n 1 | n=1 | a whole number ≥ 2 and < 20001 | default, 512
gradient_directions --n 20001 | n=20001 | a whole number ≥ 2 and < 20001 | default, 512
gradient_directions --n few | n='few' | a whole number ≥ 2 | for example n=512
gradient_directions --unit batch --batch_size 1 | batch_size=1 | a whole number ≥ 2 | default, 32
gradient_directions --unit batch --n 60 | n=60 with unit=batch batch_size=32 | at least two whole batches
    | n=512, or a smaller batch_size
gradient_directions --sketch 1 | sketch='1' | auto, none, or a whole number from 2 to 99999 | sketch=auto
gradient_directions --sketch few | sketch='few' | auto, none, or a whole number from 2 to 99999 | sketch=auto
gradient_directions --perplexity 40 --n 40 | perplexity=40.0 for 40 gradients | a number below 40 | perplexity=auto
gradient_directions --perplexity 16 --unit batch | perplexity=16.0 for 16 gradients | a number below 16
    | perplexity=auto
gradient_directions --perplexity 0.5 | perplexity=0.5 | a number ≥ 1 and < 10000, or auto | default, auto
gradient_directions --perplexity nan | perplexity=nan | a number ≥ 1 | default, auto
gradient_directions --epochs 1,x | epochs '1,x' (at 'x') | a-b/step | 0-20
gradient_directions --epochs 4-1 | epochs '4-1' | a ≤ b | correct '4-1'
gradient_directions --seed -1 | seed=-1 | a whole number ≥ 0 | default, 1717
gradient_directions --perplex 3 | parameter 'perplex' | run_id, epochs | did you mean --perplexity?
gradient_flow --loss ghm | loss='ghm' | run, plain | loss=run
gradient_flow --n 0 | n=0 | a whole number ≥ 1 | default, 64
gradient_flow --epochs 1,x | epochs '1,x' (at 'x') | a-b/step | 0-20
gradient_flow --batch_size 0 | batch_size=0 | a whole number ≥ 1 | default, 64
gradient_flow --epoch 3 | parameter 'epoch' | run_id, epochs | did you mean --epochs?
report --run_id= | run_id='' | run ids, comma-separated, latest, or a filter | run_id=latest
report --run_id latest, | run_id='latest,' | run ids, comma-separated, latest, or a filter | run_id=latest
report --key val/loss | parameter 'key' | run_id, keys | did you mean --keys?
[training]
analyze --sites conv*,layer_0 | sites=conv* | layer_0, layer_1, layer_2 | name some, by globs
analyze --epochs 0-4 | epochs=0-4 (the run has no checkpoint 3) | the run's checkpoints: 0, 1, 2, 4 | epochs=all
analyze --epochs 2,99 | epochs=2,99 (the run has no checkpoint 99) | checkpoints: 0, 1, 2, 4 | epochs=all
analyze --max_samples 1150 | max_samples=1150 | 0 (all) to 1,149 examples | max_samples=0
analyze --device gpu | device='gpu' | auto, cpu | device=auto
analyze --run_id zzz | run id 'zzz' | a run in sqlite: | copy the id from the MLflow UI
analyze --run_id= | run id '' | a run id or its first letters and digits | copy the id
analyze --run_id a/b | run id 'a/b' | letters and digits | copy the id
analyze --directions 2 --relations g_vs_h,agop_nfm_exponent | relations=agop_nfm_exponent (it needs directions=all)
    | relations available here | leave it out
gradient_directions --n 1150 --epochs 0 | n=1150 | 2 to 1149, the run's training examples | n=1149
gradient_directions --epochs 0-4 | epochs=0-4 (the run has no checkpoint 3) | the run's checkpoints: 0, 1, 2, 4
    | epochs=all
gradient_directions --epochs 0 --sites conv*,layer_0 | sites=conv*
    | layer_0, layer_1, layer_2, layers.0, layers.0.weight | name some, by globs such as
gradient_directions --epochs 0 --sites layers | sites=layers | layer_0, layer_1, layer_2, layers.0, layers.0.weight
    | name some, by globs such as
gradient_directions --epochs 0 --sites= | sites= | layers.0.weight, layers.1.weight | name some, by globs such as
gradient_directions --epochs 0 --device gpu | device='gpu' | auto, cpu | device=auto
gradient_directions --run_id zzz | run id 'zzz' | a run in sqlite: | copy the id from the MLflow UI
gradient_flow --epochs 0-4 | epochs=0-4 (the run has no checkpoint 3) | the run's checkpoints: 0, 1, 2, 4 | epochs=all
gradient_flow --n 1150 | n=1150 | 1 to 1149, the run's training examples | n=1149
gradient_flow --device gpu | device='gpu' | auto, cpu | device=auto
gradient_flow --run_id zzz | run id 'zzz' | a run in sqlite: | copy the id from the MLflow UI
gradient_flow --run_id latest,zzz | run id 'zzz' | a run in sqlite: | copy the id from the MLflow UI
report --run_id latest,zzz | run id 'zzz' | a run in sqlite: | copy the id from the MLflow UI
report --keys nothing | keys=nothing
[analysed]
analyze --run_id $made | run_id=$made (an analysis) | training runs | run_id=$run
gradient_directions --run_id $made | run_id=$made (an analysis) | training runs | run_id=$run
gradient_flow --run_id $made | run_id=$made (an analysis) | training runs | run_id=$run
[own_training: without checkpoint 0]
analyze --relations agop_nfm_init_removed | relations=agop_nfm_init_removed (there is no checkpoint 0)
    | relations available here | leave it out
[own_training: of 40 examples]
gradient_directions --epochs 0 --unit batch | n=40 with unit=batch batch_size=32 | at least two whole batches
    | n=512, or a smaller batch_size
gradient_directions --epochs 0 --perplexity 40 | perplexity=40.0 for 40 gradients | a number below 40
    | perplexity=auto
[training: other data]
analyze | digits with digest 000000000000 | digest | use the data that the run was trained on
[training: a file in the way]
analyze --output_dir file | output_dir=file | a writable folder | choose another folder
analyze --output_dir file/below | output_dir=file/below | a writable folder | choose another folder
[training: launched]
analyze --nproc 3 --max_samples 2 | nproc=3 for 2 examples | at least one example for each process | nproc=1
[training: a run without checkpoints]
gradient_directions --run_id $bare | run_id=$bare (it has no checkpoints)
    | a run with checkpoints, or a parent of such | train first
[trainings: two of them spoilt]
gradient_directions --run_id $main,$fast --epochs 20 | epochs=20 (the run has no checkpoint 20)
    | the run's checkpoints: 0 | epochs=all
gradient_directions --run_id $fast,$main --epochs 20 | epochs=20 (the run has no checkpoint 20)
    | the run's checkpoints: 0 | epochs=all
gradient_directions --run_id $main,$fast --epochs 0 --n 41 | n=41 | 2 to 40, the run's training examples | n=40
gradient_directions --run_id $fast,$main --epochs 0 --n 41 | n=41 | 2 to 40, the run's training examples | n=40
gradient_directions --run_id $main,$fast --epochs 0 --unit batch | n=40 with unit=batch | at least two whole batches
    | n=512, or a smaller batch_size
gradient_directions --run_id $fast,$main --epochs 0 --unit batch | n=40 with unit=batch | at least two whole batches
    | n=512, or a smaller batch_size
gradient_directions --run_id $other --n 10 | a model whose outputs or losses are not finite
    | finite weights, inputs and targets | take a checkpoint from before the training diverged
"""


def without_checkpoint_0(scene: Scene) -> None:
    scene.stored().artifact(scene.names["run"], "checkpoints/epoch_0000.safetensors").unlink()


def of_40_examples(scene: Scene) -> None:
    shorten(scene.stored(), scene.names["run"], 40)


def other_data(scene: Scene) -> None:
    scene.monkeypatch.setattr("nfa.registry.datasets.images.ImageData.digest", lambda _: "0" * 64)


def before_any_work(scene: Scene) -> None:
    """A file where the output is wanted, and an analysis that cannot begin."""
    (scene.folder / "file").write_text("")
    scene.monkeypatch.setattr("nfa.registry.analyses.alignment.AlignmentOfRun", None)


class Alone:
    """The first of three processes whose others hear nothing."""

    rank, size = 0, 3

    def broadcast(self, item: object) -> object:
        return item

    def close(self) -> None:
        pass


def launched(scene: Scene) -> None:
    """As the first process that a launcher starts."""
    scene.monkeypatch.setattr("nfa.registry.analyses.alignment.World.launched", lambda: True)
    scene.monkeypatch.setattr("nfa.registry.analyses.alignment.World.joined", Alone)


def run_without_checkpoints(scene: Scene) -> None:
    from nfa.registry.tracking.store import client

    scene.names["bare"] = client().create_run("0").info.run_id


def spoil_two(scene: Scene) -> None:
    """Of "fast" examples and a checkpoint are taken away; "seed 4" has weights that are no numbers."""
    store, ids = scene.stored(), scene.names
    shorten(store, ids["fast"], 40)
    store.artifact(ids["fast"], "checkpoints/epoch_0005.safetensors").unlink(missing_ok=True)
    fill(store, ids["other"], 5, math.nan)


PREPARED: dict[str, Prepare] = {
    "without checkpoint 0": without_checkpoint_0,
    "of 40 examples": of_40_examples,
    "other data": other_data,
    "a file in the way": before_any_work,
    "launched": launched,
    "a run without checkpoints": run_without_checkpoints,
    "two of them spoilt": spoil_two,
}
ROWS = table(TABLE, PREPARED)
