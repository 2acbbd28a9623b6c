"""Write what is derived from the code: MLproject, docs/parameters.md, docs/benchmarks.md. `--check` only compares."""

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

from nfa.config import ENTRY_POINTS

ROOT = Path(__file__).resolve().parent.parent
NOTE = "made by docs/generate.py from nfa/config/; change it there"


def mlproject() -> str:
    """MLproject: every entry point with every parameter, its type and default."""
    lines = [f"# {NOTE}", "name: nfa", "conda_env: conda.yaml", "entry_points:"]
    for name, config in ENTRY_POINTS.items():
        lines += [f"  {name}: &{name}", "    parameters:"]
        for item in dataclasses.fields(config):
            lines.append(f"      {item.name}: {{type: {kind(item)}, default: {json.dumps(item.default)}}}")
        words = " ".join(f"--{item.name} {{{item.name}}}" for item in dataclasses.fields(config))
        lines.append(f'    command: "python -m entrypoints.{name} {words}"')
    lines.append("  main: *train")
    return "\n".join(lines) + "\n"


def kind(item: "dataclasses.Field[Any]") -> str:
    """MLproject's type of a parameter; it knows strings, floats, paths and addresses."""
    return "float" if isinstance(item.default, int | float) and not isinstance(item.default, bool) else "string"


def parameters() -> str:
    """docs/parameters.md."""
    lines = ["# Parameters", "", f"<!-- {NOTE} -->"]
    for name, config in ENTRY_POINTS.items():
        lines += [
            "",
            f"## {name}",
            "",
            (config.__doc__ or "").strip(),
            "",
            "| parameter | default | meaning |",
            "|---|---|---|",
        ]
        for item in dataclasses.fields(config):
            allowed = " · ".join(item.metadata["choices"])
            meaning = item.metadata["help"] + (f" ({allowed})" if allowed else "")
            default = f"`{item.default}`" if item.default != "" else "empty"
            lines.append(f"| `{item.name}` | {default} | {meaning} |")
    return "\n".join(lines) + "\n"


def benchmarks() -> str:
    """docs/benchmarks.md, from the JSON records in benchmarks/results/."""
    lines = ["# Benchmarks", "", "<!-- made by docs/generate.py from benchmarks/results/*.json -->", ""]
    for path in sorted((ROOT / "benchmarks" / "results").glob("*.json")):
        record = json.loads(path.read_text())
        machine = record["machine"]
        lines += [
            f"## {record['title']}",
            "",
            f"`{record['command']}` on {machine['processor']}, {machine['cores']} cores, "
            f"torch {machine['torch']}, {record['date']}.",
            "",
        ]
        lines += [
            "| what | value |",
            "|---|---|",
            *(f"| {name} | {value} |" for name, value in record["results"].items()),
            "",
        ]
        lines += [*(f"- {note}" for note in record["notes"]), ""]
    return "\n".join(lines)


PAGES = {"MLproject": mlproject, "docs/parameters.md": parameters, "docs/benchmarks.md": benchmarks}


def main() -> int:
    """Write the pages, or with --check name those that differ."""
    differing = []
    for name, make in PAGES.items():
        path = ROOT / name
        if not path.exists() or path.read_text(encoding="utf-8") != make():
            differing.append(name)
            if "--check" not in sys.argv:
                path.write_text(make(), encoding="utf-8")
    if "--check" in sys.argv:
        if differing:
            print(f"out of date: {', '.join(differing)}; run `make docs`", file=sys.stderr)
        return bool(differing)
    print("\n".join(f"wrote {name}" for name in differing) or "everything was up to date")
    return 0


if __name__ == "__main__":
    sys.exit(main())
