"""Write what is derived: MLproject, CITATION.cff, entrypoints/, docs/parameters.md and more. `--check` compares."""

import ast
import dataclasses
import json
import re
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from markdown_text import cell, paragraph, table
from measured_pages import benchmarks, chaos, conformance
from python_page import python

from nfa import __version__
from nfa.registry.entry_points import entry_points
from nfa.registry.families.custom.maker import Maker, find
from nfa.registry.ready import READY
from nfa.relations import MATRICES, RELATIONS

ROOT = Path(__file__).resolve().parent.parent
NOTE = "made by docs/generate.py from the dataclasses of parameters; change them"


def configs() -> Iterator[tuple[str, type[Any]]]:
    """Names of entry points, and the dataclasses of their parameters."""
    return ((name, point.parameters) for name, point in entry_points().items())


def mlproject() -> str:
    """MLproject: every entry point with every parameter, its type and default."""
    lines = [f"# {NOTE}", "name: nfa", "conda_env: conda.yaml", "entry_points:"]
    for name, config in configs():
        lines += [f"  {name}: &{name}", f"    parameters:{'' if dataclasses.fields(config) else ' {}'}"]
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
    for name, config in configs():
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
            lines.append(f"| `{item.name}` | {cell(default)} | {cell(meaning)} |")
    return "\n".join([*lines, *ready_workloads()]) + "\n"


def ready_workloads() -> Iterator[str]:
    """The part of docs/parameters.md about ready-made workloads: the arguments of their functions."""
    yield from ("", "## Ready-made workloads", "")
    yield from paragraph(
        "`train` and `tune` know these workloads by name. Their arguments are given in `workload_args`, for example "
        "`width=32,depth=4`."
    )
    yield from ("| workload | argument | default | meaning |", "|---|---|---|---|")
    for name in READY:
        maker = find(name)
        meanings = arguments_of(maker)
        for argument in maker.arguments.values():
            default = "empty" if argument.default == "" else f"`{argument.default}`"
            yield f"| `{name}` | `{argument.name}` | {default} | {cell(meanings[argument.name])} |"


def arguments_of(maker: Maker) -> dict[str, str]:
    """What the docstring of a workload's function says of each argument."""
    body = ast.parse(maker.file.read_text(encoding="utf-8")).body
    made = next(one for one in body if isinstance(one, ast.FunctionDef) and one.name == maker.function)
    said = (ast.get_docstring(made) or "").partition("Args:\n")[2]
    found = re.findall(r"^ {4}(\w+): (.+?)(?=^ {4}\w|\Z)", said + "\n", re.MULTILINE | re.DOTALL)
    return {name: " ".join(text.split()) for name, text in found}


def relations() -> str:
    """docs/relations.md, from the table of relations."""
    lines = [
        "# Matrices and relations",
        "",
        "<!-- made by docs/generate.py from nfa/relations.py; change that file -->",
        "",
    ]
    lines += paragraph(
        "The matrices of a site, and the numbers that are computed from them. h is the input of the site, W its weight "
        "and z = W h its output; f are the outputs of the network and ℓ is the loss of an example. [Maths](maths.md) "
        "has the exact definitions, and [Reading the numbers](reading_the_numbers.md) says what they mean. "
        "`relations=` takes the names without `<site>/`, globs such as `g_vs_*`, or `all`. The two shares in known "
        "features (`…_known`) need not be named: they are computed wherever a workload states its known features."
    )
    matrices = ((matrix.label, f"`{name}`", matrix.formula) for name, matrix in MATRICES.items())
    lines += table(["matrix", "name", "definition"], matrices)
    rows = (
        (f"`<site>/{name}`", one.label, one.kind, ", ".join(one.matrices), "yes" if one.needs_all_outputs else "")
        for name, one in RELATIONS.items()
    )
    heads = ["series", "label in figures", "kind", "computed from", "needs all output directions"]
    lines += ["", *table(heads, rows), ""]
    return "\n".join(lines)


def citation() -> str:
    """CITATION.cff, with the version, what pyproject.toml says of the project, and the README's first paragraph."""
    said = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    facts = {"type": "software", "title": said["name"], "version": __version__, "license": said["license"]}
    asked = "If you use nfa in your research, please cite it as below."
    lines = ["# made by docs/generate.py from pyproject.toml, nfa.__version__ and README.md", "cff-version: 1.2.0"]
    lines += [f"{name}: {json.dumps(text)}" for name, text in {"message": asked, **facts}.items()]
    lines += [f"abstract: {json.dumps(purpose(), ensure_ascii=False)}", "authors:"]
    lines += [f"  - name: {json.dumps(author['name'])}" for author in said["authors"]]
    return "\n".join([*lines, f"keywords: {json.dumps(said['keywords'])}"]) + "\n"


def purpose() -> str:
    """What nfa is for: the first paragraph of the README, without the addresses of its links."""
    paragraph = (ROOT / "README.md").read_text(encoding="utf-8").split("\n\n")[1]
    return " ".join(re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", paragraph).split())


PAGES = {
    "MLproject": mlproject,
    "CITATION.cff": citation,
    "docs/parameters.md": parameters,
    "docs/python.md": python,
    "docs/benchmarks.md": benchmarks,
    "docs/chaos.md": chaos,
    "docs/conformance.md": conformance,
    "docs/relations.md": relations,
}


def doors() -> dict[str, Callable[[], str]]:
    """The thin file in entrypoints/ of each entry point, by its path."""

    def door(name: str) -> Callable[[], str]:
        said = f'"""Run the entry point `{name}`."""'
        return lambda: (
            f'{said}\n\nfrom nfa.registry.cli import main\n\nif __name__ == "__main__":\n    main("{name}")\n'
        )

    return {f"entrypoints/{name}.py": door(name) for name, _ in configs()}


def main() -> int:
    """Write the pages, or with --check name those that differ."""
    differing = []
    for name, make in {**PAGES, **doors()}.items():
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
