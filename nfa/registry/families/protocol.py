"""What the rest of the house knows of a family of models: nothing but its `Family` is asked, and no family is named."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from nfa.errors import Refusal
from nfa.extras import check_extra
from nfa.registry.places import named

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from nfa.parallel import World
    from nfa.registry.stopwatch import Stopwatch
    from nfa.registry.tracking import TrackedRun
    from nfa.registry.training.session import Session
    from nfa.workload import Workload

Ids = Mapping[str, Sequence[int]]
Value = int | float | str | bool
APART = frozenset({"seed", "run_name", "resume", "data_dir", "device"})  # may differ between runs that are alike


@dataclass(frozen=True)
class EntryPoint:
    """What a user starts: its parameters and the function that gets them, as "module:name", imported when needed.

    `becomes` makes of these parameters those that `start` gets, where they are not the same. `check` refuses before
    anything heavy is imported. `look` does the same, and then `start` gets what it returns and a clock, too. What is
    imported then is installed with the extra of the family, or with `extra` where it is of none.
    """

    config: str
    start: str
    look: str = ""
    check: str = ""
    becomes: str = ""
    extra: str = "registry"

    @property
    def parameters(self) -> type[Any]:
        """The dataclass of its parameters."""
        found: type[Any] = named(self.config)
        return found


def trains(config: str, becomes: str = "") -> EntryPoint:
    """The entry point that trains with the parameters at such a place, or with what they become."""
    look = "nfa.registry.families.registry:look"
    return EntryPoint(config, "nfa.registry.training.start:train", look, becomes=becomes)


@dataclass(frozen=True)
class NamedWorkload:
    """A workload as it is typed: its name, and the arguments of the function that makes it; empty = the run's own."""

    name: str = ""
    arguments: str = ""


OWN_WORKLOAD = NamedWorkload()


@dataclass(frozen=True)
class Ready:
    """A training of which everything has been checked; `data` are what its workload was made of."""

    config: Any
    workload: "Workload"
    data: Any
    example_ids: Ids


@dataclass(frozen=True)
class StoredTraining:
    """What a workload is rebuilt from: a run's config.json, its own examples, and where to compute.

    `data_dir` is where its data are now, if they moved; `tensors` gives those of a safetensors file of the run. `named`
    is the workload that was named to rebuild it with, with its arguments; empty = its own.
    """

    config: Mapping[str, Any]
    example_ids: Ids
    device: "torch.device"
    data_dir: str | None
    tensors: Callable[[str], Mapping[str, "Tensor"]]
    named: NamedWorkload = OWN_WORKLOAD


@dataclass(frozen=True)
class Score:
    """How good a trained model is on each recording, or whatever else is scored apart.

    It is `called` so in sentences and on axes, `key` in files, `symbol` in tables; `unit` is what is scored apart.
    `read` is the place of a function that reads it from a run.
    """

    key: str
    called: str
    symbol: str
    unit: str
    read: str

    def of(self, run_id: str) -> Mapping[str, float]:
        """That of a run; empty where it has none."""
        found: Mapping[str, float] = named(self.read)(run_id)
        return found


@dataclass(frozen=True)
class Quality:
    """A metric that says how good a model is while it is trained, the more the better; above `hoped` it is good."""

    key: str
    called: str
    hoped: float | None = None


@dataclass(frozen=True)
class Remedy:
    """A parameter that scales a gradient; from a factor of `felt` on it can be told whether updates follow."""

    parameter: str
    felt: float


