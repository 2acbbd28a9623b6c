"""`nfa.results`: the values of stored runs as a table."""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence

from nfa.bookkeeping import is_bookkeeping
from nfa.errors import Refusal
from nfa.figures.training_analysis import Series
from nfa.levels import is_beside, value_key
from nfa.registry import tracking
from nfa.registry.results.run_series import RunSeries
from nfa.registry.results.run_table import RunTable, chosen
from nfa.registry.results.variants import loss_of, seed_of, unit_of, variants
from nfa.registry.tracking import MeasuredRun


def results(run_ids: str | Iterable[str], *, keys: str | Iterable[str] = ()) -> RunTable:
    """Read the values that runs have logged, as a table with one row for each run, metric key and step.

    A training has its own series and those of its analyses, which follow the training in the column `run`. Where
    several of these runs have the same key, the training comes first, and then the newest analysis. A parent stands for
    its descendants: the runs of each seed, optimizer or trial.

    Args:
        run_ids: A run id, the beginning of one, or "latest"; several of them, comma-separated or in a list. The id of
            an analysis means its own values, and that of an analysis of several runs, all values of these.
            Alternatively a filter string of MLflow's for the current experiment, such as "params.optimizer = 'adam' and
            metrics.`val/loss` < 0.1".
        keys: Relations, metric keys or globs, comma-separated or in a list; only these are read. Without them
            everything is read but the keys that begin with nfa/ or system/.

    Returns:
        The table: `.frame()`, `.plot("agop_nfm")`, `.at(best="val/loss")`, `.at(step=20)`.

    Raises:
        Refusal: A run does not exist, the filter matches none, or none of them has logged such a key.
    """
    found = by_name(tracking.measured_runs(run_ids))
    holders = [run for one in found.values() for run in one.holders]
    logged = list(dict.fromkeys(key for run in holders for key in run.data.metrics))
    asked = keys if isinstance(keys, str) else ",".join(keys)
    readable = [key for key in logged if not is_beside(key) and (asked or not is_bookkeeping(key))]
    if not readable:
        raise Refusal(f"run_ids={run_ids!r} (they have no values)", "runs that have logged metrics", "train first")
    wanted = set(chosen(asked, readable) if asked else readable)
    among = {key for key in logged if value_key(key) in wanted} if asked else ()
    series = tracking.histories([run.info.run_id for run in holders], among)
    labels = variants(found)
    return RunTable(
        RunSeries(
            one.run.info.run_id,
            one.run.info.run_name,
            labels[name],
            seed_of(one),
            unit_of(one),
            merged([series[run.info.run_id] for run in one.holders], wanted),
            loss_of(one),
        )
        for name, one in found.items()
    )


def by_name(found: Sequence[MeasuredRun]) -> dict[str, MeasuredRun]:
    """Return runs by name; equal names are followed by ids."""
    names = [one.run.info.run_name for one in found]
    ids = [one.run.info.run_id[:12] for one in found]
    unique = [name if names.count(name) == 1 else f"{name} {i}" for name, i in zip(names, ids, strict=True)]
    return dict(zip(unique, found, strict=True))


def merged(holders: Sequence[Mapping[str, Series]], wanted: Collection[str]) -> dict[str, Series]:
    """Return the wanted series of all holders; a value and what stands beside it come from the first that has it."""
    found: dict[str, Series] = {}
    for series in holders:
        new = {key for key in series if value_key(key) in wanted and value_key(key) not in found}
        found |= {key: {step: value for step, value in series[key].items() if math.isfinite(value)} for key in new}
    return found
