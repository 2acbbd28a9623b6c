"""`python -m benchmarks.mutations draw | cover | try`: see `--help`.

draw mutations.json TREE [TREE …]                   30 mutations whose lines stand in each of the trees
cover mutations.json coverage.json TREE [TESTS …]   which tests come to their lines: the tree's suite, marked
try mutations.json coverage.json TREE               how many the tests catch; writes mutations.tried.json, too
"""

import argparse
import json
import tempfile
from collections import Counter
from pathlib import Path

from benchmarks.mutations import drawing, trials


def main() -> None:
    """One of the three."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("act", choices=["draw", "cover", "try"])
    parser.add_argument("words", nargs="+")
    parser.add_argument("--seed", type=int, default=18)
    parser.add_argument("--count", type=int, default=30)
    asked = parser.parse_args()
    files = [Path(word).resolve() for word in asked.words]
    with tempfile.TemporaryDirectory(prefix="mutations-", ignore_cleanup_errors=True) as folder:
        if asked.act == "draw":
            found = drawing.draw(files[1:], asked.seed, asked.count)
            _write(files[0], [vars(mutation) for mutation in found])
            return
        mutations = [drawing.Mutation(**row) for row in json.loads(files[0].read_text(encoding="utf-8"))][: asked.count]
        if asked.act == "cover":
            _write(files[1], trials.cover(files[2], mutations, Path(folder), asked.words[3:]))
        else:
            rows = trials.attempts(files[2], mutations, trials.read(files[1]), Path(folder))
            _write(files[0].with_suffix(".tried.json"), rows)
            print(dict(Counter(row["became"] for row in rows)))


def _write(file: Path, content: object) -> None:
    file.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
