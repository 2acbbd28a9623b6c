"""The interface between a family of models and the rest of the application, which never names a family."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from nfa.errors import Refusal
from nfa.extras import check_extra
from nfa.registry.families.assessment import Quality, Remedy, Score
from nfa.registry.families.entry_point import EntryPoint
from nfa.registry.places import named

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from nfa.figures.training_analysis import Series
    from nfa.parallel import World
    from nfa.registry.stopwatch import Stopwatch
    from nfa.registry.tracking import TrackedRun
    from nfa.registry.training.session import Session
    from nfa.workload import Workload

Ids = Mapping[str, Sequence[int]]
Value = int | float | str | bool
# Parameters that may differ between equal runs.
APART = frozenset({"seed", "seeds", "n_workers", "run_name", "resume", "data_dir", "device"})


@dataclass(frozen=True)
class NamedWorkload:
    """A workload as typed: its name and the arguments of its function; empty = those of the run."""

    name: str = ""
    arguments: str = ""


OWN_WORKLOAD = NamedWorkload()


@dataclass(frozen=True)
class Ready:
    """A training that has been checked completely; `data` is what its workload was made from."""

    config: Any
    workload: "Workload"
    data: Any
    example_ids: Ids


@dataclass(frozen=True)
class StoredTraining:
    """What a stored run's workload is rebuilt from.

    Attributes:
        config: The run's config.json.
        example_ids: Its examples by split.
        device: Where to compute.
        data_dir: Folder that holds the data now, if they have moved.
        tensors: Returns the tensors of one of the run's safetensors files by its path.
        named: The workload that the user named for rebuilding; empty = the run's own.
    """

    config: Mapping[str, Any]
    example_ids: Ids
    device: "torch.device"
    data_dir: str | None
    tensors: Callable[[str], Mapping[str, "Tensor"]]
    named: NamedWorkload = OWN_WORKLOAD


class Family(ABC):
    """A family of models, as far as it is known before PyTorch is loaded.

    Attributes:
        name: Value of the tag nfa.workload of its runs.
        entrypoint: Name of the entry point that trains a model.
        entry_points: All its entry points by name.
        config: The dataclass of the training parameters.
        trained_by: "module:name" of its `FamilyTraining`.
        unit: Unit of checkpoints and of the step of metrics: "epoch" or "step".
        extra: The extra of nfa that installs what its trainings import.
        data: Names of the parameters that decide which data are read.
        objective, space: Defaults of `tune`. `space` may hold parameters that are not in `config` if `resolved` of
            the `searchable` dataclass maps them to it.
        remedy, quality, score: Optional descriptions for the analysis gradient_flow and for `tune`.
        rules_of_thumb: Where the targets of gradient_flow come from, as its reports say it; empty = they were made for
            other networks, and no targets are checked.
        files: Artifacts that resuming needs in addition to the usual ones.
        told: Names of the parameters that `called` tells.
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
    rules_of_thumb: ClassVar[str] = ""
    files: ClassVar[tuple[str, ...]] = ()
    told: ClassVar[frozenset[str]] = frozenset()

    @abstractmethod
    def metric_keys(self, config: Any) -> list[str]:
        """Return the metric keys that a training logs; numbers that are not known yet are written as *."""

    def check(self, trainings: Sequence[Any]) -> None:  # noqa: B027 - there may be nothing to check
        """Raise `Refusal` for trainings that the file system or this machine's memory rules out."""

    def look(self, config: Any) -> Any:  # noqa: ARG002 - most read their data later
        """Find or read a training's data without heavy imports; return what `FamilyTraining.read` can use."""
        return None

    def needed(self, typed: Mapping[str, Value], searched: Collection[str]) -> dict[str, Value]:  # noqa: ARG002
        """Return parameters that must be set for the searched ones to have an effect."""
        return {}

    def searchable(self, arguments: str) -> type[Any]:
        """Return the dataclass of the parameters that a study may fix or search; its `resolved` returns a `config`.

        Args:
            arguments: The typed `workload_args`.

        Raises:
            Refusal: There are arguments, but the family does not have them.
        """
        if arguments:
            got = f"workload_args={arguments} with workload={self.name}"
            raise Refusal(got, "workload_args for a workload of your own", f"fixed={arguments}, or leave it out")
        return self.config

    def unsearched(
        self, parameters: type[Any], typed: Mapping[str, Value], searched: Collection[str]
    ) -> dict[str, Any]:
        """Return the values that the searched parameters have in a training without a search."""
        made = parameters(**typed)
        values = {**asdict(made), **asdict(made.resolved())}
        return {name: values[name] for name in searched}

    @abstractmethod
    def called(self, config: Any) -> str:
        """Return what a training trains on what data, in a few words, with which the names of its runs begin."""

    def subject(self, stored: Mapping[str, Any]) -> str:
        """Return what a stored run trained on what, for titles of figures; empty if its config.json does not tell."""
        return f"{self.name} on {stored['data']['name']}"

    def title(self, stored: Mapping[str, Any]) -> str:
        """Return the subject of a stored run with its optimizer, learning rate and seed, as far as they are known.

        Several seeds are left out.
        """
        known = {"optimizer": "{}", "lr": "lr {:.4g}"} | ({} if stored["train"].get("seeds") else {"seed": "seed {}"})
        values = {name: stored["train"][name] for name in known if name in stored["train"]}
        how = [known[name].format(value) if value != "auto" else f"{name} auto" for name, value in values.items()]
        subject = self.subject(stored)
        return ", ".join([subject, *how]) if subject else ""

    def loss(self, stored: Mapping[str, Any]) -> str:  # noqa: ARG002 - it may be the user's
        """Return what the metrics <split>/loss of a stored run are, for axes of figures; empty if it is not known."""
        return ""

    def telling(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """Return the parameters that distinguish runs; the seed and places are left out."""
        return {key: value for key, value in config.items() if key not in APART}

    def code(self, stored: Mapping[str, Any], named: NamedWorkload) -> dict[str, Any]:  # noqa: ARG002
        """Return what identifies the code that rebuilds a stored run; empty if it is part of nfa.

        Raises:
            Refusal: The code may not be imported, or the family does not take a `named` workload.
        """
        for word, text in (("workload", named.name), ("workload_args", named.arguments)):
            if text:
                raise Refusal(f"{word}={text} for a run of {self.name}", "its own workload", f"leave {word} out")
        return {}

    def processes(self, config: Any) -> int:  # noqa: ARG002 - most train in one process
        """Return the number of processes that share every batch."""
        return 1

    def variants(self, config: Any) -> dict[str, Any]:  # noqa: ARG002 - most have none
        """Return several trainings by name if one configuration asks for them; empty = it asks for a single one."""
        return {}

    @cached_property
    def training(self) -> "FamilyTraining":
        """The family's trainings; this imports PyTorch, and raises `Refusal` if a package is not installed."""
        check_extra(f"workload={self.name}", self.extra)
        found: FamilyTraining = named(self.trained_by)()
        return found


class FamilyTraining(ABC):
    """What a family does once PyTorch is loaded: it prepares new trainings and rebuilds stored ones.

    Other modules rely on this: example ids have the splits "train", "val", "test" and "probe". `stored` has `data` with
    `name` and `digest`, and `train` with the parameters, including `lr`. A session's `finish` tags the run with
    `nfa.best_epoch`.
    """

    @abstractmethod
    def read(self, config: Any, clock: "Stopwatch", found: Any = None) -> Any:
        """Read the data of a training; `found` is what `Family.look` has returned.

        Trainings with the same `Family.data` parameters share the data.
        """

    @abstractmethod
    def prepare(self, config: Any, data: Any, run: "TrackedRun | None" = None, ids: Ids | None = None) -> Ready:
        """Make the workload of a training.

        Args:
            config: Parameters of the training.
            data: What `read` has returned.
            run: A run to resume, whose stored examples are used.
            ids: Example ids by split; None = those of `run`, or drawn by the seed.

        Raises:
            Refusal: The training is not possible.
        """

    @abstractmethod
    def lines(self, ready: Ready) -> Iterator[tuple[str, str]]:
        """Yield console lines about the data: a title and a text each."""

    def check_layers(self, configs: Sequence[Any], data: Callable[[Any], Any]) -> None:  # noqa: B027
        """Raise `Refusal` if one of many trainings does not fit its data, which `data(config)` returns."""

    @abstractmethod
    def session(self, run: "TrackedRun", ready: Ready, clock: "Stopwatch", world: "World") -> "Session":
        """Return the session of a training: what is specific to the family in its run and report."""

    def assist(self, config: Any, told: Any, world: "World") -> None:
        """Train together with the first process, which has sent its configuration and its `Session.told`."""
        raise NotImplementedError

    @abstractmethod
    def stored(self, config: Any, ready: Ready) -> dict[str, Any]:
        """Return the content of config.json that is known before there is a model."""

    def compare(self, parent: "TrackedRun") -> None:
        """Draw figures that compare the `variants`, in their parent run."""
        raise NotImplementedError

    @abstractmethod
    def report_seeds(
        self, parent: "TrackedRun", series: Mapping[str, "Series"], seeds: Sequence[int], title: str
    ) -> None:
        """Write results.json and figures of trainings that differ only in their seed, in their parent run.

        `series` holds the means over seeds, and the ends of their intervals, as the parent has logged them.
        """

    @abstractmethod
    def rebuild(self, run: StoredTraining) -> "Workload":
        """Rebuild the workload of a stored run; raise `Refusal` if its data are not available or have changed."""
