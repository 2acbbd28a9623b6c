"""Ablation of the Conformer: presets and single switches, trained with several seeds and compared."""

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from nfa.console import stage
from nfa.errors import NfaError, Refusal
from nfa.figures.flow import intervals
from nfa.maths.statistics import Interval
from nfa.plain_text import counted, csv_text, table_row
from nfa.registry import stored_runs, tracking
from nfa.registry.analyses import gradient_flow_comparison
from nfa.registry.analyses.arms import Arm, score_difference, score_interval
from nfa.registry.analyses.config import GradientFlowConfig
from nfa.registry.analyses.gradient_flow import GradientFlow
from nfa.registry.analyses.gradient_flow_report import number
from nfa.registry.analyses.stored import analyse_each
from nfa.registry.analyses.titles import subject_of
from nfa.registry.commands import command
from nfa.registry.descriptions import continued_by, describe_end, describe_start, table_of_children
from nfa.registry.families.eeg.config import AblateEEGConfig, TrainEEGConfig
from nfa.registry.families.registry import family_of
from nfa.registry.families.stored import made_again
from nfa.registry.stopwatch import Stopwatch
from nfa.registry.tracking import TrackedRun
from nfa.registry.training.children import Job, Trainer, train_all
from nfa.registry.training.comparison import log_comparison
from nfa.registry.training.config_json import training_config, write_config
from nfa.registry.training.resume import changed_by_user
from nfa.registry.training.start import prepared
from nfa.registry.training.time_spent import timed

HEADER = (
    "arm", "seeds", "parameters", "pearson", "low", "high", "difference", "difference_low", "difference_high",
    "val_pearson", "front_output_ratio", "front_output_update_ratio", "front_weight_change", "training_seconds",
)  # fmt: skip
OF_FLOW = {
    "front_output_ratio": "flow/front_output_ratio",
    "front_output_update_ratio": "flow/front_output_update_ratio",
    "front_weight_change": "flow/block_0/weight_change",
}
OF_SEED = ("arm", "seed", "run_id", "pearson", "val_pearson", *OF_FLOW, "training_seconds")


def ablate_eeg(config: AblateEEGConfig) -> None:
    """Create a parent run with a training per arm and seed, analyse gradient flow, and compare the arms."""
    run, clock = None, Stopwatch()
    if config.resume:
        run = tracking.reopen_run(config.resume)
        config = _continued(config, run)
    arms, seeds = config.arms(), config.seed_list()
    trainings = _trainings(config)
    family = family_of(next(iter(trainings.values())))
    ready = prepared(family, next(iter(trainings.values())), clock)
    stage("ablation", f"{counted(len(arms), 'arm')} × {counted(len(seeds), 'seed')}: {', '.join(arms)}")
    called = f"{ready.data.name} eeg, {counted(len(arms), 'arm')}, seeds {config.seeds}"
    run = run or tracking.open_run("ablate_eeg", "eeg", name=config.run_name, otherwise=called)
    with run as parent, timed(parent, clock, family=True):
        fields = {name: value for name, value in dataclasses.asdict(config).items() if name != "resume"}
        parent.log_params(fields)
        data = {"name": ready.data.name, "digest": ready.data.digest()}
        content = training_config("ablate_eeg", "eeg", AblateEEGConfig, {**fields, "resume": ""}, data)
        write_config(parent, content)
        what = f"{counted(len(arms), 'arm')} on {ready.data.name} EEG: {', '.join(arms)}"
        describe_start(parent, what, continued_by(command("ablate_eeg", resume=parent.run_id)))
        jobs = [Job(name, name, one, (parent.run_id,), ready.example_ids) for name, one in trainings.items()]
        trainer = Trainer()
        trainer.data.put(ready.config, ready.data)
        with clock.part():
            failures = train_all(jobs, trainer, config.n_workers)
        with clock.section("comparison"):
            _compare(parent, list(arms), failures)
        after = command("analyze", run_id=parent.run_id)
        describe_end(parent, what, table=table_of_children(parent), pictures=["ablation"], after=after)
        if failures:
            raise NfaError("\n".join(f"{name}: {reason}" for name, reason in failures.items()))
    stage("next", after)
    stage("compare", tracking.link_to_children(parent.info))
    stage("done", parent.link)


