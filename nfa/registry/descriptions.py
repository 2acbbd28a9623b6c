"""What MLflow's UI says about a run: what ran, its results and figure, and the next command."""

from collections.abc import Mapping, Sequence
from urllib.parse import urlencode

from nfa.maths.statistics import share_interval
from nfa.registry import tracking
from nfa.registry.tracking import TrackedRun

SHOWN = (
    "objective", "test/accuracy", "test/pearson", "test/loss", "eval/loss", "val/accuracy", "val/pearson", "val/loss",
)  # fmt: skip
COLUMNS, ROWS = 3, 30  # most of a table
SPACE = "&emsp;"  # the UI sets columns without space between them, and Markdown removes spaces themselves
AGAIN = "the same command continues it; what is done is used again."


def describe_start(run: TrackedRun, what: str, how: str) -> None:
    """Describe a run that has started; `how` says how it is continued."""
    tracking.put_note(run, f"{what}\n\nIt has started. If it was stopped, {how}")


def continued_by(resume: str) -> str:
    """Return how a command continues a run, in words."""
    return f"this continues it:\n\n{_block(resume)}"


def describe_end(
    run: TrackedRun,
    what: str,
    *,
    results: Sequence[str] = (),
    table: str = "",
    pictures: Sequence[str] = (),
    after: str,
) -> None:
    """Describe a run at its end.

    Args:
        run: The run.
        what: What was done with what, in a sentence.
        results: Each result in words.
        table: A Markdown table of results.
        pictures: Names of figures, the first of which that exists is shown.
        after: The command that is useful next.
    """
    said = "\n".join(f"- {result}" for result in results)
    parts = (what, said, table, "Next:", _block(after), _image(run, pictures))  # a figure fills the page of the UI
    tracking.put_note(run, "\n\n".join(filter(None, parts)))


def _block(text: str) -> str:
    return f"```\n{text}\n```"


def _image(run: TrackedRun, pictures: Sequence[str]) -> str:
    """Return Markdown that shows a figure of the run, at the address from which MLflow's UI itself gets artifacts."""
    paths = [] if run.thrifty else [f"plots/{name}.png" for name in pictures]
    found = next((path for path in paths if tracking.has_artifact(run.run_id, path)), "")
    return f"[![{found}]({_address(run, tracking.preview(run, found))})]({_address(run, found)})" if found else ""


def _address(run: TrackedRun, path: str) -> str:
    return f"get-artifact?{urlencode({'path': path, 'run_uuid': run.run_id})}"


def of_examples(values: Mapping[str, float], n: int) -> list[str]:
    """Return metrics of n examples in words, and the interval of a share of them.

    >>> of_examples({"test/loss": 0.25, "test/accuracy": 0.9}, 100)
    ['test loss 0.25 (100 examples)', 'test accuracy 0.9 (100 examples; 95 % Wilson interval 0.826 to 0.945)']
    """
    return [
        f"{key.replace('/', ' ')} {value:.4g} ({n:,} examples{_interval(value, n) if _is_share(key, value, n) else ''})"
        for key, value in values.items()
    ]


def _is_share(key: str, value: float, n: int) -> bool:
    """Return whether an accuracy counts whole examples; that of words in a text, for example, does not."""
    return key.endswith("/accuracy") and abs(value * n - round(value * n)) < 1e-3


def _interval(value: float, n: int) -> str:
    low, high = share_interval(value, n)[1:3]
    return f"; 95 % Wilson interval {low:.3f} to {high:.3f}"


def over_several(run: TrackedRun) -> list[str]:
    """Return what a run has logged last as means over seeds, in words."""
    metrics = tracking.find_run(run.run_id).data.metrics
    return [
        f"{key.replace('/', ' ')} {_cell(metrics, key)}, mean and t-interval over {metrics[f'{key}_n']:.0f} seeds"
        for key in SHOWN
        if f"{key}_n" in metrics
    ]


def table_of_children(parent: TrackedRun) -> str:
    """Return the last metrics of a parent's child runs as a Markdown table; means over seeds have their interval."""
    runs = tracking.children(parent.run_id, parent.info.info.experiment_id)
    keys = [key for key in SHOWN if any(key in run.data.metrics for run in runs)][:COLUMNS]
    if not keys:
        return ""
    rows = [[_plain(run.info.run_name), *(_cell(run.data.metrics, key) for key in keys)] for run in runs[:ROWS]]
    more = [[f"and {len(runs) - ROWS} more", *[""] * len(keys)]] if len(runs) > ROWS else []
    written = [[cell + SPACE for cell in cells] for cells in (["run", *keys], *rows, *more)]
    lines = [written[0], ["---"] * (1 + len(keys)), *written[1:]]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _plain(name: str) -> str:
    """Return a name of the user's without what Markdown takes for a table or a tag."""
    return name.replace("|", "&#124;").replace("<", "&lt;").replace("\n", " ")


def _cell(metrics: Mapping[str, float], key: str) -> str:
    if key not in metrics:
        return ""
    span = [f"{metrics[f'{key}{end}']:.4g}" for end in ("_lo", "_hi") if f"{key}{end}" in metrics]
    return f"{metrics[key]:.4g}" + (f" (95 % {' to '.join(span)})" if len(span) == 2 else "")
