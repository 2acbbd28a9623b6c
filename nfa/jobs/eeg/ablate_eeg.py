"""Presets and single switches of the Conformer, trained with several seeds and compared."""

import csv
import dataclasses
import io
from collections.abc import Mapping, Sequence
from typing import Any

from nfa import tracking
from nfa.config import AblateEEGConfig, GradientFlowConfig, TrainEEGConfig, made_again
from nfa.console import stage
from nfa.ends import Interrupted
from nfa.errors import NfaError, Refusal
from nfa.figures.flow import intervals
from nfa.jobs.analyses import flow_comparison
from nfa.jobs.analyses.arms import Arm, pearson, pearson_difference
from nfa.jobs.analyses.flow_reports import number
from nfa.jobs.analyses.gradient_flow import GradientFlow
from nfa.jobs.analyses.stored_analysis import analyse_each
from nfa.jobs.eeg.train_eeg import prepared, train_one
from nfa.jobs.settings import changed_by_user, run_config
from nfa.maths.statistics import Interval
from nfa.timing import Stopwatch
from nfa.tracking import TrackedRun
from nfa.workloads.eeg import EEGDecoder

HEADER = (
    "arm", "seeds", "parameters", "pearson", "low", "high", "difference", "difference_low", "difference_high",
    "val_pearson", "front_output_ratio", "front_output_update_ratio", "front_weight_change", "training_seconds",
)  # fmt: skip


def ablate_eeg(config: AblateEEGConfig) -> None:
    """A parent run with a training for each arm and seed, their gradient flow, and the comparison of all."""
    run = None
    if config.resume:
        run = tracking.reopen_run(config.resume)
        config = _continued(config, run)
    arms, seeds = config.arms(), config.seed_list()
    workload = prepared(config.training(next(iter(arms.values())), seed=seeds[0]), Stopwatch())
    stage("ablation", f"{len(arms)} arms × {len(seeds)} seeds: {', '.join(arms)}")
    with run or tracking.open_run("ablate_eeg", "eeg", name=config.run_name) as parent:
        fields = {name: value for name, value in dataclasses.asdict(config).items() if name != "resume"}
        parent.log_params(fields)
        data = {"name": workload.data.name, "digest": workload.data.digest()}
        tracking.put_json(parent.info, "config.json", run_config("ablate_eeg", "eeg", {**fields, "resume": ""}, data))
        failures = _train_each(parent, config, workload)
        _compare(parent, list(arms))
        if failures:
            raise NfaError("\n".join(failures))
    stage("done", parent.link)


def _continued(asked: AblateEEGConfig, run: TrackedRun) -> AblateEEGConfig:
    """The stored configuration; `Refusal` where something else was asked for."""
    stored = tracking.config(run.run_id)
    if stored["entrypoint"] != "ablate_eeg":
        got = f"resume={asked.resume} (made by {stored['entrypoint']})"
        raise Refusal(got, "a run made by ablate_eeg", f"-e {stored['entrypoint']} -P resume={asked.resume}")
    with tracking.reading_of(run.run_id, "config.json"):
        before = made_again(AblateEEGConfig, stored["train"])
    return changed_by_user(asked, before)


def _train_each(parent: TrackedRun, config: AblateEEGConfig, workload: EEGDecoder) -> list[str]:
    """Children by arm and seed, each trained, continued or left as finished; what failed does not stop the others."""
    existing = {
        run.data.tags.get("nfa.variant"): run
        for run in tracking.children(parent.run_id, parent.info.info.experiment_id)
    }
    failures = []
    for name, training in _trainings(config).items():
        found = existing.get(name)
        if found and found.data.tags.get("nfa.state") == "finished":
            stage("run", f"{name} is finished already")
            continue
        stage("arm", name)
        try:
            with _child(parent, name, found) as child:
                own = EEGDecoder(training, workload.data, workload.example_ids, workload.device)
                train_one(child, own, Stopwatch())
            parent.tag({"nfa.trained": "true"})
        except NfaError as error:
            failures.append(f"{name}: {error}")
        except Interrupted:
            stage("stopped", f"continue all that is unfinished with resume={parent.run_id}")
            raise
    return failures


def _trainings(config: AblateEEGConfig) -> dict[str, TrainEEGConfig]:
    """Every training by its run's name, all arms of a seed before the next seed."""
    return {
        (name := f"{arm}, seed {seed}"): dataclasses.replace(
            config.training(settings, seed=seed), run_name=name
        ).resolved()
        for seed in config.seed_list()
        for arm, settings in config.arms().items()
    }


def _child(parent: TrackedRun, name: str, found: Any) -> TrackedRun:
    """The run of a training: the one that was begun, or a new one."""
    if found:
        return tracking.take_up(found.info.run_id, parent=parent)
    return tracking.open_run("train_eeg", "eeg", name=name, parent=parent, tags={"nfa.variant": name})