def _continued(asked: AblateEEGConfig, run: TrackedRun) -> AblateEEGConfig:
    """Return the stored configuration; raise `Refusal` if other parameters were given."""
    stored = tracking.config(run.run_id)
    if stored["entrypoint"] != "ablate_eeg":
        got = f"resume={asked.resume} (made by {stored['entrypoint']})"
        raise Refusal(got, "a run made by ablate_eeg", f"-e {stored['entrypoint']} -P resume={asked.resume}")
    with tracking.reading_of(run.run_id, "config.json"):
        before = made_again(AblateEEGConfig, stored["train"])
    return changed_by_user(asked, before)


def _trainings(config: AblateEEGConfig) -> dict[str, TrainEEGConfig]:
    """Return every training by its run's name, ordered by seed."""
    return {
        (name := f"{arm}, seed {seed}"): dataclasses.replace(
            config.training(settings, seed=seed), run_name=name
        ).resolved()
        for seed in config.seed_list()
        for arm, settings in config.arms().items()
    }


def _compare(parent: TrackedRun, order: Sequence[str], failures: Mapping[str, str]) -> None:
    """Analyse gradient flow of all finished children, then write the comparison to the parent."""
    children = tracking.children(parent.run_id, parent.info.info.experiment_id)
    sources = [child for child in children if child.data.tags.get("nfa.state") == "finished"]
    if not sources:
        return
    sources.sort(key=lambda source: order.index(_arm_of(source)))
    parts = analyse_each(GradientFlow(GradientFlowConfig()), sources)
    ids = dict(zip(parts, [source.info.run_id for source in sources], strict=True))
    names = dict(zip(parts, [_arm_of(source) for source in sources], strict=True))
    failed = Counter(name.rpartition(", seed ")[0] for name in failures)
    arms = gradient_flow_comparison.compare(parent, parts, ids, seed=0, labels=names, failed=failed)
    if arms[0].label != order[0]:
        stage("notice", f"no training of {order[0]} has finished, so arms are compared with {arms[0].label}")
    of_arms = {arm.label: [ids[name] for name in parts if names[name] == arm.label] for arm in arms}
    log_comparison(parent, family_of(TrainEEGConfig()), of_arms)
    of_seeds = {arm.label: _of_seeds(arm, of_arms[arm.label]) for arm in arms}
    rows = [_row(arm, arms[0], of_seeds[arm.label]) for arm in arms]
    _report(parent, arms, rows, of_seeds, failures, subject_of([*ids.values()]))


def _report(
    parent: TrackedRun,
    arms: Sequence[Arm],
    rows: Sequence[Mapping[str, Any]],
    of_seeds: Mapping[str, Sequence[Mapping[str, Any]]],
    failures: Mapping[str, str],
    subject: str,
) -> None:
    """Write ablation.csv, ablation_trainings.csv, ablation.txt and the figure of differences from the first arm."""
    each = [training for trainings in of_seeds.values() for training in trainings]
    for name, header, lines in (("ablation", HEADER, rows), ("ablation_trainings", OF_SEED, each)):
        tracking.put_text(parent.info, f"{name}.csv", _table(header, lines))
    text = _written(rows, each, failures)
    tracking.put_text(parent.info, "ablation.txt", text)
    differences = {
        arm.label: found[:3] for arm in arms[1:] if (found := score_difference(arm, arms[0], seed=0)) is not None
    }
    if differences:
        figure = intervals(
            differences,
            xlabel=f"difference in Pearson's r from {arms[0].label}, mean and 95 % interval over recordings and seeds",
            title=f"{subject}: r on the test recordings, {len(arms[0].seeds)} seeds",
            limits=(-2.0, 2.0),
            zero=True,
        )
        tracking.save_picture(parent, figure, "ablation")
        stage("figure", "plots/ablation.png and .pdf")
    for line in text.splitlines():
        stage("", line)


