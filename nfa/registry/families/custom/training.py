"""Trainings of named workloads, new and rebuilt from runs."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from nfa.errors import Refusal
from nfa.figures.training_analysis import Series
from nfa.parallel import World
from nfa.registry import stored_runs, tracking
from nfa.registry.families.custom.config import CustomConfig
from nfa.registry.families.custom.family import NamedWorkloads
from nfa.registry.families.custom.maker import find
from nfa.registry.families.custom.making import data_digest, made, splits_of
from nfa.registry.families.custom.session import CustomSession, described
from nfa.registry.families.custom.steps import check_steps
from nfa.registry.families.custom.trust import WATCHED, trusted
from nfa.registry.families.protocol import FamilyTraining, Ids, Ready, StoredTraining
from nfa.registry.families.stored import SPLITS, check_same
from nfa.registry.stopwatch import Stopwatch
from nfa.registry.tracking import TrackedRun
from nfa.registry.training import report
from nfa.registry.training.hidden_matrices import hidden_matrices
from nfa.registry.training.parameters import ALL
from nfa.workload import Workload


class CustomTraining(FamilyTraining):
    """Trainings of workloads made by a function."""

    def read(self, config: CustomConfig, clock: Stopwatch, found: Any = None) -> Workload:  # noqa: ARG002
        with clock.section("data"):
            maker = find(config.workload)
            return made(maker, maker.read(config.workload_args), seed=config.seed, device=config.device)

    def prepare(
        self, config: CustomConfig, data: Workload, run: TrackedRun | None = None, ids: Ids | None = None
    ) -> Ready:
        found = ids or splits_of(data)
        if run:
            _check_ids(config.workload, found, stored_runs.example_ids(run.run_id))
            check_same(config.workload, data_digest(data, found), tracking.config(run.run_id)["data"]["digest"])
            check_code(data, run.run_id)
        if config.max_samples > len(found["probe"]):
            got, allowed = f"max_samples={config.max_samples}", f"0 to {len(found['probe'])} training examples"
            raise Refusal(got, allowed, "max_samples=0")
        _check_optimizer(config, data)
        return Ready(config.resolved(), data, data, found)

    def check_layers(self, configs: Sequence[CustomConfig], data: Callable[[Any], Workload]) -> None:
        for config in configs:
            _check_optimizer(config, data(config))

    def lines(self, ready: Ready) -> Iterator[tuple[str, str]]:
        counts = ", ".join(f"{len(ready.example_ids[split]):,} {split}" for split in SPLITS[:3])
        yield "data", f"{ready.config.workload}: {counts} examples"

    def stored(self, config: CustomConfig, ready: Ready) -> dict[str, Any]:
        return described(config, ready)

    def session(self, run: TrackedRun, ready: Ready, clock: Stopwatch, world: World) -> CustomSession:  # noqa: ARG002
        return CustomSession(run, ready, clock)

    def compare(self, parent: TrackedRun) -> None:
        stored = tracking.config(parent.run_id)
        report.compare(parent, NamedWorkloads(stored["workload"]).subject(stored))

    def report_seeds(self, parent: TrackedRun, series: Mapping[str, Series], seeds: Sequence[int], title: str) -> None:
        report.report_seeds(parent, series, seeds, title)

    def rebuild(self, run: StoredTraining) -> Workload:
        maker, train = trusted(run.config, run.named.name), run.config["train"]
        values = maker.read(run.named.arguments or train["workload_args"])
        workload = made(maker, values, seed=train["seed"], device=str(run.device))
        if run.config["workload"] != WATCHED:  # which stores only a probe
            ids = splits_of(workload)
            _check_ids(maker.name, ids, run.example_ids)
            check_same(maker.name, data_digest(workload, ids), run.config["data"]["digest"])
        return workload


def check_code(workload: Workload, run_id: str) -> None:
    """Raise `Refusal` if a new model with the run's last weights gives different outputs than those stored."""
    for epoch in tracking.epochs(run_id)[-1:]:
        stored_runs.load_weights(workload.model(), run_id, epoch, workload)


def _check_optimizer(config: CustomConfig, workload: Workload) -> None:
    """Raise `Refusal` if the model has nothing for the optimizer, or where a step of it would fail."""
    config.check_updates(config.updates(len(workload.ids("train"))))
    if config.optimizer == ALL or config.entry.companion:
        hidden_matrices(workload, workload.model())
    if config.optimizer != ALL:  # which is looked at for each of its optimizers
        check_steps(config, workload)


def _check_ids(name: str, found: Ids, stored: Ids) -> None:
    for split in SPLITS:
        if list(found[split]) != list(stored[split]):
            got = f"{name}, which gives {len(found[split])} examples of {split} instead of those of the run"
            raise Refusal(got, f"the run's {len(stored[split])}", "use the code and data that the run was trained with")
