"""A function that makes workloads is found and read without importing its file."""

import sys
from pathlib import Path

import pytest

from nfa.errors import Refusal
from nfa.registry.families.custom.maker import find, written
from tests.support.workload_files import imports

FILE = """
import functools
import torch.nn as nn
from os import system

raise SystemExit("imported")


class Workload:
    def make(self): ...

    def __call__(self): ...


def plain(width: int = 8, rate: float = 1, name="a", deep=True, other=None, called=nn.ReLU, much={[]: 1}): ...


def noted(a: "float" = 0, b: Optional[str] = None, c: "int | None" = None, d: typing.Union[float, None] = 1,
          e: Literal["x", "7"] = "x", f: list[int] = (1, 2), g: int | str = 3, h: "not Python" = 1): ...


def required(width: int, *, rate: float, seed): ...


def greedy(*args, known=1, **options): ...


def nameless(width, /): ...


@functools.cache
def decorated(): ...


async def later(): ...


def outer():
    def inner(): ...


if True:
    def below(): ...

small = lambda: None
alias = plain
"""


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NFA_CALLER_DIR", raising=False)
    monkeypatch.chdir(tmp_path)
    Path("my_lab.py").write_text(FILE)


def refused(name: str) -> str:
    with pytest.raises(Refusal) as refusal:
        find(name)
    return str(refusal.value)


def test_it_is_read_without_being_imported() -> None:
    maker = find("my_lab:plain")
    kinds = {name: one.kind for name, one in maker.arguments.items()}
    expected = {"width": int, "rate": float, "name": str, "deep": bool, "other": None, "called": None, "much": None}
    assert kinds == expected
    assert [one.default for one in maker.arguments.values()] == [8, 1, "a", True, None, None, None]
    assert maker.file == Path("my_lab.py").resolve()
    assert "my_lab" not in sys.modules


@pytest.mark.parametrize(
    "name",
    ["system", "Workload", "small", "alias", "inner", "outer.inner", "Workload.make", "below", "later", "absent"],
)
def test_what_is_no_function_of_the_file_s_own_is_refused(name: str) -> None:
    said = refused(f"my_lab:{name}")
    assert f"workload=my_lab:{name}" in said


@pytest.mark.parametrize(("name", "why"), [("decorated", "decorator"), ("nameless", "remove / from")])
def test_functions_that_cannot_be_called_by_name_are_refused(name: str, why: str) -> None:
    assert why in refused(f"my_lab:{name}")


@pytest.mark.parametrize(
    "name",
    [
        "", ":", "my_lab", "my_lab:", ":plain", "my_lab:plain:plain", "my_lab/:plain", "../my_lab:plain",
        "my lab:plain", "my_lab.:plain", ".my_lab:plain", "absent:plain", "absent.py:plain", "my_lab.py:", "/:plain",
        "os:system", "sys:exit", "builtins:exec", "__main__:make", "torch._C:f", "my_lab:plain()",
        "json.decoder:scanstring", "mlp",
    ],
)  # fmt: skip
def test_what_names_no_function_is_refused_and_nothing_is_imported(name: str) -> None:
    before = {*sys.modules}
    assert "workload=" in refused(name)
    assert {*sys.modules} == before


def test_a_file_that_python_cannot_read_is_refused() -> None:
    Path("broken.py").write_text("def make(:")
    assert "invalid syntax" in refused("broken:make")
    Path("binary.py").write_bytes(b"\0\xff")
    assert "a valid Python file" in refused("binary:make")


def test_a_folder_or_a_link_to_nowhere_is_no_file() -> None:
    Path("folder.py").mkdir()
    Path("gone.py").symlink_to("nowhere.py")
    for name in ("folder:make", "folder.py:make", "gone:make", "gone.py:make"):
        assert "there is no" in refused(name)


@pytest.mark.parametrize("name", ["lab/models.py:make", "lab.models:make", "lab:make"])
def test_modules_of_a_package_in_the_folder_are_found(name: str) -> None:
    Path("lab").mkdir()
    for file in ("models.py", "__init__.py"):
        Path("lab", file).write_text("raise SystemExit('imported')\ndef make(): ...")
    assert find(name).file.parent == Path("lab").resolve()


