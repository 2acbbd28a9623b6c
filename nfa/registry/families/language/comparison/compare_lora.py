"""Compare stored fine-tunings that start differently."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from nfa.console import stage
from nfa.maths.statistics import Interval
from nfa.plain_text import counted
from nfa.registry import tracking
from nfa.registry.analyses.output_folders import output_folder
from nfa.registry.commands import command
from nfa.registry.descriptions import describe_end
from nfa.registry.families.language.comparison import report, study
from nfa.registry.families.language.comparison.arms import arms_of
from nfa.registry.families.language.comparison.study import RANDOM, FineTuning, LossDifference, StartArm, StepsToTarget
from nfa.registry.families.language.config import CompareLoraConfig
from nfa.registry.families.language.family import LanguageModels
from nfa.registry.families.language.figures.comparison import Curves, Differences, comparison
from nfa.registry.families.language.teacher.steps import end_step, step_config
from nfa.registry.tracking import TrackedRun
from nfa.registry.tracking.sources import find_sources
from nfa.registry.training.config_json import write_config

EXPERIMENT = "experiment.json"  # of a run of lora_experiment: the runs of its steps by name
Found = dict[str, Any]


def compare_lora(config: CompareLoraConfig, parent: TrackedRun | None = None) -> TrackedRun:
    """Create a run with comparison_report.txt, comparison.json, plots/comparison_random_vs_svd.png and differences."""
    sources = list(dict.fromkeys(run_id for part in config.run_id.split(",") for run_id in _sources(part.strip())))
    arms = arms_of(sources)
    folder = output_folder(config.output_dir)
    stage("arms", "; ".join(f"{arm.label} ({counted(len(arm.trained), 'seed')})" for arm in arms))
    tags = {"nfa.source_run_ids": ",".join(sources)}
    name, otherwise = config.run_name, f"comparison of {counted(len(arms), 'start')}"
    run = tracking.open_run("compare_lora", "lora", name=name, otherwise=otherwise, parent=parent, tags=tags)
    with run:
        run.log_params({**dataclasses.asdict(config), "run_id": config.run_id[:1000]})
        found = compared(arms, config)
        write_config(run, step_config("compare_lora", config, sources))
        tracking.put_json(run.info, "comparison.json", found)
        text = report.written(found)
        tracking.put_text(run.info, "comparison_report.txt", text)
        run.metrics.log(_series(found), 0)
        tracking.save_picture(run, _figure(arms, found), "comparison_random_vs_svd")
        verdicts = list(report.verdicts(found))
        for line in verdicts:
            stage("verdict", line)
        stage("figure", "comparison_report.txt, plots/comparison_random_vs_svd.png and .pdf")
        what, after = "; ".join(arm.label for arm in arms), command("analyze", run_id=",".join(sources))
        describe_end(run, what, results=verdicts, pictures=["comparison_random_vs_svd"], after=after)
    return end_step(run, folder, parent, after)


def _sources(text: str) -> list[str]:
    """Return ids of fine-tunings; an experiment stands for its listed runs except the teacher's."""
    run_id = tracking.find_run(text).info.run_id
    if not tracking.has_artifact(run_id, EXPERIMENT):
        return [source.info.run_id for source in find_sources(text)]
    made = tracking.get_json(run_id, EXPERIMENT)["runs"].values()
    trained = [one for one in made if tracking.config(one)["entrypoint"] == "train_lora"]
    return [one for one in trained if tracking.config(one)["train"]["init"] != "full"]


def compared(arms: Sequence[StartArm], config: CompareLoraConfig) -> Found:
    """Return the content of comparison.json: every arm, and every other start compared with random."""
    target = _target(arms, config)
    return {
        "arms": [_alone(arm, target) for arm in arms],
        "target_loss": target,
        "comparisons": [_against_random(arm, arms, target, config.seed) for arm in arms if arm.start != RANDOM],
        "conventions": report.CONVENTIONS,
        "notes": report.notes(arms),
    }


def _target(arms: Sequence[StartArm], config: CompareLoraConfig) -> float | None:
    """Return the target loss: the given one, or the final loss of random adapters (those with the fewest steps)."""
    if config.target != "auto":
        return config.target
    first = min((arm for arm in arms if arm.start == RANDOM), key=lambda arm: arm.last, default=None)
    return None if first is None else first.mean("final")


