"""The update of each module as LoRA factors of a given rank, as a run of its own."""

from collections.abc import Mapping

from nfa.bookkeeping import FLOPS
from nfa.console import bar, stage
from nfa.errors import Refusal
from nfa.registry import tracking
from nfa.registry.analyses.output_folders import output_folder
from nfa.registry.commands import command
from nfa.registry.descriptions import describe_end
from nfa.registry.families.language.figures.spectra import svd_analysis
from nfa.registry.families.language.teacher import svd_report
from nfa.registry.families.language.teacher.compression import Compressed, Randomised, compress
from nfa.registry.families.language.teacher.config import LoraSvdConfig
from nfa.registry.families.language.teacher.steps import check_room, describe_step, end_step, open_step
from nfa.registry.families.language.teacher.updates import UpdateSource, updates_between, updates_of
from nfa.registry.tracking import TrackedRun


def lora_svd(config: LoraSvdConfig, parent: TrackedRun | None = None) -> TrackedRun:
    """Factor every module's update; raise `Refusal` for what has none, or names and shapes that do not fit each other.

    The run gets `svd_factors_rank{rank}.safetensors` (`<module>.lora_A.weight`, `<module>.lora_B.weight`),
    `svd_analysis_rank{rank}.json`, `svd_report_rank{rank}.txt`, `plots/svd_analysis_rank{rank}.png`, and the metrics
    `lora/energy_ratio`, `lora/relative_error` (means over modules) and `nfa/flops`.
    """
    source = _source(config)
    config.check_rank(*source.largest_rank())
    folder = output_folder(config.output_dir)
    stage("source", f"{source.label}, {len(source.shapes)} modules")
    file = f"svd_factors_rank{config.rank}.safetensors"
    with open_step("lora_svd", f"rank {config.rank}", source, config.run_name, parent) as run:
        check_room(run, source, config.rank)
        describe_step(run, config, source, {"factors": file, "circular": source.circular})
        made = _made(config, source)
        _store(run, file, config, source, made)
        _report(run, config, source, made)
        what, after = f"Factors of {source.label}", command("train_lora", init="svd", factors=run.run_id)
        describe_end(run, what, pictures=[f"svd_analysis_rank{config.rank}"], after=after)
    return end_step(run, folder, parent, after)


def _source(config: LoraSvdConfig) -> UpdateSource:
    if config.teacher:
        return updates_between(config.teacher, config.base_model, config.target_list)
    return updates_of(config.run_id, config.checkpoint, config.base_model)


def _made(config: LoraSvdConfig, source: UpdateSource) -> dict[str, Compressed]:
    how = Randomised(config.oversampling, config.iterations, config.seed)
    made = {
        name: compress(source.update(name), config.rank, config.alpha, how)  # not kept, so that one is in memory
        for name in bar(list(source.shapes), "modules", unit="module")
    }
    zero = svd_report.zero_modules(made)
    if len(zero) == len(made):
        got = f"{source.label}: the update of every module is zero"
        raise Refusal(got, "a nonzero update", "checkpoint=auto for the last one, or train it")
    if zero:
        said = "have a zero update and zero factors, which cannot train (see the report)"
        stage("notice", f"{len(zero)} modules {said}")
    lower = sum(0 < one.rank < config.rank for one in made.values())
    if lower:
        said = f"have an update of rank below {config.rank}: directions beyond it are zero and cannot train"
        stage("notice", f"{lower} modules {said}")
    return made


def _store(
    run: TrackedRun, file: str, config: LoraSvdConfig, source: UpdateSource, made: Mapping[str, Compressed]
) -> None:
    tensors = {
        f"{name}.lora_{part}.weight": tensor
        for name, one in made.items()
        for part, tensor in (("A", one.factors.a), ("B", one.factors.b))
    }
    metadata = {
        "rank": str(config.rank),
        "alpha": f"{config.alpha:g}",
        "base_name": source.base_name,
        "base_digest": source.base_digest,
        "source_run_id": source.run_id,
        "circular": str(source.circular).lower(),
        "init_flops": str(sum(one.flops for one in made.values())),
    }
    tracking.put_tensors(run.info, file, tensors, metadata)


def _report(run: TrackedRun, config: LoraSvdConfig, source: UpdateSource, made: Mapping[str, Compressed]) -> None:
    means = svd_report.means(made)
    flops = sum(one.flops for one in made.values())
    run.metrics.log({**{f"lora/{name}": value for name, value in means.items()}, FLOPS: float(flops)}, 0)
    ending = f"rank{config.rank}"
    tracking.put_json(run.info, f"svd_analysis_{ending}.json", svd_report.content(config, source, made))
    tracking.put_text(run.info, f"svd_report_{ending}.txt", svd_report.written(config, source, made))
    defined = {name: one for name, one in made.items() if one.relative_error is not None}
    figure = svd_analysis(
        {name: (one.relative_error or 0.0, one.energy_ratio or 0.0) for name, one in defined.items()},
        [one.spectrum[: one.rank] for one in defined.values()],
        rank=config.rank,
        title=f"{source.what}: {len(made)} modules",
    )
    tracking.save_picture(run, figure, f"svd_analysis_{ending}")
    stage("factors", f"svd_factors_{ending}.safetensors, plots/svd_analysis_{ending}.png and .pdf")
    said = ", ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in means.items())
    stage("mean", f"{said}; {flops:.3g} operations")