def _table(header: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    return csv_text(header, ([row[name] for name in header] for row in rows))


def _arm_of(source: Any) -> str:
    return str(source.data.tags.get("nfa.variant", "")).rpartition(", seed ")[0]


def _of_seeds(arm: Arm, sources: Sequence[str]) -> list[dict[str, Any]]:
    """Return a row per training of an arm, with its flow at the last common epoch; undefined values are empty."""
    of_seed = {tracking.config(source)["train"]["seed"]: source for source in reversed(sources)}
    last = {name: max(arm.mean(key), default=-1) for name, key in OF_FLOW.items()}
    return [
        {
            "arm": arm.label,
            "seed": seed,
            "run_id": of_seed[seed],
            "pearson": _r(of_seed[seed], "test"),
            "val_pearson": _r(of_seed[seed], "val"),
            **{name: series.get(key, {}).get(last[name], "") for name, key in OF_FLOW.items()},
            "training_seconds": tracking.get_json(of_seed[seed], "timing.json").get("training", 0.0),
        }
        for seed, series in zip(arm.seeds, arm.series, strict=True)
    ]


def _r(source: str, split: str) -> float | str:
    found: float | None = tracking.get_json(source, "results.json")[split]["pearson"]
    return "" if found is None else found


def _row(arm: Arm, first: Arm, trainings: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return an arm's row of the table; undefined values are empty."""
    reached, apart = score_interval(arm, seed=0), score_difference(arm, first, seed=0) if arm is not first else None
    vals, seconds = ([one[name] for one in trainings] for name in ("val_pearson", "training_seconds"))
    return {
        "arm": arm.label,
        "seeds": len(arm.seeds),
        "parameters": _parameters(trainings[0]["run_id"]),
        **_named(reached, ("pearson", "low", "high")),
        **_named(apart, ("difference", "difference_low", "difference_high")),
        "val_pearson": "" if arm.failed or "" in vals else sum(vals) / len(vals),
        **{name: _last(arm, key) for name, key in OF_FLOW.items()},
        "training_seconds": sum(seconds) / len(seconds),
    }


def _parameters(source: str) -> int:
    model = stored_runs.load_workload(source).model()
    return sum(weight.numel() for weight in model.parameters())


def _last(arm: Arm, key: str) -> float | str:
    means = arm.mean(key)
    return means[max(means)] if means else ""


def _named(found: Interval | None, names: Sequence[str]) -> dict[str, float | str]:
    return dict(zip(names, found[:3] if found else ("", "", ""), strict=True))


def _written(rows: Sequence[Mapping[str, Any]], each: Sequence[Mapping[str, Any]], failures: Mapping[str, str]) -> str:
    """Return the content of ablation.txt."""
    wide = max(len(str(row["arm"])) for row in rows) + 2
    columns = ("seeds", "r", "95 % interval", "difference", "95 % interval", "gradient", "update", "change", "weights")
    widths, of_each = (7, 8, 19, 12, 19, 10, 9, 9, 12, 8), (7, *[14] * 6)
    lines = [table_row("", (*columns, "s"), wide, widths)]
    for row in rows:
        cells = (
            row["seeds"], number(row["pearson"] or None), _span(row["low"], row["high"]),
            number(row["difference"]) if row["difference"] != "" else "",
            _span(row["difference_low"], row["difference_high"]),
            *(number(row[key] or None) for key in OF_FLOW),
            f"{row['parameters']:,}", f"{row['training_seconds']:.0f}",
        )  # fmt: skip
        lines.append(table_row(row["arm"], cells, wide, widths))
    notes = (
        "r: mean over test recordings and seeds. gradient, update: ratio front / output, including gradient_scale. "
        "change: relative weight change of block_0. These three are geometric means over seeds; s (seconds) is a mean."
    )
    heading = ("seed", "r", "val r", "gradient", "update", "change", "s")
    lines += [notes, "", table_row("each training", heading, wide, of_each)]
    for one in each:
        values = (number(None if one[key] == "" else one[key]) for key in ("pearson", "val_pearson", *OF_FLOW))
        lines.append(table_row(one["arm"], (one["seed"], *values, f"{one['training_seconds']:.0f}"), wide, of_each))
    failed = [f"{name} failed ({reason}), so its arm has no mean" for name, reason in failures.items()]
    return "\n".join([*lines, *([""] if failed else []), *failed])


def _span(low: float | str, high: float | str) -> str:
    return "" if low == "" or high == "" else f"({low:.4f}, {high:.4f})"
