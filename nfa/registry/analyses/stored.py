"""Analyses of stored runs, checkpoint by checkpoint; each analysis is a tracked run of its own."""

import re
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from nfa import __version__
from nfa.bookkeeping import FLOPS
from nfa.console import stage
from nfa.content import json_digest
from nfa.plain_text import apart, counted
from nfa.registry import stored_runs, tracking
from nfa.registry.analyses.checkpoint_units import common_unit
from nfa.registry.analyses.config import StoredRunsConfig, asked_epochs
from nfa.registry.analyses.output_folders import copied_into, output_folder
from nfa.registry.analyses.titles import title_of
from nfa.registry.commands import command
from nfa.registry.descriptions import AGAIN, describe_end, describe_start
from nfa.registry.families.protocol import NamedWorkload
from nfa.registry.signals import Interrupted, shielded
from nfa.registry.tracking import TrackedRun
from nfa.registry.tracking.sources import DIGEST, DONE, Earlier, find_earlier, find_sources
from nfa.registry.training.config_json import run_config, write_config

if TYPE_CHECKING:
    from nfa.workload import Workload

LOSSES = ("train/loss", "val/loss", "eval/loss")
SPACE = 32 * 2**20  # reports, figures and database rows
UNDECISIVE = frozenset({"run_id", "output_dir", "data_dir", "workload", "workload_args", "device", "run_name"})
Source = Any  # an MLflow Run; only nfa.registry.tracking knows the class


class OpenedRun(ABC):
    """A stored run that is ready to be measured."""

    @abstractmethod
    def described(self) -> Mapping[str, Any]:
        """Return what config.json states beside the parameters, such as conventions."""

    @abstractmethod
    def values(self, epoch: int, run: TrackedRun) -> dict[str, float]:
        """Return the metrics of a checkpoint; store arrays in the analysis `run`, which has those of earlier epochs."""

    def flops(self) -> float | None:
        """Return the floating-point operations of the checkpoint measured last; None if they are not known."""
        return None


class StoredAnalysis(ABC):
    """What an entry point measures on stored runs, and how it reports the results.

    The names of its runs begin with `title`. `undecisive` lists parameters that are not part of the digest, because
    they do not affect any value or because something else represents them, as the code does for a workload. The first
    of its `pictures` that a run has is shown in the run's description, and `followed_by` is the analysis to do next.
    """

    entrypoint: ClassVar[str]
    title: ClassVar[str]
    undecisive: ClassVar[frozenset[str]]
    pictures: ClassVar[tuple[str, ...]] = ()
    followed_by: ClassVar[str] = "analyze"

    def __init__(self, config: Any) -> None:
        self.config = config

    def epochs(self, existing: Sequence[int]) -> list[int]:
        """Return the checkpoints to measure; raise `Refusal` for one that does not exist."""
        return asked_epochs(self.config.epochs, existing)

    def identity(self, epochs: Sequence[int]) -> Mapping[str, Any]:  # noqa: ARG002 - checkpoints are independent
        """Return the parameters that affect the values of a checkpoint."""
        return {name: value for name, value in asdict(self.config).items() if name not in self.undecisive}

    def files(self, epoch: int, unit: str) -> list[str]:  # noqa: ARG002 - usually, there are no files
        """Return the artifacts that belong to a checkpoint."""
        return []

    def space(self, epochs: Sequence[int]) -> int:  # noqa: ARG002 - usually, there are no arrays
        """Return the approximate bytes of a run's arrays and figures."""
        return 0

    @abstractmethod
    def open(self, source: str, epochs: Sequence[int]) -> OpenedRun:
        """Load a run; raise `Refusal` if it cannot be measured."""

    def begin(self, opened: OpenedRun, plan: "AnalysisPlan", run: TrackedRun) -> None:  # noqa: B027 - often, nothing
        """Decide what depends on several checkpoints together, before the description is stored."""

    @abstractmethod
    def line(self, values: Mapping[str, float]) -> str:
        """Return the console line of a checkpoint."""

    @abstractmethod
    def report(self, run: TrackedRun, title: str) -> None:
        """Write the tables and figures of one analysed run, from what `run` has logged."""

    @abstractmethod
    def compare(self, run: TrackedRun, parts: Mapping[str, str], sources: Mapping[str, str]) -> None:
        """Compare several analyses; `parts` and `sources` map run names to ids of analyses and of analysed runs."""


