"""What was trained, and which parameters set the runs apart, in words and tables."""

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from nfa.errors import Refusal
from nfa.plain_text import counted
from nfa.registry import tracking
from nfa.registry.families.protocol import APART
from nfa.registry.families.registry import family_of_run
from nfa.registry.report.page_data import Line, TableOf
from nfa.registry.report.reported import Reported, ReportedRun, is_training
from nfa.registry.report.series import COMMIT
from nfa.relations import RELATIONS

MOST_LINES = 20  # groups that are told in sentences
MOST_COLUMNS = 12  # groups beside each other in a table
MOST_IDS = 12  # runs that a sentence names as its source
BOOKKEEPING = APART | {"output_dir", "executor", "histograms_every", "nproc"}


def line(text: str, run: str = "", keys: str = "", step: int | None = None) -> Line:
    """Return a sentence with where its numbers come from."""
    return {"text": text, "run": run, "keys": keys, "step": step}


def logged_by(runs: Sequence[ReportedRun], key: str) -> str:
    """Return the ids of the runs that have logged a key of these runs."""
    return ",".join(dict.fromkeys(one.holder_of(key) for one in runs[:MOST_IDS]))


def trained(reported: Reported) -> list[Line]:
    """Return for each group what was trained on what, how, and from which commit."""
    found = [_trained(reported, name, places) for name, places in [*reported.groups.items()][:MOST_LINES]]
    more = len(reported.groups) - MOST_LINES
    return [*found, *([line(f"And {more:,} groups more, whose parameters the table of runs has.")] if more > 0 else [])]


def _trained(reported: Reported, name: str, places: Sequence[int]) -> Line:
    runs = [reported.runs[place] for place in places]
    one = runs[0]
    config = reported.config(one.id)
    damaged = (one.id, "config.json") in reported.damaged
    lacking = "its config.json cannot be read" if damaged else "there is no config.json"
    parts = [*_what(one, config, lacking, alone=len(runs) == 1), *_seeds(runs), *_where(runs)]
    source = "" if config is None else "config.json"
    return line(f"{name}: {'; '.join(parts)}.", ",".join(run.id for run in runs[:MOST_IDS]), source)


def _what(one: ReportedRun, config: Mapping[str, Any] | None, lacking: str, *, alone: bool) -> Iterator[str]:
    """Yield the workload, its data, the loss, the optimizer and the weights that were observed."""
    if not is_training(one.run):
        yield "a run that nfa has not made, of which only what it has logged is known"
        return
    if config is None:
        yield f"workload {one.tags['nfa.workload']}; on what is not known, because {lacking}"
    else:
        title = _title(one, config)
        yield title if alone else re.sub(r", seed \d+", "", title)
        data = config.get("data", {})
        if digest := str(data.get("digest", "")):
            yield f"data {data.get('name', '')} with digest {digest[:12]}"
    told = {"loss": "loss {}", "epochs": "epochs: {}", "steps": "steps: {}", "batch_size": "batches of {}"}
    yield from (how.format(one.parameters[name]) for name, how in told.items() if one.parameters.get(name))
    if any(key.rpartition("/")[2] in RELATIONS for key in one.owners):
        yield one.tags.get("nfa.coverage") or "the share of weights that the relations cover was not logged"


def _title(one: ReportedRun, config: Mapping[str, Any]) -> str:
    try:
        return family_of_run(one.tags).title(config) or f"workload {one.tags['nfa.workload']}"
    except (Refusal, KeyError, TypeError, ValueError):  # a file of an older version
        return f"workload {one.tags['nfa.workload']}"


def _seeds(runs: Sequence[ReportedRun]) -> Iterator[str]:
    seeds = [str(run.seed) for run in runs if run.seed is not None]
    if seeds:
        shown = ", ".join(seeds[:MOST_COLUMNS]) + (" …" if len(seeds) > MOST_COLUMNS else "")
        yield f"{counted(len(seeds), 'seed')}: {shown}" if len(seeds) > 1 else f"seed {shown}"
    else:
        yield f"{counted(len(runs), 'run')}, no seed logged"


def _where(runs: Sequence[ReportedRun]) -> Iterator[str]:
    commits = {run.tags.get(COMMIT, "") for run in runs}
    versions = sorted({version for run in runs if (version := run.tags.get("nfa.version", ""))})
    known = sorted(commits - {""})
    yield f"git commit {', '.join(commit[:12] for commit in known)}" if known else "no git commit logged"
    if versions:
        yield f"nfa {', '.join(versions)}"


def parameter_tables(reported: Reported) -> tuple[TableOf, TableOf]:
    """Return the parameters that differ between groups, one column for each, and those that all runs share."""
    stated = [_stated(reported.runs[places[0]]) for places in reported.groups.values()]
    names = list(dict.fromkeys(name for of in stated for name in of))
    differing = [name for name in names if len({of.get(name) for of in stated}) > 1]
    shared = [[name, stated[0][name]] for name in names if name not in differing and stated[0][name] != ""]
    common: TableOf = {"name": "Parameters of all runs", "head": ["parameter", "value"], "rows": shared}
    return _differences(reported, stated, differing), common


def _stated(one: ReportedRun) -> dict[str, str]:
    """Return the parameters of a run that tell of what was trained: places, seeds and copies are left out."""
    types = _types(one)
    return {
        name: _plain(text, types.get(name, "str"))
        for name, text in one.parameters.items()
        if name not in BOOKKEEPING and not name.startswith(tracking.RESOLVED)
    }


def _types(one: ReportedRun) -> Mapping[str, str]:
    """Return the types of the parameters of a training; nothing is known of those of other runs."""
    if not is_training(one.run):
        return {}
    return {item.name: str(item.type) for item in dataclasses.fields(family_of_run(one.tags).config)}


def _plain(text: str, kind: str) -> str:
    """Return a value in one spelling: of a number, 1e-3 and 0.001 do not differ; a version 2.10 is no number.

    >>> _plain("1e-3", "float"), _plain("True", "bool"), _plain("2.10", "str"), _plain("12345678.5", "float")
    ('0.001', 'true', '2.10', '12345678.5')
    """
    if "bool" in kind and text in ("True", "False"):
        return text.lower()
    if "float" not in kind or text.isdecimal():
        return text
    try:
        short = f"{float(text):g}"
        return short if float(short) == float(text) else text
    except ValueError:
        return text


def _differences(reported: Reported, stated: Sequence[Mapping[str, str]], names: Sequence[str]) -> TableOf:
    title = "Parameters that differ"
    if len(stated) <= MOST_COLUMNS:
        rows = [[name, *(of.get(name, "not logged") for of in stated)] for name in names]
        return {"name": title, "head": ["parameter", *reported.groups], "rows": rows}
    rows = [[name, *_spread([of.get(name, "not logged") for of in stated])] for name in names]
    return {"name": f"{title} between {len(stated):,} groups", "head": ["parameter", "values", "which"], "rows": rows}


def _spread(texts: Sequence[str]) -> tuple[str, str]:
    """Return how many different values there are, and which: the ends of numbers, or the first texts."""
    values = list(dict.fromkeys(texts))
    try:
        numbers = sorted(values, key=float)
    except ValueError:
        return f"{len(values):,}", ", ".join(values[:MOST_COLUMNS]) + (" …" if len(values) > MOST_COLUMNS else "")
    return f"{len(values):,}", f"{numbers[0]} to {numbers[-1]}"