class Family(ABC):
    """A family of models, as it is known before PyTorch is loaded.

    `entrypoint` trains a model, with the parameters `config`, through the `FamilyTraining` at `trained_by`. Checkpoints
    are counted in `unit`; what they import is installed with the `extra` of that name. `data` names the parameters that
    decide which data are read. `objective` and `space` are what `tune` has without others; `space` may hold parameters
    beside those of `config` only if `resolved` knows them.
    """

    name: ClassVar[str]
    entrypoint: ClassVar[str]
    entry_points: ClassVar[Mapping[str, EntryPoint]]
    config: ClassVar[type[Any]]
    trained_by: ClassVar[str]
    unit: ClassVar[str] = "epoch"
    extra: ClassVar[str] = "registry"
    data: ClassVar[tuple[str, ...]]
    objective: ClassVar[str]
    space: ClassVar[str]
    remedy: ClassVar[Remedy | None] = None
    quality: ClassVar[Quality | None] = None
    score: ClassVar[Score | None] = None
    files: ClassVar[tuple[str, ...]] = ()  # artifacts beside the usual ones that a training goes on from

    @abstractmethod
    def metric_keys(self, config: Any) -> list[str]:
        """Keys that a training logs; with * in place of numbers that are known later."""

    def check(self, trainings: Sequence[Any]) -> None:  # noqa: B027 - there may be nothing to check
        """`Refusal` for what the file system and the sizes decide."""

    def look(self, config: Any) -> Any:  # noqa: ARG002 - most read all of it later
        """What is found or read of a training's data while nothing heavy is loaded."""
        return None

    def needed(self, typed: Mapping[str, Value], searched: Collection[str]) -> dict[str, Value]:  # noqa: ARG002
        """Parameters without which the searched ones would have no effect."""
        return {}

    def searchable(self, arguments: str) -> type[Any]:
        """The dataclass of the parameters that a study may fix and search; `resolved` makes a `config` of them.

        `arguments` are those that were typed of the function that makes a workload; `Refusal` where there is none.
        """
        if arguments:
            got = f"workload_args={arguments} with workload={self.name}"
            raise Refusal(got, "workload_args with a workload of your own", f"fixed={arguments}, or leave it out")
        return self.config

    def unsearched(
        self, parameters: type[Any], typed: Mapping[str, Value], searched: Collection[str]
    ) -> dict[str, Any]:
        """The searched ones of some `parameters` as a training without a search has them."""
        made = parameters(**typed)
        values = {**asdict(made), **asdict(made.resolved())}
        return {name: values[name] for name in searched}

    def telling(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """The parameters that may tell runs apart which differ in more than their seed."""
        return {key: value for key, value in config.items() if key not in APART}

    def code(self, stored: Mapping[str, Any], named: NamedWorkload) -> dict[str, Any]:  # noqa: ARG002
        """What tells apart the code that rebuilds a stored run, where it is not this project's.

        `Refusal` where it may not be imported, or where another workload than the run's, or arguments, are `named`.
        """
        for word, text in (("workload", named.name), ("workload_args", named.arguments)):
            if text:
                raise Refusal(f"{word}={text} for a run of {self.name}", "its own workload", f"leave {word} out")
        return {}

    def processes(self, config: Any) -> int:  # noqa: ARG002 - most train in one
        """That share every batch."""
        return 1

    def variants(self, config: Any) -> dict[str, Any]:  # noqa: ARG002 - most have none
        """Trainings by name that one configuration asks for, to be compared under a parent; none = it is one."""
        return {}

    @cached_property
    def training(self) -> "FamilyTraining":
        """Its trainings, new and stored; PyTorch is loaded now. `Refusal` where what they import is not installed."""
        check_extra(f"workload={self.name}", self.extra)
        found: FamilyTraining = named(self.trained_by)()
        return found


class FamilyTraining(ABC):
    """What a family does once PyTorch is loaded: make its trainings ready, and make stored ones again.

    What others rely on: example ids have the splits "train", "val", "test" and "probe"; `stored` has `data` with a
    `name` and a `digest`, and `train` with the parameters, `lr` among them; a session's `finish` tags the run with
    `nfa.best_epoch`.
    """

    @abstractmethod
    def read(self, config: Any, clock: "Stopwatch", found: Any = None) -> Any:
        """The data of a training, which others with the same `data` parameters can share; `found` is of `look`."""

    @abstractmethod
    def prepare(self, config: Any, data: Any, run: "TrackedRun | None" = None, ids: Ids | None = None) -> Ready:
        """The workload on the data, with the examples that `run` has stored, or with `ids`; None = as the seed says.

        `Refusal` for what cannot be trained.
        """

    @abstractmethod
    def lines(self, ready: Ready) -> Iterator[tuple[str, str]]:
        """What is said of the data: titles and texts."""

    def check_layers(self, configs: Sequence[Any], data: Callable[[Any], Any]) -> None:  # noqa: B027
        """`Refusal` where one of many trainings does not fit the `data` that it reads."""

    @abstractmethod
    def session(self, run: "TrackedRun", ready: Ready, clock: "Stopwatch", world: "World") -> "Session":
        """What differs from family to family in a training and its report."""

    def assist(self, config: Any, told: Any, world: "World") -> None:
        """Train in step with the first process, which has told its configuration and its `Session.told`."""
        raise NotImplementedError

    @abstractmethod
    def stored(self, config: Any, ready: Ready) -> dict[str, Any]:
        """What config.json says of a training before there is a model."""

    def compare(self, parent: "TrackedRun") -> None:
        """Figures of the `variants`, in the run above them."""
        raise NotImplementedError

    @abstractmethod
    def rebuild(self, run: StoredTraining) -> "Workload":
        """The workload of a stored run; `Refusal` where the data are not the same."""