@dataclass
class AnalysisPlan:
    """One run to analyse: its checkpoints, those that an earlier analysis has measured, and how to measure the rest."""

    kind: StoredAnalysis
    source: Source
    epochs: list[int]
    unit: str  # of the checkpoints: epoch or step
    digest: str
    earlier: Earlier
    opened: OpenedRun | None = None

    @classmethod
    def of(cls, kind: StoredAnalysis, source: Source) -> "AnalysisPlan":
        """Plan the analysis of a run; raise `Refusal` for epochs that do not exist and for damaged files."""
        source_id = source.info.run_id
        asked = kind.epochs(tracking.epochs(source_id))
        code = stored_runs.code_of(source_id, named_workload(kind.config))
        identity = {**kind.identity(asked), **code, "source": source_id, "nfa_version": __version__}
        digest = json_digest(identity)
        plan = cls(kind, source, asked, tracking.unit(source_id), digest, find_earlier(digest, kind.entrypoint))
        plan.check()
        return plan

    def check(self) -> None:
        """Raise `Refusal` if a checkpoint to be measured or an array to be copied is damaged."""
        for epoch in self.epochs:
            if epoch not in self.earlier.runs:
                stored_runs.check_checkpoint(self.source.info.run_id, epoch)
            for path in self.kind.files(epoch, self.unit) if epoch in self.earlier.runs else ():
                tracking.read(self.earlier.runs[epoch], path)

    def prepare(self) -> None:
        """Load the run unless every checkpoint is already measured; raise `Refusal` if it cannot be analysed."""
        if self.opened is None and not set(self.epochs) <= set(self.earlier.values):
            self.opened = self.kind.open(self.source.info.run_id, self.epochs)

    @property
    def described(self) -> Mapping[str, Any]:
        """Return what config.json states beside the parameters."""
        return self.opened.described() if self.opened else self.earlier.described


def analyse(kind: StoredAnalysis) -> TrackedRun:
    """Analyse the runs that `kind.config.run_id` names. All of them are checked before the first run is created."""
    sources = find_sources(kind.config.run_id)
    plans = [AnalysisPlan.of(kind, source) for source in sources]
    folder = output_folder(kind.config.output_dir, [source.info.run_id for source in sources[1:] and sources])
    for plan in reversed(plans):  # only the first stays loaded, to save memory
        plan.prepare()
        if plan is not plans[0]:
            plan.opened = None
    run = _one(plans[0], adopt=True) if len(plans) == 1 else _several(kind, plans)
    copied_into(folder, run)
    stage("next", _after(kind, run))
    stage("done", run.link)
    return run


def analyse_each(kind: StoredAnalysis, sources: Sequence[Source]) -> dict[str, str]:
    """Analyse every source, reusing earlier results; return the ids of the analysis runs by source name."""
    return _each([AnalysisPlan.of(kind, source) for source in sources])


def _each(plans: Sequence[AnalysisPlan]) -> dict[str, str]:
    return dict(zip(_names(plans), [_one(plan, adopt=False).run_id for plan in plans], strict=True))


def _several(kind: StoredAnalysis, plans: Sequence[AnalysisPlan]) -> TrackedRun:
    """Analyse each run, and compare them in one more run that holds copies of all analyses."""
    ids = [plan.source.info.run_id for plan in plans]
    workloads = ",".join(dict.fromkeys(plan.source.data.tags["nfa.workload"] for plan in plans))
    tags = {"nfa.source_run_ids": ",".join(ids)}
    name, otherwise = kind.config.run_name, f"{kind.title} of {_together(kind, plans)}"
    run = tracking.open_run(kind.entrypoint, workloads, name=name, otherwise=otherwise, tags=tags)
    with run:
        run.log_params(asdict(kind.config))
        describe_start(run, run.info.info.run_name, AGAIN)
        unit = common_unit(plan.unit for plan in plans)
        write_config(run, content(kind, ids, unit, {}))
        parts = _each(plans)
        for source_id, part in zip(ids, parts.values(), strict=True):
            tracking.copy_artifacts_into(run.info, part, source_id)
        kind.compare(run, parts, dict(zip(parts, ids, strict=True)))
        _describe(kind, run, f"{len(parts)} runs: {', '.join(parts)}", [])
    return run


def _together(kind: StoredAnalysis, plans: Sequence[AnalysisPlan]) -> str:
    """Return the name of the parent that the user typed, or the number of the runs."""
    typed = kind.config.run_id.strip()
    return f"{len(plans)} runs" if "," in typed else str(tracking.find_run(typed).info.run_name)


def _names(plans: Sequence[AnalysisPlan]) -> list[str]:
    """Return what sets the runs' names apart; equal names are followed by ids."""
    runs = [plan.source.info for plan in plans]
    names = apart([run.run_name for run in runs])
    return [
        name if names.count(name) == 1 else f"{name} {run.run_id[:6]}" for name, run in zip(names, runs, strict=True)
    ]


