"""Whether the last commit can be released: `make release-check`.

Its wheel is built from its source distribution, and tried in a clean environment and an empty folder: first the
library, with nothing but what it needs, then all of it. At the end stands the command that makes the version's tag;
with --tag it is made. Nothing is pushed.
"""

import os
import re
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path

from nfa import __version__
from nfa.console import stage
from nfa.errors import NfaError

ROOT = Path(__file__).resolve().parent.parent
BUILD = "import sys, setuptools.build_meta as backend; print(backend.build_sdist(sys.argv[1]))"
LIBRARY = """
import nfa, torch
model = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.ReLU(), torch.nn.Linear(6, 3))
loss = torch.nn.CrossEntropyLoss(reduction="none")
print(nfa.alignment(model, loss, (torch.randn(8, 4), torch.arange(8) % 3)))
"""
CONFORMANCE = """
from nfa.registry.ready.cnn import cnn
from nfa.registry.ready.transformer import transformer
from nfa.testing import check_workload
assert check_workload(lambda: cnn(width=2, depth=2)).ok
assert check_workload(lambda: transformer(modulus=5, width=8, heads=2, depth=1)).ok
"""
UNPACKAGED = (".ci/", ".gitignore", "mlruns/")  # what only a checkout needs


def main() -> int:
    """Check, and print or make the tag."""
    tag = f"v{__version__}"
    if faults := [*disagreements(ROOT), *unready(tag)]:
        print("\n".join(f"error: {fault}" for fault in faults), file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="nfa-release-") as folder:
        try:
            _try(_built(Path(folder)), Path(folder))
        except (subprocess.CalledProcessError, NfaError) as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
    command = ["git", "tag", "-a", tag, "-m", f"nfa {__version__}"]
    if "--tag" in sys.argv:
        subprocess.run(command, cwd=ROOT, check=True)
        stage("tagged", f"{tag}; to give it to others: git push origin {tag}")
    else:
        stage("done", f"to tag it: git tag -a {tag} -m 'nfa {__version__}'")
    return 0


def disagreements(root: Path) -> Iterator[str]:
    """Where the changelog or the citation say another version than the code."""
    for name, pattern in (("CHANGELOG.md", r"^## (\S+)"), ("CITATION.cff", r'^version: "(\S+)"')):
        found = re.search(pattern, (root / name).read_text(encoding="utf-8"), re.MULTILINE)
        if not found or found[1] != __version__:
            yield f"{name} says version {found and found[1]}, nfa.__version__ is {__version__}"


def unready(tag: str) -> Iterator[str]:
    """Why the last commit cannot get that tag."""
    if changed := _git("status", "--porcelain").splitlines():
        yield f"uncommitted: {', '.join(line[3:] for line in changed[:5])}: a tag is of a commit"
    if _git("tag", "--list", tag):
        yield f"the tag {tag} exists: raise nfa.__version__, and begin its part of CHANGELOG.md"


def _built(folder: Path) -> Path:
    """The wheel, of which is checked that it holds every file of the package that is committed."""
    sources, made = folder / "sources", folder / "made"
    sources.mkdir()
    with tarfile.open(_archived(folder)) as archive:
        archive.extractall(sources, filter="data")
    python = _environment(folder / "building")
    _run([python, "-m", "pip", "install", "--quiet", "setuptools>=77"], folder)
    _run([python, "-c", BUILD, made], sources, quiet=True)
    (sdist,) = made.glob("*.tar.gz")
    _run([python, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", made, sdist], folder)
    (wheel,) = made.glob("*.whl")
    check_contents(_git("ls-files").splitlines(), sdist, wheel)
    stage("built", f"{sdist.name}, {wheel.name}: {wheel.stat().st_size / 1e6:.1f} MB")
    return wheel


def check_contents(committed: list[str], sdist: Path, wheel: Path) -> None:
    """NfaError where a committed file is missing from the source distribution, or one of nfa/ from the wheel."""
    with tarfile.open(sdist) as archive:
        sources = {name.partition("/")[2] for name in archive.getnames()}
    with zipfile.ZipFile(wheel) as packed:
        held = set(packed.namelist())
    missing = {name for name in committed if not name.startswith(UNPACKAGED)} - sources
    missing |= {name for name in committed if name.startswith("nfa/")} - held
    if not any(name.endswith(".dist-info/licenses/LICENSE") for name in held):
        missing.add("LICENSE")
    if missing:
        raise NfaError(f"not packaged: {', '.join(sorted(missing))}\n  do: name them in pyproject.toml and MANIFEST.in")


def _archived(folder: Path) -> Path:
    file = folder / "sources.tar"
    _git("archive", "--output", str(file), "HEAD")
    return file


def _try(wheel: Path, folder: Path) -> None:
    """Install the wheel as a user does, and use it where nothing else is."""
    python, empty = _environment(folder / "installed"), folder / "empty"
    empty.mkdir()
    install: list[str | Path] = [python, "-m", "pip", "install", "--quiet", "-c", ROOT / "constraints.txt"]
    stage("library", "installs with what it needs")
    _run([*install, wheel], empty)
    _run([python, "-m", "pip", "check"], empty)
    _run([python.parent / "nfa", "--version"], empty)
    _run([python, "-c", LIBRARY], empty)
    stage("all", "installs with all extras")
    _run([*install, f"{wheel}[all]"], empty)
    _run([python, "-m", "pip", "check"], empty)
    _run([python.parent / "nfa", "demo"], empty)
    _run([python, "-c", CONFORMANCE], empty)


def _environment(folder: Path) -> Path:
    """The Python of a new environment."""
    venv.create(folder, with_pip=True)
    return folder / "bin" / "python"


def _run(command: list[str | Path], folder: Path, *, quiet: bool = False) -> None:
    """CalledProcessError where a command fails; it does not see this checkout."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "MLFLOW_"))}
    output = subprocess.DEVNULL if quiet else None
    subprocess.run(list(map(str, command)), cwd=folder, env=environment, stdout=output, check=True)


def _git(*words: str) -> str:
    return subprocess.run(["git", *words], cwd=ROOT, check=True, capture_output=True, text=True).stdout.rstrip()


if __name__ == "__main__":
    sys.exit(main())
