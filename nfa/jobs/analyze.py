"""Alignment analysis of stored runs, tracked as runs of their own."""

import dataclasses
import time
from collections.abc import Mapping, Sequence
from typing import Any

from nfa import __version__, schedules, tracking
from nfa.config import AnalyzeConfig
from nfa.console import stage
from nfa.ends import Interrupted, shielded
from nfa.errors import Refusal
from nfa.jobs import analysis_reports, group_reports
from nfa.jobs.checkpoint_analysis import CheckpointAnalysis
from nfa.parallel import World, launch
from nfa.relations import choose_relations
from nfa.tracking import TrackedRun
from nfa.tracking.sources import DIGEST, DONE, Earlier, find_earlier, find_sources

LOSSES = ("train/loss", "val/loss", "eval/loss")
HOW = {"run_id", "epochs", "batch_size", "nproc", "output_dir", "data_dir", "device", "run_name"}  # decide no value
SPACE = 32 * 2**20  # reports, figures and database rows
Source = Any  # an MLflow Run; only nfa.tracking knows the class


def analyze(config: AnalyzeConfig) -> None:
    """Analyse the runs of `config.run_id`; with nproc > 1 this process only starts the others and waits for them."""
    if config.nproc > 1 and not World.launched():
        launch("entrypoints.analyze", config.nproc)
        return
    world = World.joined()
    try:
        if world.rank:
            _assist(config, world)
        else:
            _lead(config, world)
    finally:
        world.close()


def _assist(config: AnalyzeConfig, world: World) -> None:
    """Measure this process's part of the examples wherever the first process does."""
    analysis: CheckpointAnalysis | None = None
    refusal: Refusal | None = None
    while (task := world.tell(None)) is not None:
        if isinstance(task, str):
            try:
                analysis = CheckpointAnalysis(task, config, world)
            except Refusal as refused:
                refusal = refused  # the first process refuses too: it says so and ends, and how it ends counts
        elif refusal:
            raise refusal
        else:
            assert analysis
            analysis.values(task)


def _lead(config: AnalyzeConfig, world: World) -> None:
    sources = find_sources(config.run_id)
    plans = _plans(config, sources)  # refuses before anything is made
    folder = analysis_reports.output_folder(config.output_dir)
    if len(sources) == 1:
        run = _analyse_one(config, sources[0], plans[0], world, adopt=True)
    else:
        run = _analyse_several(config, sources, world)
    world.tell(None)
    if folder:
        tracking.copy_artifacts(run.run_id, folder)
        stage("copy", f"everything is in {folder}")
    stage("done", run.link)


def _analyse_several(config: AnalyzeConfig, sources: Sequence[Source], world: World) -> TrackedRun:
    """An analysis of each run, and a run of its own that holds a copy of each and compares them."""
    ids = [source.info.run_id for source in sources]
    workloads = ",".join(dict.fromkeys(source.data.tags["nfa.workload"] for source in sources))
    tags = {"nfa.source_run_ids": ",".join(ids)}
    run = tracking.open_run("analyze", workloads, name=config.run_name or "analysis of several runs", tags=tags)
    with run:
        run.log_params(dataclasses.asdict(config))
        tracking.put_json(run.info, "config.json", _described(config, ids, {}))
        parts = analyse_each(dataclasses.replace(config, run_name=""), sources, world)
        for source_id, part in zip(ids, parts.values(), strict=True):
            tracking.copy_artifacts_into(run.info, part, source_id)
        analysis_reports.compare(run, parts)
        group_reports.compare_groups(run, parts, dict(zip(parts, ids, strict=True)))
    return run


def analyse_each(config: AnalyzeConfig, sources: Sequence[Source], world: World) -> dict[str, str]:
    """An analysis run of every source, made or copied from an earlier one; their ids by the sources' names."""
    plans = zip(sources, _plans(config, sources), strict=True)
    runs = [_analyse_one(config, source, epochs, world, adopt=False) for source, epochs in plans]
    return dict(zip(_names(sources), [run.run_id for run in runs], strict=True))


def _plans(config: AnalyzeConfig, sources: Sequence[Source]) -> list[list[int]]:
    return [_asked(config, tracking.epochs(source.info.run_id)) for source in sources]