def _one(plan: AnalysisPlan, *, adopt: bool) -> TrackedRun:
    kind, source = plan.kind, plan.source.info
    stage("source", f"{source.run_id[:12]} {source.run_name}, {counted(len(plan.epochs), 'checkpoint')}")
    plan.prepare()
    run = tracking.open_run(
        kind.entrypoint,
        plan.source.data.tags["nfa.workload"],
        name=kind.config.run_name if adopt else "",
        otherwise=f"{kind.title} of {source.run_name}",
        tags={"nfa.source_run_ids": source.run_id, DIGEST: plan.digest, "mlflow.parentRunId": source.run_id},
        experiment=source.experiment_id,
        adopt=adopt,
    )
    with run:
        tracking.check_space(run.info, total=SPACE + kind.space(plan.epochs), largest=SPACE // 4)
        run.log_params(asdict(kind.config))
        describe_start(run, run.info.info.run_name, AGAIN)
        if plan.opened:
            kind.begin(plan.opened, plan, run)
        write_config(run, content(kind, [source.run_id], plan.unit, plan.described))
        if coverage := plan.described.get("coverage"):  # analyses before 0.7 do not state it
            run.tag({"nfa.coverage": coverage})
            stage("coverage", coverage)
        last = _log_checkpoints(run, plan)
        plan.opened = None  # to free memory for the next run
        title = title_of(plan.source)
        kind.report(run, title)
        _describe(kind, run, title, [*filter(None, [coverage]), re.sub(r"\s+[\d.]+ s$", "", last)])
    return run


def _describe(kind: StoredAnalysis, run: TrackedRun, of: str, results: Sequence[str]) -> None:
    what = f"{kind.title} of {of}"
    describe_end(run, what[0].upper() + what[1:], results=results, pictures=kind.pictures, after=_after(kind, run))


def _after(kind: StoredAnalysis, run: TrackedRun) -> str:
    """Return the command that is useful after an analysis."""
    ids, typed = run.info.data.tags["nfa.source_run_ids"], kind.config.run_id
    return command(kind.followed_by, run_id=ids if typed == "latest" or "," not in ids else typed)


def content(kind: StoredAnalysis, sources: Sequence[str], unit: str, described: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of an analysis' `config.json`."""
    known = {kind.entrypoint: asdict(kind.config), "sources": list(sources), **described, "unit": unit}
    return run_config(kind.entrypoint, known)


def _log_checkpoints(run: TrackedRun, plan: AnalysisPlan) -> str:
    """Log the values of each checkpoint, all of them or none; return the console line of the last one."""
    losses = tracking.history(plan.source.info.run_id, LOSSES)
    try:
        for epoch in plan.epochs:
            copied = {key: losses[key][epoch] for key in LOSSES if epoch in losses.get(key, {})}
            values = _copied(run, plan, epoch) if epoch in plan.earlier.values else _measured(run, plan, epoch)
            with shielded():
                run.metrics.log({**copied, **values}, epoch)
                run.metrics.flush()
    except Interrupted:
        stage("stopped", "run the same command again to continue; finished checkpoints are copied, not computed again")
        raise
    if copies := [epoch for epoch in plan.epochs if epoch in plan.earlier.values]:
        number = counted(len(plan.epochs), "checkpoint")
        stage("copied", f"{len(copies)} of {number}, from an earlier run of this analysis")
    return f"{plan.unit} {plan.epochs[-1]}: {plan.kind.line(values)}"


def _copied(run: TrackedRun, plan: AnalysisPlan, epoch: int) -> dict[str, float]:
    for path in plan.kind.files(epoch, plan.unit):
        tracking.copy_artifact(run.info, plan.earlier.runs[epoch], path)
    return plan.earlier.values[epoch]


def _measured(run: TrackedRun, plan: AnalysisPlan, epoch: int) -> dict[str, float]:
    assert plan.opened
    start = time.perf_counter()
    values = plan.opened.values(epoch, run)
    seconds, flops = values.pop(DONE, time.perf_counter() - start), plan.opened.flops()
    values |= {**({FLOPS: flops} if flops else {}), DONE: seconds}  # the seconds are logged last
    stage(f"{plan.unit} {epoch}", plan.kind.line(values))
    return values


def named_workload(config: StoredRunsConfig) -> NamedWorkload:
    """Return the workload that was named for rebuilding runs."""
    return NamedWorkload(config.workload, config.workload_args)


def workload_of(source: str, config: StoredRunsConfig) -> "Workload":
    """Rebuild the workload of a run on the device and data that the parameters name."""
    named = named_workload(config)
    return stored_runs.load_workload(source, device=config.device, data_dir=config.data_dir or None, named=named)
