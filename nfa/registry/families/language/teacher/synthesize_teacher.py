"""A teacher of higher rank, synthesised from a trained adapter, as a run of its own."""

import dataclasses
import json

from nfa.console import bar, stage
from nfa.errors import Refusal
from nfa.maths.low_rank import FactorPair
from nfa.registry import tracking
from nfa.registry.analyses.output_folders import output_folder
from nfa.registry.commands import command
from nfa.registry.descriptions import describe_end
from nfa.registry.families.language.figures.spectra import synthesis_plots
from nfa.registry.families.language.teacher import teacher_report
from nfa.registry.families.language.teacher.config import SynthesizeTeacherConfig
from nfa.registry.families.language.teacher.steps import check_room, describe_step, end_step, open_step
from nfa.registry.families.language.teacher.synthesis import Synthesized, synthesize
from nfa.registry.families.language.teacher.updates import UpdateSource, adapter_of
from nfa.registry.tracking import TrackedRun


def synthesize_teacher(config: SynthesizeTeacherConfig, parent: TrackedRun | None = None) -> TrackedRun:
    """Keep an adapter's triplets, extend them, add noise; `Refusal` for a run without an adapter that has learned.

    The run gets `synthesized_delta_rank{target_rank}.safetensors` (`<module>.U`, `.S`, `.Vh`; the noise as seed and
    sigmas in its metadata), `synthesis_report.txt`, `results.json` and `plots/synthesis_plots.png`.
    """
    source = adapter_of(config.run_id, config.checkpoint)
    rank = _rank(config, source)
    folder = output_folder(config.output_dir)
    stage("source", f"{source.label}, {len(source.shapes)} modules")
    file = f"synthesized_delta_rank{config.target_rank}.safetensors"
    with open_step("synthesize_teacher", "teacher", source, config.run_name, parent) as run:
        check_room(run, source, config.target_rank)
        describe_step(run, dataclasses.replace(config, rank=rank), source, {"teacher": file, "circular": True})
        made = _made(config, source, rank)
        _notice(config, made)
        _store(run, file, config, source, made)
        tracking.put_text(run.info, "synthesis_report.txt", teacher_report.written(config, source, made))
        tracking.put_json(run.info, "results.json", teacher_report.content(config, source, made))
        _draw(run, config, source, made, rank)
        stage("teacher", f"{file}, synthesis_report.txt, plots/synthesis_plots.png and .pdf")
        what, after = f"Teacher made from {source.label}", command("lora_svd", run_id=run.run_id)
        describe_end(run, what, pictures=["synthesis_plots"], after=after)
    return end_step(run, folder, parent, after)


def _draw(
    run: TrackedRun, config: SynthesizeTeacherConfig, source: UpdateSource, made: dict[str, Synthesized], rank: int
) -> None:
    spectra = {name: (one.before, one.matrix.s.tolist()) for name, one in made.items()}
    noise = {name: config.noise_scale * float(one.matrix.s[one.kept - 1]) for name, one in made.items()}
    title = f"{source.what}: {rank} triplets kept, {config.target_rank} in the teacher"
    tracking.save_picture(run, synthesis_plots(spectra, noise, kept=rank, title=title), "synthesis_plots")


def _rank(config: SynthesizeTeacherConfig, source: UpdateSource) -> int:
    """The triplets to keep; raise `Refusal` for more than every module's adapter has."""
    most, module = source.largest_rank()
    asked = source.adapter_rank if config.rank == "auto" else config.rank
    assert asked is not None
    if config.rank != "auto" and asked > most:
        got = f"rank={asked} for {module}, whose update has at most rank {most}"
        raise Refusal(got, f"1 to {most}", "rank=auto")
    if config.target_rank < asked:
        got = f"target_rank={config.target_rank} for an adapter of rank {asked}"
        raise Refusal(got, f"a number ≥ {asked}", f"target_rank={max(64, asked)}, or a smaller rank")
    return min(asked, most)


def _made(config: SynthesizeTeacherConfig, source: UpdateSource, rank: int) -> dict[str, Synthesized]:
    made = {}
    for name in bar(list(source.shapes), "modules", unit="module"):
        update = source.update(name)
        assert isinstance(update, FactorPair)
        made[name] = synthesize(update, name, rank=rank, **teacher_report.announced(config))
    if not any(one.energies for one in made.values()):
        got = f"{source.label}: the update of every module is zero"
        raise Refusal(got, "an adapter with a nonzero update", "checkpoint=auto for its last one, or train it")
    return made


def _notice(config: SynthesizeTeacherConfig, made: dict[str, Synthesized]) -> None:
    clamped = [name for name, one in made.items() if one.clamped]
    if clamped:
        most = min(len(made[name].matrix.s) for name in clamped)
        said = f"have fewer than {config.target_rank} directions and keep all they have, {most} or more"
        stage("notice", f"{len(clamped)} modules {said}")
    zero = [name for name, one in made.items() if not one.energies]
    if zero:
        stage("notice", f"{len(zero)} modules have a zero update, and so has the teacher: {', '.join(zero[:3])} …")


def _store(
    run: TrackedRun, file: str, config: SynthesizeTeacherConfig, source: UpdateSource, made: dict[str, Synthesized]
) -> None:
    tensors = {
        f"{name}.{key}": part
        for name, one in made.items()
        for key, part in zip(("U", "S", "Vh"), one.matrix, strict=True)
    }
    metadata = {
        "noise_seed": str(config.seed),
        "sigmas": json.dumps({name: one.sigma for name, one in made.items()}),
        "base_name": source.base_name,
        "base_digest": source.base_digest,
        "source_run_id": source.run_id,
        "source_checkpoint": str(source.checkpoint),
        "circular": "true",
    }
    tracking.put_tensors(run.info, file, tensors, metadata)
