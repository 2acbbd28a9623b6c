"""Estimate the time, memory and disk space of an experiment before it starts."""

import time

from nfa.console import stage
from nfa.registry.families.language.base.models import load_model
from nfa.registry.families.language.experiment.plan import ExperimentPlan
from nfa.registry.families.language.fitting import Sides, trained
from nfa.registry.families.language.ready import memory_of
from nfa.registry.families.language.workload import DTYPES, LanguageModel
from nfa.registry.machine import BYTES_A_WEIGHT

REPORTS = 6.0  # seconds of a run's figures and files
STATE_AND_MORE = 8  # copies of what is trained: two checkpoints, the state twice, and the final model
FULL = 1.5  # a step of a full fine-tuning in steps of an adapter's
EVALUATIONS = 5


def estimate(plan: ExperimentPlan, sides: Sides) -> int:
    """Say trainings left, minutes, memory and disk, from the time that one batch takes here; the bytes of disk.

    `sides` are those of the layers that an adapter sits on.
    """
    trainings = [task for task in plan.tasks() if task.entrypoint == "train_lora"]
    left = [task for task in trainings if not task.done]
    steps = sum(
        plan.workload.variant(task.config).steps * (FULL if task.config.init == "full" else 1.0) for task in left
    )
    workload = plan.workload.variant(plan.config.training("random", seed=plan.config.seed_list()[0]))
    step, evaluation = _seconds(workload)
    seconds = steps * step + len(left) * (EVALUATIONS * evaluation + REPORTS)
    parameters = trained(workload.config, sides)
    full = any(task.config.init == "full" for task in left)
    weights = workload.base.parameters
    memory = memory_of(workload) + BYTES_A_WEIGHT * (weights if full else parameters)
    disk = 4 * STATE_AND_MORE * (parameters * len(left) + (weights if full else 0))
    said = f"{len(left)} of {len(trainings)} trainings are left"
    time_said = f"{seconds / 60:.1f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"
    stage("estimate", f"{said}: about {time_said}, {memory / 2**30:.1f} GB of memory, {disk / 2**30:.2f} GB of disk")
    return disk


def _seconds(workload: LanguageModel) -> tuple[float, float]:
    """Return the seconds of a step and of an evaluation, measured on the second of two batches."""
    model = workload.adapted(load_model(workload.base, DTYPES[workload.config.base_precision])).to(workload.device)
    objective, taken = workload.objective(), 0.0
    size = workload.config.batch_size
    for batch in workload.batches("train", batch_size=size, ids=workload.order(0)[: 2 * size]):
        start = time.perf_counter()
        with workload.autocast():
            loss = objective(workload.outputs(model, batch), batch)
        loss.backward()
        taken = time.perf_counter() - start
    return taken * workload.config.accumulation, taken * len(workload.ids("val")) / size / 3