def _names(sources: Sequence[Source]) -> list[str]:
    """Run names, told apart by their ids where they are the same."""
    names = [source.info.run_name for source in sources]
    return [
        name if names.count(name) == 1 else f"{name} {source.info.run_id[:6]}"
        for name, source in zip(names, sources, strict=True)
    ]


def _asked(config: AnalyzeConfig, existing: Sequence[int]) -> list[int]:
    if config.epochs.strip() == "all":
        return list(existing)
    wanted = schedules.parse(config.epochs, max(existing))
    missing = [epoch for epoch in wanted if epoch not in existing]
    if missing:
        have = ", ".join(map(str, existing))
        got = f"epochs={config.epochs} (there is no {missing[0]})"
        raise Refusal(got, f"the run's checkpoints: {have}", "epochs=all")
    return wanted


def _analyse_one(
    config: AnalyzeConfig, source: Source, epochs: Sequence[int], world: World, *, adopt: bool
) -> TrackedRun:
    source_id = source.info.run_id
    stage("source", f"{source_id[:12]} {source.info.run_name}, {len(epochs)} checkpoints")
    digest = tracking.digest(_identity(config, source_id))
    earlier = find_earlier(digest)
    analysis, described = None, earlier.described
    if not set(epochs) <= set(earlier.values):
        world.tell(source_id)
        analysis = CheckpointAnalysis(source_id, config, world)
        described = analysis.analysis.described()
    run = tracking.open_run(
        "analyze",
        source.data.tags["nfa.workload"],
        name=config.run_name or f"analysis of {source.info.run_name}",
        tags={"nfa.source_run_ids": source_id, DIGEST: digest, "mlflow.parentRunId": source_id},
        experiment=source.info.experiment_id,
        adopt=adopt,
    )
    with run:
        tracking.check_space(run.info, total=SPACE, largest=SPACE // 4)
        run.log_params(dataclasses.asdict(config))
        tracking.put_json(run.info, "config.json", _described(config, [source_id], described))
        _log_checkpoints(run, source_id, analysis, epochs, earlier, world)
        analysis_reports.report(run, source.info.run_name)
    return run


def _identity(config: AnalyzeConfig, source_id: str) -> dict[str, Any]:
    """What decides the values."""
    asked = {name: value for name, value in dataclasses.asdict(config).items() if name not in HOW}
    return {**asked, "relations": choose_relations(config.relations), "source": source_id, "nfa_version": __version__}


def _described(config: AnalyzeConfig, sources: Sequence[str], described: Mapping[str, Any]) -> dict[str, Any]:
    """Content of an analysis' `config.json`."""
    return {
        "entrypoint": "analyze",
        "nfa_version": __version__,
        "analyze": dataclasses.asdict(config),
        "sources": list(sources),
        **described,
    }


def _log_checkpoints(
    run: TrackedRun,
    source_id: str,
    analysis: CheckpointAnalysis | None,
    epochs: Sequence[int],
    earlier: Earlier,
    world: World,
) -> None:
    """Series of the run, checkpoint by checkpoint, each whole or not at all."""
    losses = tracking.history(source_id)
    try:
        for epoch in epochs:
            copied = {key: losses[key][epoch] for key in LOSSES if epoch in losses.get(key, {})}
            if epoch in earlier.values:
                values = earlier.values[epoch]
            else:
                assert analysis
                values = _computed(analysis, epoch, world)
                stage(f"epoch {epoch}", analysis_reports.line(values))
            with shielded():
                run.metrics.log({**copied, **values}, epoch)
                run.metrics.flush()
    except Interrupted:
        stage("stopped", "ask for the same analysis again: finished checkpoints are copied, not computed")
        raise
    if copies := [epoch for epoch in epochs if epoch in earlier.values]:
        stage("copied", f"{len(copies)} of {len(epochs)} checkpoints from an earlier run of this analysis")


def _computed(analysis: CheckpointAnalysis, epoch: int, world: World) -> dict[str, float]:
    start = time.perf_counter()
    world.tell(epoch)
    values = analysis.values(epoch)
    return {**values, DONE: time.perf_counter() - start}  # logged last