def _compare(parent: TrackedRun, order: Sequence[str]) -> None:
    """Gradient flow of all finished children, then the tables and figures of the comparison in the parent."""
    children = tracking.children(parent.run_id, parent.info.info.experiment_id)
    sources = [child for child in children if child.data.tags.get("nfa.state") == "finished"]
    if not sources:
        return
    sources.sort(key=lambda source: order.index(_arm_of(source)))
    parts = analyse_each(GradientFlow(GradientFlowConfig()), sources)
    ids = dict(zip(parts, [source.info.run_id for source in sources], strict=True))
    names = dict(zip(parts, [_arm_of(source) for source in sources], strict=True))
    arms = flow_comparison.compare(parent, parts, ids, seed=0, labels=names)
    if arms[0].label != order[0]:
        stage("notice", f"no training of {order[0]} has finished: all are compared with {arms[0].label}")
    _report(
        parent, arms, [_row(arm, arms[0], [ids[name] for name in parts if names[name] == arm.label]) for arm in arms]
    )


def _report(parent: TrackedRun, arms: Sequence[Arm], rows: Sequence[Mapping[str, Any]]) -> None:
    """ablation.csv, ablation.txt and the figure of differences to the first arm."""
    text = io.StringIO()
    writer = csv.DictWriter(text, HEADER, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    tracking.put_text(parent.info, "ablation.csv", text.getvalue().rstrip("\n"))
    tracking.put_text(parent.info, "ablation.txt", _written(rows))
    differences = {
        arm.label: found[:3] for arm in arms[1:] if (found := pearson_difference(arm, arms[0], seed=0)) is not None
    }
    if differences:
        figure = intervals(
            differences,
            xlabel=f"difference of Pearson's r to {arms[0].label}, 95 % over recordings and seeds",
            zero=True,
        )
        tracking.save_picture(parent, figure, "ablation")
        stage("figure", "plots/ablation.png and .pdf")
    for line in _written(rows).splitlines():
        stage("", line)


def _arm_of(source: Any) -> str:
    return str(source.data.tags.get("nfa.variant", "")).rpartition(", seed ")[0]


def _row(arm: Arm, first: Arm, sources: Sequence[str]) -> dict[str, Any]:
    """One line of the table; what is undefined is empty."""
    reached, apart = pearson(arm, seed=0), pearson_difference(arm, first, seed=0) if arm is not first else None
    last = {
        key: _last(arm, key) for key in ("front_output_ratio", "front_output_update_ratio", "block_0/weight_change")
    }
    vals = [tracking.get_json(source, "results.json")["val"]["pearson"] for source in sources]
    seconds = [tracking.get_json(source, "timing.json").get("training", 0.0) for source in sources]
    return {
        "arm": arm.label,
        "seeds": len(arm.seeds),
        "parameters": _parameters(sources[0]),
        **_named(reached, ("pearson", "low", "high")),
        **_named(apart, ("difference", "difference_low", "difference_high")),
        "val_pearson": sum(vals) / len(vals) if None not in vals else "",
        "front_output_ratio": last["front_output_ratio"],
        "front_output_update_ratio": last["front_output_update_ratio"],
        "front_weight_change": last["block_0/weight_change"],
        "training_seconds": sum(seconds) / len(seconds),
    }


def _parameters(source: str) -> int:
    model = tracking.load_workload(source).model()
    return sum(weight.numel() for weight in model.parameters())


def _last(arm: Arm, key: str) -> float | str:
    means = arm.mean(f"flow/{key}")
    return means[max(means)] if means else ""


def _named(found: Interval | None, names: Sequence[str]) -> dict[str, float | str]:
    return dict(zip(names, found[:3] if found else ("", "", ""), strict=True))


def _written(rows: Sequence[Mapping[str, Any]]) -> str:
    """Content of ablation.txt."""
    wide = max(len(str(row["arm"])) for row in rows) + 2
    columns = ("r", "95 % interval", "difference", "95 % interval", "gradient", "update", "change", "weights", "s")
    widths = (8, 19, 12, 19, 10, 9, 9, 12, 8)
    lines = [" " * wide + "".join(f"{name:>{width}}" for name, width in zip(columns, widths, strict=True))]
    for row in rows:
        cells = (
            number(row["pearson"] or None), _span(row["low"], row["high"]),
            number(row["difference"]) if row["difference"] != "" else "",
            _span(row["difference_low"], row["difference_high"]),
            *(number(row[key] or None) for key in HEADER[10:13]),
            f"{row['parameters']:,}", f"{row['training_seconds']:.0f}",
        )  # fmt: skip
        shown = "".join(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True))
        lines.append(f"{row['arm']:<{wide}}" + shown)
    notes = "r: test, mean over recordings and seeds; gradient, update: front / output; change: weights of block_0"
    return "\n".join([*lines, notes])


def _span(low: float | str, high: float | str) -> str:
    return "" if low == "" or high == "" else f"({low:.4f}, {high:.4f})"
