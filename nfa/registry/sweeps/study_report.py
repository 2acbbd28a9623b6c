"""The report of a study as text, as a table of trials, and as JSON."""

import textwrap
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import starmap
from typing import Any

from nfa.plain_text import aligned, csv_text
from nfa.registry.sweeps import study_table
from nfa.registry.sweeps.arm_difference import FLATTERS, ArmDifference, sentence
from nfa.registry.sweeps.axis_importance import Importance, conventions, why_no_importances
from nfa.registry.sweeps.study_table import ConfirmedArm, StudyTable, TrialRow, best

Importances = Sequence[Mapping[str, Importance]]  # one mapping per objective
WIDE = 118
STATES = ("finished", "pruned", "failed", "killed", "running", "waiting")
OF_FINISHED = (
    "Importances are computed from finished trials that satisfy every constraint. Pruned and failed trials have no "
    "value and are left out, so these numbers do not show that some regions of the space are bad."
)
UNSHOWN = "An axis that did not matter beyond chance may still matter, but these trials do not show it."


def written(
    table: StudyTable,
    importances: Importances,
    confirmed: Sequence[ConfirmedArm],
    facts: Mapping[str, Any],
    *,
    defaults: int | None = None,
) -> str:
    """Return the content of study.txt. `facts` describes the set-up; `defaults` is the trial with the defaults."""
    blocks = [
        [f"{table.name}: {_sought(table)}", *_aligned([(f"{name}:", _text(value)) for name, value in facts.items()])],
        ["Trials", *_counts(table)],
        [_best_title(table), *_best(table, defaults)],
        *([["Trade-off", *_trade_off(table)]] if len(table.objectives) > 1 else []),
        ["Trained again with fresh seeds", *_confirmation(table, confirmed)],
        *(_importance_block(table, importances, index) for index in range(len(table.objectives))),
        ["Notes", *(_wrapped(note) for note in notes(table, importances, confirmed))],
    ]
    return "\n\n".join("\n".join(block) for block in blocks) + "\n"


def _sought(table: StudyTable) -> str:
    ways = [
        f"{'highest' if more else 'lowest'} {name}" for name, more in zip(table.objectives, table.maximise, strict=True)
    ]
    return f"{' and '.join(ways)} over {', '.join(axis.name for axis in table.axes)}"


def _counts(table: StudyTable) -> list[str]:
    counted = Counter(row.state for row in table.rows)
    lines = [(state, str(counted[state])) for state in STATES if counted[state]]
    broken = sum(row.state == "finished" and not row.feasible for row in table.rows)
    return _aligned(lines + ([("finished, but break a constraint", str(broken))] if broken else []))


def _best_title(table: StudyTable) -> str:
    return "Best trial" if len(table.objectives) == 1 else "Best trials, one objective at a time"


def _best(table: StudyTable, defaults: int | None) -> list[str]:
    """Return a table whose columns are the best trial in each objective and the defaults."""
    found = {index: row for index in range(len(table.objectives)) if (row := best(table, index))}
    if not found:
        return ["  none: no finished trial satisfies the constraints"]
    start = next((row for row in table.rows if row.number == defaults), None)
    heads = ["", *(f"trial {row.number}" for row in found.values()), *(["defaults"] if start else [])]
    shown = [*found.values(), *([start] if start else [])]
    lines = [heads]
    lines += [[name, *(_value(row, index) for row in shown)] for index, name in enumerate(table.objectives)]
    lines += [[axis.name, *(_text(row.parameters.get(axis.name, "")) for row in shown)] for axis in table.axes]
    return _aligned(lines)


def _value(row: TrialRow, index: int) -> str:
    return _text(row.values[index]) if row.values else row.state


def _trade_off(table: StudyTable) -> list[str]:
    front = study_table.pareto_front(table)
    lines = [["trial", *table.objectives], *([str(row.number), *map(_text, row.values)] for row in front)]
    found = study_table.trade_off(table)
    if found is None:
        return ["  Pareto front", *_aligned(lines)]
    numbers = f"Spearman's correlation {found.correlation:+.2f} ({found.low:+.2f}, {found.high:+.2f})"
    said = f"  {found.statement}: {numbers}, {found.n} trials; positive values mean agreement"
    return ["  Pareto front", *_aligned(lines), "", said]