def test_a_file_of_the_folder_comes_before_an_installed_module_of_its_name() -> None:
    Path("json.py").write_text("def make(): ...")
    assert find("json:make").file == Path("json.py").resolve()


def test_the_last_of_several_functions_of_one_name_counts() -> None:
    Path("twice.py").write_text("def make(width=1): ...\ndef make(depth=2): ...")
    assert [*find("twice:make").arguments] == ["depth"]


# ---- arguments


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("plain", "", {}),
        ("plain", "deep=FALSE,width=3", {"width": 3, "deep": False}),
        ("plain", "rate=2", {"rate": 2.0}),
        ("plain", "other=2,called=relu", {"other": 2, "called": "relu"}),
        ("plain", "other=true", {"other": True}),
        ("plain", "name=1", {"name": "1"}),
        ("plain", "name=0-5,10", {"name": "0-5,10"}),
        ("noted", "a=0.5,b=3,c=4,d=2", {"a": 0.5, "b": "3", "c": 4, "d": 2.0}),
        ("noted", "e=7,f=1,g=x,h=2", {"e": "7", "f": 1, "g": "x", "h": 2}),
        ("required", "width=1,rate=1e-3", {"width": 1, "rate": 0.001}),
        ("greedy", "other=a,known=2", {"known": 2, "other": "a"}),
    ],
)
def test_arguments_are_read_as_the_function_says(name: str, text: str, expected: dict[str, object]) -> None:
    found = find(f"my_lab:{name}").read(text)
    assert found == expected
    assert [type(value) for value in found.values()] == [type(value) for value in expected.values()]
    assert find(f"my_lab:{name}").read(written(found)) == found


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("plain", "widht=3", "did you mean width"),
        ("plain", "width=a", "a value of type int"),
        ("plain", "width=1.5", "a value of type int"),
        ("noted", "c=none", "a value of type int"),
        ("plain", "deep=1", "true or false"),
        ("plain", "width=1,width=2", "given twice"),
        ("plain", "width", "NAME=VALUE"),
        ("plain", "width=", "NAME=VALUE"),
        ("required", "rate=1", "without width"),
        ("greedy", "args=1,=2", "NAME=VALUE"),
    ],
)
def test_arguments_that_it_does_not_take_are_refused(name: str, text: str, why: str) -> None:
    with pytest.raises(Refusal, match=why):
        find(f"my_lab:{name}").read(text)


@pytest.mark.parametrize("value", [[1], None, {"a": 1}, "a,b=c", "", " a", "a, b"])
def test_values_that_cannot_be_typed_are_refused(value: object) -> None:
    with pytest.raises(Refusal):
        written({"width": value})  # type: ignore[dict-item]


# ---- names that installed packages give


def install(folder: Path, points: str) -> None:
    """A distribution as pip leaves it, with a package that defines `make`."""
    (folder / "somebodys_nets-1.dist-info").mkdir(parents=True)
    (folder / "somebodys_nets-1.dist-info/METADATA").write_text("Name: somebodys-nets\nVersion: 1\n")
    (folder / "somebodys_nets-1.dist-info/entry_points.txt").write_text(f"[nfa.workloads]\n{points}\n")
    (folder / "somebodys_nets").mkdir()
    (folder / "somebodys_nets/__init__.py").write_text("raise SystemExit('imported')")
    (folder / "somebodys_nets/vision.py").write_text("def make(width: int = 4): ...")


def test_a_registered_name_is_found_where_its_package_is_and_not_in_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path / "site", "mynet = somebodys_nets.vision:make\nmoved = somebodys_nets.gone:make\nbad = nonsense")
    Path("somebodys_nets").mkdir()
    Path("somebodys_nets/vision.py").write_text("def make(): ...")
    monkeypatch.syspath_prepend(tmp_path / "site")
    with imports():
        maker = find("mynet")
    assert (maker.registered, maker.file) == (True, tmp_path / "site/somebodys_nets/vision.py")
    assert [*maker.arguments] == ["width"]
    assert "mynet, moved, bad" in refused("mynett")
    assert "there is no somebodys_nets.gone" in refused("moved")
    assert "workload=bad" in refused("bad")
