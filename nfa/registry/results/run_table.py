"""The table of the values of several runs."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from nfa.errors import Refusal
from nfa.figures.style import axis_label
from nfa.notebook.table import LEVELS, SHOWN, Table, numbers
from nfa.plain_text import counted, natural
from nfa.registry.results.drawing import drawn
from nfa.registry.results.run_series import RunRow, RunSeries
from nfa.registry.sweeps.objectives import check_logged, keys_of, more_is_better
from nfa.relations import RELATIONS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

USUAL = ("train/loss", "val/loss", "eval/loss", "*/agop_nfm")  # what a plot shows unless keys are given


class RunTable(Table[RunRow]):
    """The values of runs through training: one row for each run, metric key and step; undefined values have no row.

    Iteration gives the rows, `len` their number, and `table["agop_nfm"]` the table of some keys.

    Attributes:
        runs: The runs with their series.
        rows: The values. Column `run` is the id, `variant` what distinguishes the run from the others apart from its
            seed, `relation` the name of a relation, or the whole key where the value does not belong to a `site`; `se`,
            `chance` and `shared` are the standard error, the chance level and the shared-weights level.
    """

    columns = RunRow._fields
    kinds: ClassVar[Mapping[str, str]] = {**Table.kinds, "seed": "Int64"}  # which may be missing

    def __init__(self, runs: Iterable[RunSeries]) -> None:
        self.runs = [run for run in runs if run.series]
        self.rows = [row for run in self.runs for row in run.rows()]

    @property
    def keys(self) -> list[str]:
        """The metric keys of the values."""
        return sorted({key for run in self.runs for key in run.keys}, key=natural)

    def __getitem__(self, keys: str) -> "RunTable":
        return RunTable(run.only(keys=chosen(keys, self.keys)) for run in self.runs)

    def at(self, *, step: int | str | None = None, best: str = "") -> "RunTable":
        """Return the values of each run at one step; runs that lack it are left out.

        Where a run has more than losses and scores, the best and the last step are chosen among those with these
        values, which are its checkpoints.

        Args:
            step: The epoch or optimizer step, the same for all runs; "last" = the last of each run.
            best: A metric key; each run at the step where it is best, which is lowest for losses and highest for
                scores and relations.

        Returns:
            A table with at most one row for each run and key.

        Raises:
            Refusal: Both or neither are given, no run has such a value, or the key does not tell which is better.
        """
        if (step is None) == (not best):
            raise Refusal(f"at(step={step}, best={best!r})", "either a step or a metric key", "at(best='val/loss')")
        step_of = self._step_of(step) if step is not None else self._best_of(best)
        return RunTable(run.only(step=at) for run in self.runs if (at := step_of(run)) is not None)

    def _best_of(self, key: str) -> Callable[[RunSeries], int | None]:
        check_logged("best", key, self.keys)
        most = more_is_better(key)
        if most is None:
            got = f"best={key} (the key does not tell which is better)"
            raise Refusal(got, "a loss, a score or a relation", "at(step='last')")
        return partial(RunSeries.best, key=key, most=most)

    def _step_of(self, step: int | str) -> Callable[[RunSeries], int | None]:
        if step == "last":
            return lambda run: max(run.checkpoints())
        steps = sorted({row.step for row in self.rows})
        if step not in steps:
            shown = ", ".join(map(str, steps[:SHOWN])) + (" …" if len(steps) > SHOWN else "")
            raise Refusal(f"step={step!r} (no run has a value there)", f"'last', or one of {shown}", "at(step='last')")
        return lambda _: int(step)

    def plot(self, keys: str = "", title: str = "") -> "Figure":
        """Return a matplotlib figure of a relation or of metric keys through training, a panel for each site or key.

        Runs that differ only in their seed are drawn as their mean, from three seeds on with its 95 % t-interval.

        Args:
            keys: A relation such as "agop_nfm", or comma-separated metric keys or globs such as "val/*"; empty = losses
                and AGOP/NFM, as far as there are any.
            title: A title, to which is added what is drawn; empty = the words with which the names of all runs begin.

        Returns:
            The figure, with at most 12 panels; more sites are drawn as means over their blocks, or some of them.

        Raises:
            Refusal: No run has such a key.
        """
        usual = [key for key in USUAL if keys_of(key, self.keys)]
        names = chosen(keys or ",".join(usual or self.keys), self.keys)
        units = {axis_label(run.unit) for run in self.runs}
        return drawn([run.only(keys=names) for run in self.runs], names, title, " or ".join(sorted(units)))

    def _printed(self) -> tuple[Sequence[str], Callable[[RunRow], Sequence[str]], str]:
        counts = (len(self.runs), "run"), (len(self.keys), "key"), (len({row.step for row in self.rows}), "step")
        said = f"{counted(len(self), 'value')} of {', '.join(counted(*one) for one in counts)}"
        return ("name", "variant", "seed", "key", "step", "value", *LEVELS), _cells, said


def chosen(keys: str, logged: Sequence[str]) -> list[str]:
    """Return the keys of `logged` that comma-separated names of relations, keys or globs mean."""
    found = []
    for name in (part.strip() for part in keys.split(",")):
        pattern = f"*/{name}" if name in RELATIONS else name
        check_logged("keys", pattern, logged)
        found += keys_of(pattern, logged)
    return list(dict.fromkeys(found))


def _cells(row: RunRow) -> tuple[str, ...]:
    seed = "" if row.seed is None else str(row.seed)
    return row.name, row.variant, seed, row.key, str(row.step), *numbers(row.value, row.se, row.chance, row.shared)
