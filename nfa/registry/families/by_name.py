"""The entry point `train`: an MLP, or a workload of any name, with one list of parameters."""

import dataclasses
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from nfa.console import stage
from nfa.errors import Refusal
from nfa.options import option
from nfa.registry.families.custom.config import OWN, CustomConfig
from nfa.registry.families.custom.maker import ALLOWED, Maker, find, written
from nfa.registry.families.mlp.config import TrainConfig
from nfa.registry.families.registry import FAMILIES, family
from nfa.registry.ready import READY
from nfa.registry.typed_values import assignments

OF_THE_WORKLOAD = ("workload", "workload_args")


@dataclass(frozen=True)
class TrainAnyConfig(TrainConfig):
    """Train a bias-free MLP classifier or any other workload; the run stores checkpoints and AGOP/NFM series."""

    workload: str = option("mlp", f"what to train: mlp, {', '.join(READY)}, or your own as module:function")
    workload_args: str = option(
        "", "arguments of the workload's function, such as width=32,bias=true; docs/parameters.md lists those of cnn, …"
    )


def training_of(asked: TrainAnyConfig) -> TrainConfig | CustomConfig:
    """Return the parameters of the training that is asked for; raise `Refusal` for parameters that it does not have.

    `mlflow run` passes every default, so a value equal to the default counts as not given. A parameter of the MLP that
    has the name of an argument of the workload's function is passed to that function.
    """
    values = {item.name: getattr(asked, item.name) for item in dataclasses.fields(asked)}
    if asked.workload == "mlp":
        if asked.workload_args:
            got = f"workload_args={asked.workload_args} with workload=mlp"
            remedy = "give parameters of the MLP directly: width=32"
            raise Refusal(got, "workload_args for a workload of your own", remedy)
        return TrainConfig(**{name: value for name, value in values.items() if name not in OF_THE_WORKLOAD})
    if asked.workload in FAMILIES:
        door = family(asked.workload).entrypoint
        got = f"workload={asked.workload} in train"
        raise Refusal(got, f"mlp, or {ALLOWED}", f"use the entry point {door}: -e {door}")
    maker = find(asked.workload)
    foreign = {item.name: item.default for item in dataclasses.fields(asked) if item.name not in OWN}
    typed = {name: values[name] for name, default in foreign.items() if values[name] != default}
    return CustomConfig(**{name: values[name] for name in OWN} | {"workload_args": _joined(maker, asked, typed)})


def _joined(maker: Maker, asked: TrainAnyConfig, typed: dict[str, Any]) -> str:
    """Return `workload_args` with the typed parameters that are also arguments of the function."""
    given = assignments("workload_args", asked.workload_args)
    for name, value in typed.items():
        if name not in maker.arguments:
            own = f"its own arguments: {', '.join(maker.arguments) or 'none'}"
            remedy = f"leave {name} out, because it is a parameter of workload=mlp"
            raise Refusal(f"{name}={value} with workload={maker.name}", own, remedy)
        if name in given:
            got = f"{name}={value} and workload_args={asked.workload_args}"
            raise Refusal(got, f"{name} in one of them", f"remove {name} from one of them")
        stage("argument", f"{name}={value} is passed to {maker.name}")
        given[name] = written({name: value}).partition("=")[2]
    _tell_defaults(maker, given)
    return written(maker.read(",".join(f"{name}={text}" for name, text in given.items())))


def _tell_defaults(maker: Maker, given: Collection[str]) -> None:
    """Print the arguments that have names of MLP parameters, because a typed MLP default cannot be recognised."""
    plain = {item.name: item.default for item in dataclasses.fields(TrainConfig) if item.name not in {*OWN, *given}}
    own = {name: found for name, found in maker.arguments.items() if name in plain and not found.required}
    apart = [name for name, found in own.items() if found.default != plain[name]]
    if apart:
        mine = ", ".join(f"{name}={own[name].default}" for name in apart)
        others = ",".join(f"{name}={plain[name]}" for name in apart)
        stage("argument", f"{mine}: the default of {maker.name} is used; for the MLP's default: workload_args={others}")
