"""Stored fine-tunings as arms of a comparison."""

from collections.abc import Mapping, Sequence
from typing import Any

from nfa.errors import Refusal
from nfa.registry import stored_runs, tracking
from nfa.registry.families.language.adapters import A, B
from nfa.registry.families.language.comparison.study import RANDOM, FineTuning, StartArm
from nfa.registry.families.language.compute import OPERATIONS, operations_by_step, start_operations
from nfa.registry.families.language.ready import INITIAL
from nfa.registry.families.language.report import stored_answers
from nfa.registry.families.language.tensor_files import matrices_in

APART = ("seed", "factors", "run_name", "resume", "device", "base_model", "data", "val_data", "init", "start")
LENGTH = ("steps", "epochs", "schedule", "eval_every")  # length of the training, and times of evaluation


def arms_of(run_ids: Sequence[str]) -> list[StartArm]:
    """Group runs into arms, those of random adapters first, in the order of their first runs.

    Raises `Refusal` unless all runs are finished fine-tunings of the same base model on the same questions.
    """
    configs = {run_id: _config(run_id) for run_id in run_ids}
    _check_same(configs)
    settings, several = _settings(configs), len({config["steps"] for config in configs.values()}) > 1
    found: dict[tuple[str, int, str], dict[int, FineTuning]] = {}
    for run_id, config in configs.items():
        kind = (_start(config), config["steps"], settings[run_id])
        found.setdefault(kind, {})[config["train"]["seed"]] = _trained(run_id, config)
    arms = [
        StartArm(
            ", ".join([start, *([f"{steps} steps"] if several else []), *filter(None, [said])]), start, said, of_seed
        )
        for (start, steps, said), of_seed in found.items()
    ]
    return sorted(arms, key=lambda arm: arm.start != RANDOM)


def _config(run_id: str) -> dict[str, Any]:
    tags = tracking.find_run(run_id).data.tags
    if tags.get("nfa.entrypoint") != "train_lora" or tags.get("nfa.state") != "finished":
        got = f"run {run_id[:12]} ({tags.get('nfa.entrypoint', 'not by nfa')}, {tags.get('nfa.state', 'no state')})"
        raise Refusal(got, "finished runs of train_lora", "leave it out, or continue it with train_lora resume=<id>")
    return tracking.config(run_id)


def _check_same(configs: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise `Refusal` unless all runs have the same base model and the same held-out questions."""
    first = next(iter(configs))
    for run_id, config in configs.items():
        for what, part in (("base", "base model"), ("data", "questions")):
            if config[what]["digest"] != configs[first][what]["digest"]:
                got = f"runs {first[:12]} and {run_id[:12]} with different {part}"
                raise Refusal(got, f"runs with the same {part}", "compare runs that share it")
    held_out = {run_id: stored_runs.example_ids(run_id)["val"] for run_id in configs}
    for run_id, ids in held_out.items():
        if ids != held_out[first]:
            got = f"runs {first[:12]} and {run_id[:12]} with different held-out questions"
            remedy = "train with the same split_seed, max_items, eval_items and max_length"
            raise Refusal(got, "the same held-out questions", remedy)


def _settings(configs: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Return the settings that differ between runs, apart from start, seed and length."""
    fields = [name for name in next(iter(configs.values()))["train"] if name not in (*APART, *LENGTH)]
    values = {run_id: {name: config["train"][name] for name in fields} for run_id, config in configs.items()}
    differing = [name for name in fields if len({repr(value[name]) for value in values.values()}) > 1]
    return {run_id: ", ".join(f"{field} {value[field]}" for field in differing) for run_id, value in values.items()}


def _start(config: Mapping[str, Any]) -> str:
    """Return the start in words: "random", "svd residual, synthesised teacher", …"""
    train = config["train"]
    if train["init"] != "svd":
        return str(train["init"])
    kind = "synthesised" if config["factors"].get("circular") == "true" else "real"
    return f"svd {train['start']}, {kind} teacher"


def _trained(run_id: str, config: Mapping[str, Any]) -> FineTuning:
    series, scores = tracking.history(run_id, ("eval/loss", *OPERATIONS)), stored_answers(run_id)
    answers = {step: one.sums.numpy() / float(one.tokens.double().mean()) for step, one in scores.items()}
    cost = _start_cost(run_id, config)
    return FineTuning(run_id, config["train"]["seed"], series["eval/loss"], operations_by_step(series), answers, cost)


def _start_cost(run_id: str, config: Mapping[str, Any]) -> float | None:
    if config["factors"]:
        return operations_of(config["factors"]["run_id"])
    if config["train"]["init"] == "full":
        return 0.0
    sides = matrices_in(tracking.whole(run_id, INITIAL).file)
    shapes = [(shape[0], sides[f"{name.removesuffix(B)}{A}"][1]) for name, shape in sides.items() if name.endswith(B)]
    return start_operations(config["train"]["init"], shapes)


def operations_of(run_id: str) -> float | None:
    """Return the floating-point operations of a run and of all runs it was made from; None if a source is not a run."""
    own = operations_by_step(tracking.history(run_id, OPERATIONS))
    config = tracking.config(run_id)
    if config["entrypoint"] == "train_lora":
        sources = [config["factors"]["run_id"]] if config["factors"] else []
    elif config.get("sources"):
        sources = list(config["sources"])
    else:
        return None
    costs = [operations_of(source) for source in sources]
    known = [cost for cost in costs if cost is not None]
    return max(own.values(), default=0.0) + sum(known) if len(known) == len(costs) else None
