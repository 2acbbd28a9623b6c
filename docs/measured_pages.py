"""The pages that are made from records of measurements: benchmarks.md, chaos.md and conformance.md."""

import json
from pathlib import Path
from typing import Any

from markdown_text import cell, paragraph, table

RESULTS = Path(__file__).resolve().parent.parent / "benchmarks" / "results"
CHAOS, CONFORMANCE = RESULTS / "chaos.json", RESULTS / "conformance.json"
GOLDEN = RESULTS / "golden.json"  # has no page: nobody reads it but the program that compares with it
COLUMNS = {
    "done": "what happens",
    "rounds": "rounds played",
    "codes": "exit codes × how often",
    "duplicates": "duplicates",
    "litter": "litter",
    "leaks": "leaks",
    "equal": "equal",
    "seconds": "seconds",
}
NO_ACCELERATOR = (
    "None of this was measured on an accelerator, because nfa has not run on one yet. `make device` compares values on "
    "yours with those of the processor, and measures speed and memory, in four minutes."
)
STUDIES = ("alignment", "directions", "flow")
SHOWN = ("agop_nfm", "fact_nfm", "mean_cosine", "grad_rms")
TRAININGS = {
    "training": "training",
    "compared": "tensors and numbers in the state",
    "same": "bitwise the same",
    "series": "series",
    "apart": "largest difference",
    "allowed": "allowed difference",
    "from float64": "difference from float64 throughout",
}


def benchmarks() -> str:
    """docs/benchmarks.md, from the JSON records in benchmarks/results/."""
    lines = ["# Benchmarks", "", "<!-- made by docs/generate.py from benchmarks/results/*.json -->", ""]
    lines += paragraph(
        "How fast nfa is, how much memory it needs, and how accurate it is. Each table was measured by the command "
        "above it, on the machine that is named there; `make bench` measures all of them on yours."
    )
    if not (RESULTS / "device.json").exists():
        lines += paragraph(NO_ACCELERATOR)
    for path in sorted(set(RESULTS.glob("*.json")) - {CHAOS, CONFORMANCE, GOLDEN}):
        record = json.loads(path.read_text())
        lines += [f"## {record['title']}", "", origin(record), ""]
        rows = ((cell(name), cell(value)) for name, value in record["results"].items())
        lines += [*table(["what", "value"], rows), ""]
        lines += [*(f"- {note}" for note in record["notes"]), ""]
    return "\n".join(lines)


def origin(record: dict[str, Any]) -> str:
    """What made a record, where and when."""
    machine = record["machine"]
    place = f"{machine['processor']}, {machine['cores']} cores, torch {machine['torch']}"
    if "device" in machine:
        place = f"{_accelerator(machine)}, with {place}"
    return f"`{record['command']}` on {place}, {record['date']}."


def _accelerator(machine: dict[str, Any]) -> str:
    """An accelerator's name, memory, driver and libraries, as far as they are known."""
    facts = {"device_memory_GB": "{} GB", "driver": "driver {}", "cuda": "CUDA {}", "cudnn": "cuDNN {}"}
    known = [words.format(machine[fact]) for fact, words in facts.items() if fact in machine]
    return ", ".join([machine["device"], *known])


def head(record: dict[str, Any], name: str) -> list[str]:
    """The first lines of a page that is made from one record."""
    source = f"<!-- made by docs/generate.py from benchmarks/results/{name}.json -->"
    return [f"# {record['title']}", "", source, "", origin(record), ""]


def chaos() -> str:
    """docs/chaos.md, from the record of `make chaos`."""
    record = json.loads(CHAOS.read_text(encoding="utf-8"))
    rows = record["results"].values()
    faults = [f"- {row['done']}: {fault}" for row in rows for fault in row["faults"]]
    lines = [
        *head(record, "chaos"),
        *paragraph(
            "Trainings, studies and analyses are killed, interrupted and started twice, and their servers and disks "
            "fail. Afterwards they are resumed. A training that was disturbed must end with the same files as one that "
            "was not. The notes below the table explain its columns."
        ),
        *table(COLUMNS.values(), ([str(row[name]) for name in COLUMNS] for row in rows)),
        "",
        *(["Faults:", "", *faults, ""] if faults else []),
        *(f"- {note}" for note in record["notes"]),
    ]
    return "\n".join(lines) + "\n"


def conformance() -> str:
    """docs/conformance.md, from the record of `python -m benchmarks.conformance`."""
    record = json.loads(CONFORMANCE.read_text(encoding="utf-8"))
    heads = ["model", "seen", "not seen", *(f"{study}, {bits} bits" for study in STUDIES for bits in (64, 32)), "inert"]
    lines = [
        *head(record, "conformance"),
        *paragraph(
            "Every study is computed twice: by nfa, and by slow references that share no code with it. The columns "
            "hold the largest differences; the notes below the table explain them."
        ),
        *table(heads, (_conforming(model, row) for model, row in record["results"]["models"].items())),
        "",
        *(f"- {note}" for note in record["notes"]["models"]),
        "",
        "## Trainings with and without `nfa.watch`",
        "",
        *table(TRAININGS.values(), (_training(*row) for row in record["results"]["trainings"].items())),
        "",
        *(f"- {note}" for note in record["notes"]["trainings"]),
        "",
        "Some of the values at the last step, as `nfa.watch` recorded them and as they were computed by hand:",
        "",
        *table(["training", "series", "recorded", "by hand"], _values(record["results"]["trainings"])),
    ]
    return "\n".join(lines) + "\n"


def _conforming(model: str, row: dict[str, Any]) -> list[str]:
    return [model, row["seen"], ", ".join(row["unseen"]) or "–", *_differences(row), row["inert"]]


def _training(name: str, row: dict[str, Any]) -> list[str]:
    return [name, *(str(row[column]) for column in list(TRAININGS)[1:])]


def _values(rows: dict[str, Any]) -> list[list[str]]:
    """Of each training the relations of a site that the text names, and the series of the two other studies."""
    return [
        [training, f"`{key}`", *(f"{pair[way]:.7f}" for way in ("recorded", "by hand"))]
        for training, row in rows.items()
        for key, pair in row["values"].items()
        if key.rpartition("/")[2] in SHOWN
    ]


def _differences(row: dict[str, Any]) -> list[str]:
    """The largest difference of each study in both precisions; – where there is none, as of weights in float64."""
    return [str(row[study].get(precision, "–")) for study in STUDIES for precision in ("float64", "float32")]
