"""The runs that a user names: by ids, as `latest`, or with a filter of MLflow's; and what is below them."""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from nfa.errors import Refusal, headline
from nfa.registry.run_filters import is_filter
from nfa.registry.tracking.artifacts import get_json, has_artifact
from nfa.registry.tracking.finding_runs import find_run
from nfa.registry.tracking.store import client, current_experiment, reaching_store

PARENT, SOURCES = "mlflow.parentRunId", "nfa.source_run_ids"
EXAMPLE = "params.optimizer = 'adam' and metrics.`val/loss` < 0.1"
FEW = 16  # parents whose children are asked for one by one; for more, all nested runs are read
AT_ONCE = 200  # ids in one request
_ID = re.compile("[0-9a-f]{32}")


def named_runs(run_ids: str | Iterable[str]) -> list[Run]:
    """Return the runs that a text or several texts name, in their order and each once.

    A text is a run id, the beginning of one, `latest`, several of these with commas between them, or a filter string of
    MLflow's, which is recognised by its comparison. A filter is applied to the current experiment. Of the runs that
    match it, analyses and parents are left out if the analysed runs and children match too.

    Raises:
        Refusal: Nothing is named, a run does not exist, or the filter is not one or matches no run.
    """
    texts = [run_ids] if isinstance(run_ids, str) else list(run_ids)
    if not texts:
        raise Refusal("no run ids", "at least one run", "run_id=latest")
    ids = {text: [part.strip() for part in text.split(",")] for text in texts if not is_filter(text)}
    whole = [part for parts in ids.values() for part in parts if _ID.fullmatch(part)]
    with reaching_store():
        known = {run.info.run_id: run for run in _with_ids(whole)}
        found = [run for text in texts for run in (_with(ids[text], known) if text in ids else _matching(text))]
    return list({run.info.run_id: run for run in found}.values())


def existing_runs(run_ids: Sequence[str]) -> list[Run]:
    """Return those of some runs, named by whole ids, that are in the store, in their order."""
    with reaching_store():
        found = {run.info.run_id: run for run in _with_ids(run_ids)}
    return [found[run_id] for run_id in run_ids if run_id in found]


def _with(ids: Iterable[str], known: Mapping[str, Run]) -> list[Run]:
    return [known.get(text) or find_run(text) for text in ids]


def _with_ids(run_ids: Sequence[str]) -> Iterator[Run]:
    for start in range(0, len(run_ids), AT_ONCE):
        listed = ", ".join(f"'{run_id}'" for run_id in run_ids[start : start + AT_ONCE])
        yield from _searched(f"attributes.run_id IN ({listed})", _everywhere())


def _matching(text: str) -> list[Run]:
    try:
        runs = list(_searched(text, [current_experiment()]))
    except MlflowException as error:
        if error.error_code != "INVALID_PARAMETER_VALUE":
            raise
        raise Refusal(f"filter {text!r} ({headline(error)})", "a filter string of MLflow's", EXAMPLE) from None
    if not runs:
        name = client().get_experiment(current_experiment()).name
        remedy = "change the filter, or name another experiment in MLFLOW_EXPERIMENT_NAME"
        raise Refusal(f"filter {text!r} (no run matches it)", f"a filter that matches runs of {name!r}", remedy)
    kept = [run for run in runs if not is_analysis(run)] or runs
    parents = {run.data.tags.get(PARENT) for run in kept}
    return [run for run in kept if run.info.run_id not in parents]


def _searched(text: str, experiments: Sequence[str]) -> Iterator[Run]:
    """Yield all runs that match a filter, oldest first; `search_runs` alone returns the first thousand."""
    page, order = "", ["attributes.start_time ASC"]
    while page is not None:
        found = client().search_runs(list(experiments), text, order_by=order, page_token=page or None)
        yield from found
        page = found.token


def _everywhere() -> list[str]:
    return [experiment.experiment_id for experiment in client().search_experiments()]


def is_analysis(run: Run) -> bool:
    """Return whether a run is an analysis of others, or a comparison of them."""
    return SOURCES in run.data.tags and run.data.tags.get("nfa.trained") != "true"


def is_report(run: Run) -> bool:
    """Return whether a run is a page about others; it has no values of its own."""
    return run.data.tags.get("nfa.entrypoint") == "report"


def sources_of(run: Run) -> list[str]:
    """Return the ids of the runs that an analysis, a comparison or a report is about.

    Of a report, they are in its config.json, because a tag does not hold many.
    """
    if is_report(run) and has_artifact(run.info.run_id, "config.json"):
        return list(get_json(run.info.run_id, "config.json")["sources"])
    return str(run.data.tags[SOURCES]).split(",")


def comparisons(run_ids: Collection[str]) -> list[Run]:
    """Return the comparisons of several of these runs and of no others, oldest first; reports are none."""
    with reaching_store():
        several = _searched(f"tags.`{SOURCES}` LIKE '%,%' AND tags.`nfa.entrypoint` != 'report'", _everywhere())
        return [run for run in several if is_analysis(run) and set(sources_of(run)) <= set(run_ids)]


def above(runs: Iterable[Run]) -> dict[str, Run]:
    """Return the parents of runs by their id."""
    ids = {run.data.tags[PARENT] for run in runs if PARENT in run.data.tags}
    with reaching_store():
        return {run.info.run_id: run for run in _with_ids(sorted(ids))}


def below(runs: Iterable[Run]) -> dict[str, list[Run]]:
    """Return the children of runs, the children of these and so on, by the id of their parent, oldest first."""
    found: dict[str, list[Run]] = {}
    level = list(runs)
    with reaching_store():
        experiments = _everywhere()
        while level:
            nested = _children(level, experiments)
            for run in nested:
                found.setdefault(run.data.tags[PARENT], []).append(run)
            level = [run for run in nested if not is_analysis(run)]
    return found


def _children(runs: Sequence[Run], experiments: Sequence[str]) -> list[Run]:
    ids = {run.info.run_id for run in runs}
    if len(ids) <= FEW:
        return [child for run_id in ids for child in _searched(f"tags.`{PARENT}` = '{run_id}'", experiments)]
    since = min(run.info.start_time for run in runs)  # a child starts after its parent
    nested = _searched(f"tags.`{PARENT}` != '' AND attributes.start_time >= {since}", experiments)
    return [child for child in nested if child.data.tags[PARENT] in ids]