def _alone(arm: StartArm, target: float | None) -> Found:
    seeds = {str(seed): _of_seed(one, target) for seed, one in sorted(arm.trained.items())}
    steps = [one["steps_to_target"] for one in seeds.values()]
    starts = [one.start_operations for one in arm.trained.values() if one.start_operations is not None]
    return {
        "label": arm.label,
        "start": arm.start,
        "steps": arm.last,
        **{f"{of}_loss": arm.mean(of) for of in ("initial", "final", "best")},
        "seeds_at_target": sum(each is not None for each in steps),
        "steps_to_target": None if target is None else study.mean_restricted(steps, arm.last),
        "operations": arm.total,
        "start_operations": math.fsum(starts) / len(starts) if len(starts) == len(seeds) else None,
        "by_seed": seeds,
    }


def _of_seed(one: FineTuning, target: float | None) -> Found:
    return {
        "run_id": one.run_id,
        **{f"{of}_loss": one.loss(of) for of in ("initial", "final", "best")},
        "steps_to_target": None if target is None else one.steps_to(target),
        "operations": one.total,
        "start_operations": one.start_operations,
    }


def _against_random(arm: StartArm, arms: Sequence[StartArm], target: float | None, seed: int) -> Found:
    equal, further = study.partner(arm, arms), study.partner_in_compute(arm, arms)
    found: Found = {"arm": arm.label, "random": equal and equal.label, "random_in_compute": further and further.label}
    if equal:
        found["at_equal_steps"] = _difference(study.at_end(arm, equal, seed=seed))
        found |= {f"{of}_difference": _interval(study.paired(arm, equal, of)) for of in ("initial", "best")}
        found["steps_to_target"] = None if target is None else _reached(study.reached(arm, equal, target))
    if further:
        found["at_equal_compute"] = _difference(study.at_equal_compute(arm, further, seed=seed))
    return found


def _difference(found: LossDifference | None) -> Found | None:
    if found is None:
        return None
    return {
        "mean": found.mean,
        "low": found.interval and found.interval.low,
        "high": found.interval and found.interval.high,
        "seeds": found.seeds,
        "by_seed": {
            str(seed): {
                "difference": look.difference,
                "steps": look.steps[0],
                "random_steps": look.steps[1],
                **({} if look.share is None else {"share_of_compute": look.share}),
            }
            for seed, look in found.by_seed.items()
        },
        "verdict": found.verdict,
    }


def _reached(found: StepsToTarget | None) -> Found | None:
    if found is None:
        return None
    return {
        "horizon": found.horizon,
        "restricted_mean": found.means[0],
        "random_restricted_mean": found.means[1],
        "difference": _interval(found.difference),
        "reached": found.counts[0],
        "random_reached": found.counts[1],
        "by_seed": {str(seed): {"steps": here, "random_steps": there} for seed, (here, there) in found.by_seed.items()},
    }


def _interval(found: Interval | None) -> Found | None:
    return found and {"mean": found.mean, "low": found.low, "high": found.high, "seeds": found.n}


def _series(found: Found) -> dict[str, float]:
    """Return metrics comparison/<arm>/<at> with the limits of their intervals."""
    series: dict[str, float] = {}
    for one in found["comparisons"]:
        name = "".join(letter if letter.isalnum() else "_" for letter in one["arm"]).strip("_")
        for at in ("at_equal_steps", "at_equal_compute"):
            values = one.get(at) or {}
            series |= {
                f"comparison/{name}/{at}{end}": values[part]
                for part, end in (("mean", ""), ("low", "_low"), ("high", "_high"))
                if values.get(part) is not None
            }
    return series


def _figure(arms: Sequence[StartArm], found: Found) -> Any:
    curves = [_curves(arm) for arm in arms]
    shown: list[Differences] = [
        {
            one["arm"]: (one[at]["mean"], one[at]["low"], one[at]["high"])
            for one in found["comparisons"]
            if one.get(at) and one[at]["low"] is not None
        }
        for at in ("at_equal_steps", "at_equal_compute")
    ]
    return comparison(curves, *shown, title=": ".join(filter(None, [_in_common(arms), report.title(found)])))


def _in_common(arms: Sequence[StartArm]) -> str:
    """Return what all fine-tunings train on what and how, as far as they have it in common."""
    family = LanguageModels()
    runs = [one.run_id for arm in arms for one in arm.trained.values()]
    titles = [family.title(tracking.config(run_id)).split(", ") for run_id in runs]
    return ", ".join(word for word in titles[0] if all(word in title for title in titles)) if titles else ""


def _curves(arm: StartArm) -> Curves:
    trained = list(arm.trained.values())
    spent = [
        {one.start_operations + one.operations[step]: loss for step, loss in one.losses.items()}
        for one in trained
        if one.start_operations is not None
    ]
    return Curves(arm.label, [one.losses for one in trained], spent if len(spent) == len(trained) else [])