def _confirmation(table: StudyTable, confirmed: Sequence[ConfirmedArm]) -> list[str]:
    if len(confirmed) < 2:
        return ["  none: no other point was trained again with the defaults"]
    first = confirmed[0].name
    lines = [["", *(f"mean {name}" for name in table.objectives), "seeds"]]
    for arm in confirmed:
        means = [study_table.mean_of(arm, index) for index in range(len(table.objectives))]
        ended = f"{sum(value is not None for value in arm.values[0])} of {len(arm.seeds)}"
        lines.append([arm.name, *(_mean(arm, mean) for mean in means), ended])
    found = study_table.confirmation(confirmed, table.maximise)
    said = [f"  {sentence(one, table.objectives[one.objective], first)}" for one in found]
    return [*_aligned(lines), "", *_aligned(list(_of_seeds(table, confirmed))), "", *said]


def _mean(arm: ConfirmedArm, mean: float | None) -> str:
    return _text(mean) if mean is not None else f"{len(arm.failed)} failed" if arm.failed else "none finished"


def _of_seeds(table: StudyTable, confirmed: Sequence[ConfirmedArm]) -> Iterator[list[str]]:
    """Yield one line per seed, with a column per arm and objective."""
    yield ["seed", *(f"{arm.name}, {name}" for arm in confirmed for name in table.objectives)]
    for place, seed in enumerate(confirmed[0].seeds):
        missing = ["failed" if seed in arm.failed else "not finished" for arm in confirmed for _ in table.objectives]
        values = [of_seeds[place] for arm in confirmed for of_seeds in arm.values]
        cells = (none if value is None else _text(value) for value, none in zip(values, missing, strict=True))
        yield [str(seed), *cells]


def _importance_block(table: StudyTable, importances: Importances, index: int) -> list[str]:
    title = f"Importance of parameters for {table.objectives[index]}"
    found = importances[index] if index < len(importances) else {}
    reasons = [[f"{name}:", reason] for name, reason in why_no_importances(table, index).items()]
    if len(reasons) == len(table.axes) and len({reason for _, reason in reasons}) == 1:
        return [title, f"  not available: {reasons[0][1]}"]
    ordered = sorted(found.items(), key=lambda item: -item[1].value)
    lines = [["", "share of variance", "95 % interval", "95th pct. by chance", "p", ""], *starmap(_line, ordered)]
    return [title, *(_aligned(lines) if found else []), *_aligned(reasons)] + (
        [] if found or reasons else ["  not computed"]
    )


def _line(name: str, one: Importance) -> list[str]:
    said = "mattered" if one.mattered else "not beyond chance"
    return [name, f"{one.value:+.2f}", f"({one.low:+.2f}, {one.high:+.2f})", f"{one.null:+.2f}", f"{one.p:.3f}", said]


def notes(table: StudyTable, importances: Importances, confirmed: Sequence[ConfirmedArm]) -> list[str]:
    """Return notes on how to read the numbers."""
    found = [FLATTERS] if best(table) else []
    found += list(edges(table))
    if len(confirmed) > 1:
        found.append("Differences are paired by seed, with 95 % t-intervals.")
    comparisons = (len(confirmed) - 1) * len(table.objectives)
    if comparisons > 1:
        chance = "without true differences, about one in twenty would seem significant"
        found.append(f"{comparisons} comparisons were made, each at 95 %: {chance}.")
    if any(importances):
        found += [OF_FINISHED, UNSHOWN]
        found += [f"{name}: {text}." for name, text in conventions().items() if isinstance(text, str)]
    return found


def edges(table: StudyTable) -> Iterator[str]:
    """Yield a sentence for each objective whose best trial lies at the end of a range."""
    for index in range(len(table.objectives)):
        row = best(table, index)
        if row and (names := study_table.at_edges(table, row)):
            where = f"Trial {row.number}, the best, lies at the end of the range of {', '.join(names)}"
            yield f"{where}: consider a wider range."


