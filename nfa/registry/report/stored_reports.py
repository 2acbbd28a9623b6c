"""Reports and tables that runs have stored, as a page shows them."""

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nfa.errors import NfaError, headline
from nfa.plain_text import counted
from nfa.registry import tracking
from nfa.registry.report.page_data import TableOf, TextFile
from nfa.registry.report.reported import Reported, Run

MOST_FILES, MOST_LETTERS = 40, 60_000
MOST_ROWS = 500  # of a table
MOST_NAMED = 6  # runs that a sentence names
MOST_RUNS = 60  # whose files are looked at
TITLES = {
    "study.txt": "study",
    "gradient_flow.txt": "gradient flow",
    "comparison_report.txt": "comparison",
    "ablation.txt": "ablation",
    "synthesis_report.txt": "synthesis of teachers",
}


_LONG = re.compile(r"-?\d+\.(?=\d{6})\d+(e[-+]?\d{1,2})?")  # a number with more digits than are known


@dataclass
class StoredReports:
    """Texts and tables, and what was left out, in words."""

    texts: list[TextFile] = field(default_factory=list)
    tables: list[TableOf] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def stored_reports(reported: Reported) -> StoredReports:
    """Return the text reports of all runs, and the tables of parents and comparisons."""
    found = StoredReports()
    together = {run.info.run_id for run in [*reported.parents, *reported.comparisons]}
    runs = _runs(reported)
    bare: list[str] = []
    for run in runs[:MOST_RUNS]:
        files = _root(found, run)
        if not files and run.data.tags.get("nfa.state") == "finished":
            bare.append(run.info.run_id[:12])
        for path in files:
            if path.endswith(".txt"):
                _add_text(found, run, path)
            elif path.endswith(".csv") and run.info.run_id in together:
                _add_table(found, run, path)
    if bare:
        named = ", ".join(bare[:MOST_NAMED]) + (" …" if len(bare) > MOST_NAMED else "")
        missing = "so their conventions, reports and pictures are not here"
        found.left_out.append(f"Files of {counted(len(bare), 'finished run')} ({named}): there are none, {missing}.")
    if len(runs) > MOST_RUNS:
        left = counted(len(runs) - MOST_RUNS, "run")
        found.left_out.append(f"Reports that {left} may have stored: look at their artifacts.")
    return found


def _runs(reported: Reported) -> list[Run]:
    """Return the runs that may have reports, each once: parents and comparisons, analyses, then trainings."""
    leaves = [one.run for one in reported.runs]
    order = [*reported.parents, *reported.comparisons, *(run for _, run in reported.analyses), *leaves]
    return [*{run.info.run_id: run for run in order}.values()]


def _root(found: StoredReports, run: Run) -> list[str]:
    try:
        return tracking.files(run.info.run_id)
    except (NfaError, *tracking.StoreError) as trouble:
        found.left_out.append(f"Files of run {run.info.run_id[:12]}, which cannot be listed: {headline(trouble)}.")
        return []


def _add_text(found: StoredReports, run: Run, path: str) -> None:
    text = _read(found, run, path)
    if text is None:
        return
    if len(found.texts) == MOST_FILES or len(text) > MOST_LETTERS:
        found.left_out.append(f"{path} of run {run.info.run_id[:12]} ({len(text):,} letters): it is among its files.")
        return
    name = TITLES.get(path, Path(path).stem.replace("_", " "))
    found.texts.append(
        {"title": f"{name}: {run.info.run_name}", "run": run.info.run_id, "path": path, "text": text.rstrip("\n")}
    )


def _add_table(found: StoredReports, run: Run, path: str) -> None:
    text = _read(found, run, path)
    if text is None:
        return
    try:
        rows = [row for row in csv.reader(io.StringIO(text, newline="")) if row]
    except csv.Error as trouble:
        found.left_out.append(f"The table {path} of run {run.info.run_id[:12]}, which cannot be read: {trouble}.")
        return
    if broken := next((place for place, row in enumerate(rows) if len(row) != len(rows[0])), None):
        said = f"row {broken} has {counted(len(rows[broken]), 'cell')} where the first has {len(rows[0])}"
        found.left_out.append(f"The table {path} of run {run.info.run_id[:12]}, which is damaged: {said}.")
    elif not rows[1:] or len(found.tables) == MOST_FILES:
        left = counted(max(0, len(rows) - 1), "row")
        found.left_out.append(f"The table {path} of run {run.info.run_id[:12]} ({left}): it is among its files.")
    else:
        found.tables.append(_table(run, path, rows))


def _table(run: Run, path: str, rows: Sequence[Sequence[str]]) -> TableOf:
    """Return the first rows of a table, with a sentence that tells how many more there are and where."""
    name = f"{Path(path).stem.replace('_', ' ')}: {run.info.run_name} ({path} of run {run.info.run_id})"
    shown = [[_shorter(cell) for cell in row] for row in rows[1 : MOST_ROWS + 1]]
    table: TableOf = {"name": name, "head": [*rows[0]], "rows": shown}
    if (total := len(rows) - 1) <= MOST_ROWS:
        return table
    where = f"the rest is in {path} of run {run.info.run_id}"
    return {**table, "missing": f"Only the first {MOST_ROWS} of {total:,} rows are on the page; {where}."}


def _shorter(cell: str) -> str:
    """Return a decimal number with six digits, which are more than any of these is known to; all else is unchanged.

    >>> _shorter("0.123456789"), _shorter("2.10"), _shorter("1234e567"), _shorter("layer_0.5")
    ('0.123457', '2.10', '1234e567', 'layer_0.5')
    """
    return f"{float(cell):.6g}" if _LONG.fullmatch(cell) else cell


def _read(found: StoredReports, run: Run, path: str) -> str | None:
    try:
        with tracking.get(run.info.run_id, path).open(encoding="utf-8", newline="") as file:
            return file.read()
    except (OSError, UnicodeDecodeError, NfaError, *tracking.StoreError) as trouble:
        found.left_out.append(f"{path} of run {run.info.run_id[:12]}, which cannot be read: {headline(trouble)}.")
        return None
