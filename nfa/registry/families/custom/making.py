"""A workload from the function that makes it, and what of it a run stores."""

import inspect
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from nfa.content import digest_of
from nfa.errors import NfaError, Refusal, reason
from nfa.observe.checks import check_model
from nfa.observe.door import few_of
from nfa.observe.inertness import inert
from nfa.registry.families.custom.maker import Maker, Value
from nfa.registry.families.custom.trust import imported
from nfa.registry.families.protocol import Ids
from nfa.workload import Workload
from nfa.workloads.devices import choose_device
from nfa.workloads.supervised import Supervised

LOOKED_AT = 64  # examples of each split, of which the data's digest is made


def made(
    maker: Maker, values: Mapping[str, Value], *, seed: int, device: str, function: Callable[..., Any] | None = None
) -> Workload:
    """What the function returns; `Refusal` where it fails, and where that is no workload.

    The seed is its argument `seed`, where it has one that is not given, and decides the weights of a `Supervised`.
    `function` is the function itself, where it is there already.
    """
    function = function or imported(maker)
    given = {**({"seed": seed} if "seed" in maker.arguments else {}), **values}
    with _their_code(maker, given):
        workload = function(**given)
    if not isinstance(workload, Workload) or inspect.isclass(workload):
        got = f"workload={maker.name}, which returns a {type(workload).__name__}"
        raise Refusal(got, "an nfa.Supervised, or another Workload", "return nfa.Supervised(model=…, loss=…, …)")
    if isinstance(workload, Supervised):
        workload.settle(seed=seed, device=choose_device(device))
    with _their_code(maker, given):
        _check(workload)
    return workload


@contextmanager
def _their_code(maker: Maker, given: Mapping[str, Value]) -> Iterator[None]:
    """Whatever somebody's code raises, as a `Refusal`."""
    try:
        yield
    except NfaError:
        raise
    except (Exception, SystemExit) as error:
        got = f"workload={maker.name}, which fails ({type(error).__name__}: {reason(error)})"
        raise Refusal(got, "arguments with which it returns a workload", f"try it: {_call(maker, given)}") from error


def _check(workload: Workload) -> None:
    """Model, loss and metrics on a few examples."""
    few, model = few_of(workload), workload.model()
    if not any(weight.requires_grad for weight in model.parameters()):
        raise Refusal("a model without trainable parameters", "a model with some", "set requires_grad")
    check_model(model, workload, few)
    with inert(model), torch.no_grad():
        workload.metrics(workload.outputs(model, few), few)


def _call(maker: Maker, values: Mapping[str, Value]) -> str:
    words = ", ".join(f"{name}={value!r}" for name, value in values.items())
    return f"python -c 'import {maker.module}; {maker.module}.{maker.function}({words})'"


def splits_of(workload: Workload) -> dict[str, list[int]]:
    """Ids of the examples of all splits; none of a test split that it does not have."""
    try:
        test = list(workload.ids("test"))
    except Refusal:
        test = []
    return {**{split: list(workload.ids(split)) for split in ("train", "val", "probe")}, "test": test}


def data_digest(workload: Workload, ids: Ids) -> str:
    """Of how many examples there are, and of the first of each split."""
    parts: dict[str, Any] = {}
    for split in ("train", "val", "test"):
        first = list(ids[split])[:LOOKED_AT]
        batches = workload.batches(split, batch_size=LOOKED_AT, ids=first) if first else ()
        parts[split] = [len(ids[split]), [(batch.inputs, batch.targets) for batch in batches]]
    return digest_of(parts)


def code_of(maker: Maker) -> dict[str, Any]:
    """Where the function is, as the file was when it was imported, and the commit it belongs to."""
    return {"file": maker.file.name, "file_digest": maker.digest, "function": maker.function, "git": _git(maker)}


def _git(maker: Maker) -> dict[str, Any]:
    """The commit of the folder, and whether the file has been changed since; empty where there is none."""
    commit = _said(maker, "rev-parse", "HEAD")
    changed = _said(maker, "status", "--porcelain", "--", maker.file.name)
    return {} if commit is None else {"commit": commit, "changed": bool(changed)}


def _said(maker: Maker, *words: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(maker.file.parent), *words], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