def trials_csv(table: StudyTable) -> str:
    """Return the content of trials.csv: one line per trial; missing values are empty."""
    names = [axis.name for axis in table.axes]
    header = ["trial", "state", "feasible", *table.objectives, *names, "seconds", "last_step", "run_id", "error"]
    return csv_text(header, (_cells(table, names, row) for row in sorted(table.rows, key=lambda row: row.number)))


def _cells(table: StudyTable, names: Sequence[str], row: TrialRow) -> list[Any]:
    values = row.values or [""] * len(table.objectives)
    parameters = [row.parameters.get(name, "") for name in names]
    seconds = "" if row.seconds is None else f"{row.seconds:.3f}"
    feasible = str(row.feasible).lower() if row.state == "finished" else ""
    last = max(row.intermediate, default="")
    return [row.number, row.state, feasible, *values, *parameters, seconds, last, row.run_id, row.error]


def as_json(table: StudyTable, importances: Importances, confirmed: Sequence[ConfirmedArm]) -> dict[str, Any]:
    """Return the content of study.json; undefined values are absent, never NaN."""
    relation = study_table.trade_off(table)
    found: dict[str, Any] = {
        "study": table.name,
        "objectives": [
            {"name": name, "direction": "maximize" if more else "minimize"}
            for name, more in zip(table.objectives, table.maximise, strict=True)
        ],
        "trials": dict(Counter(row.state for row in table.rows)),
        "best": {name: _row(row) for index, name in enumerate(table.objectives) if (row := best(table, index))},
        "importances": {
            name: {axis: asdict(one) for axis, one in each.items()}
            for name, each in zip(table.objectives, importances, strict=False)
        },
        "no_importance": {name: why_no_importances(table, index) for index, name in enumerate(table.objectives)},
        "confirmation": list(_compared(table, confirmed)),
        "conventions": conventions(),
    }
    if len(table.objectives) > 1:
        found["pareto_front"] = [_row(row) for row in study_table.pareto_front(table)]
    return found | ({} if relation is None else {"trade_off": {**asdict(relation), "said": relation.statement}})


def _row(row: TrialRow) -> dict[str, Any]:
    found: dict[str, Any] = {"trial": row.number, "parameters": dict(row.parameters), "values": list(row.values)}
    return found | ({"run_id": row.run_id} if row.run_id else {})


def _compared(table: StudyTable, confirmed: Sequence[ConfirmedArm]) -> Iterator[dict[str, Any]]:
    """Yield each arm with its means; arms after the first also with their differences to it."""
    found = study_table.confirmation(confirmed, table.maximise) if confirmed else []
    for arm in confirmed:
        means = {name: study_table.mean_of(arm, index) for index, name in enumerate(table.objectives)}
        one = {
            "arm": arm.name,
            "parameters": dict(arm.parameters),
            "means": {name: mean for name, mean in means.items() if mean is not None},
            "by_seed": {str(seed): _finished(table, arm, place) for place, seed in enumerate(arm.seeds)},
            "failed_seeds": list(arm.failed),
        }
        differences = {table.objectives[each.objective]: _difference(each) for each in found if each.arm == arm.name}
        yield one | ({"differences": differences} if differences else {})


def _finished(table: StudyTable, arm: ConfirmedArm, place: int) -> dict[str, float]:
    values = {name: of_seeds[place] for name, of_seeds in zip(table.objectives, arm.values, strict=True)}
    return {name: value for name, value in values.items() if value is not None}


def _difference(found: ArmDifference) -> dict[str, Any]:
    span = {} if found.interval is None else found.interval._asdict()
    return {**span, "seeds": found.seeds, "verdict": found.verdict}


def _text(value: Any) -> str:
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def _wrapped(text: str) -> str:
    return textwrap.fill(text, WIDE, initial_indent="  ", subsequent_indent="    ")


def _aligned(lines: Sequence[Sequence[str]]) -> list[str]:
    return [f"  {line}" for line in aligned(lines)]
