"""Call the function that makes a workload, check the result, and describe it for the run."""

import inspect
import json
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch
import torch.nn as nn

from nfa.content import digest_of
from nfa.errors import NfaError, Refusal, reason
from nfa.learned import check_storable
from nfa.observe.answers import answers, differ
from nfa.observe.checks import check_model
from nfa.observe.door import few_of
from nfa.observe.inertness import inert
from nfa.registry.families.custom.maker import Maker, Value
from nfa.registry.families.custom.trust import imported
from nfa.registry.families.protocol import Ids
from nfa.seeding import seed_generators, untouched, whole_number
from nfa.workload import Workload
from nfa.workloads.devices import choose_device
from nfa.workloads.supervised import Supervised

LOOKED_AT = 64  # examples of each split that enter the digest of the data


def made(
    maker: Maker, values: Mapping[str, Value], *, seed: int, device: str, function: Callable[..., Any] | None = None
) -> Workload:
    """Call the function that makes a workload, and check the result.

    Args:
        maker: The function by its name.
        values: Arguments of the function.
        seed: Passed as the argument `seed` if the function has one and `values` does not give it. It also determines
            the weights of a `Supervised`, and the numbers that the function draws from the global generators, whose
            states are restored.
        device: A torch device, or "auto".
        function: The function itself, if it is already imported.

    Raises:
        Refusal: The function fails, does not return a workload, or returns one that does not work on its own data.
    """
    function = function or _imported(maker)
    given = {**({"seed": seed} if "seed" in maker.arguments else {}), **values}
    with _their_code(f"workload={maker.name}, which fails", _call(maker, given)), untouched():
        seed_generators(whole_number(seed, "workload"))  # so that a split it draws is the same in an analysis
        workload = function(**given)
    # isinstance with a protocol evaluates every property, and one of a Supervised runs its model.
    if not isinstance(workload, Supervised | Workload) or inspect.isclass(workload):
        got = f"workload={maker.name}, which returns a {type(workload).__name__}"
        raise Refusal(got, "an nfa.Supervised or another Workload", "return nfa.Supervised(model=…, loss=…, …)")
    if isinstance(workload, Supervised):
        workload.settle(seed=seed, device=choose_device(device))
    with _their_code(f"workload={maker.name}, which fails on its own examples", _use(maker, given)):
        _check(workload)
    return workload


def _imported(maker: Maker) -> Callable[..., Any]:
    """Import the function; random numbers drawn by its file are the same in every process."""
    with untouched():
        seed_generators(whole_number(0, "module"))
        return imported(maker)


@contextmanager
def _their_code(got: str, trial: str) -> Iterator[None]:
    """Turn any error of the user's code into a `Refusal`; `trial` is a command that reproduces it."""
    try:
        yield
    except NfaError:
        raise
    except (Exception, SystemExit) as error:
        file = f", {error.filename!r} in {Path.cwd()}" if isinstance(error, OSError) and error.filename else ""
        trial += "; beside its own file: Path(__file__).parent / …" if isinstance(error, FileNotFoundError) else ""
        got = f"{got} ({type(error).__name__}: {reason(error)}{file})"
        raise Refusal(got, "a function whose workload works on its own data", f"to see the error: {trial}") from error


def _check(workload: Workload) -> None:
    """Check model, loss and metrics on a few examples, and that every call makes a new model."""
    few, model = few_of(workload), workload.model()
    if not any(weight.requires_grad for weight in model.parameters()):
        raise Refusal("a model without trainable parameters", "a model with trainable parameters", "set requires_grad")
    check_storable(model, "a model", "compute it from its parts in forward")
    check_model(model, workload, few)
    with inert(model), torch.no_grad():
        workload.metrics(workload.outputs(model, few), few)
    _check_new(workload, model, workload.model())


def _check_new(workload: Workload, model: nn.Module, other: nn.Module) -> None:
    """Raise `Refusal` if two models share trained parameters, or start with different weights."""
    allowed = "a new model at every call, always with the same initial weights"
    places = {weight.data_ptr() for weight in _trained(model) if weight.numel()}
    if any(weight.data_ptr() in places for weight in _trained(other) if weight.numel()):
        got, remedy = "a model that is the same object at every call", "create it inside: model=lambda: Net(width=32)"
        raise Refusal(got, allowed, remedy)
    pairs = zip_longest(model.state_dict().items(), other.state_dict().items(), fillvalue=("", None))
    apart = [mine or its for (mine, a), (its, b) in pairs if mine != its or not _alike(a, b)]
    if not apart and differ(answers(workload, model), answers(workload, other)):
        apart = ["answer"]
    if apart:
        got, remedy = f"a model whose {apart[0]} differs at every call", "use the global generators of torch or NumPy"
        raise Refusal(got, allowed, f"{remedy}, which are seeded, and keep nothing between calls")


def _trained(model: nn.Module) -> Iterator[nn.Parameter]:
    return (weight for weight in model.parameters() if weight.requires_grad)


def _alike(a: Any, b: Any) -> bool:
    if not (isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor)):
        return type(a) is type(b)
    return a.shape == b.shape and a.dtype == b.dtype and torch.allclose(a, b, rtol=0, atol=0, equal_nan=True)


def _call(maker: Maker, values: Mapping[str, Value], then: str = "") -> str:
    """Return a command that calls the function, and then uses its workload `w`."""
    texts = {name: json.dumps(value) if isinstance(value, str) else repr(value) for name, value in values.items()}
    words = ", ".join(f"{name}={text}" for name, text in texts.items())
    return f"python -c 'import {maker.module}; w = {maker.module}.{maker.function}({words}){then}'"


def _use(maker: Maker, values: Mapping[str, Value]) -> str:
    batch, outputs = 'b = next(w.batches("train", batch_size=8))', "f = w.outputs(w.model(), b)"
    return _call(maker, values, f"; {batch}; {outputs}; w.losses(f, b); w.metrics(f, b)")


def splits_of(workload: Workload) -> dict[str, list[int]]:
    """Return the example ids of all splits; empty for a missing test split."""
    try:
        test = list(workload.ids("test"))
    except Refusal:
        test = []
    return {**{split: list(workload.ids(split)) for split in ("train", "val", "probe")}, "test": test}


def data_digest(workload: Workload, ids: Ids) -> str:
    """Return the digest of the number of examples, and of the first ones of each split."""
    parts: dict[str, Any] = {}
    for split in ("train", "val", "test"):
        first = list(ids[split])[:LOOKED_AT]
        batches = workload.batches(split, batch_size=LOOKED_AT, ids=first) if first else ()
        parts[split] = [len(ids[split]), [(batch.inputs, batch.targets) for batch in batches]]
    return digest_of(parts)


def code_of(maker: Maker) -> dict[str, Any]:
    """Return where the function is, the digest of its imported file, and the commit that it belongs to."""
    return {"file": maker.file.name, "file_digest": maker.digest, "function": maker.function, "git": _git(maker)}


def _git(maker: Maker) -> dict[str, Any]:
    """Return the commit of the folder, and whether the file has changed since; empty without git."""
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
