"""Finding, checking and fetching a dataset's files; what is missing or damaged is refused with a way out."""

import hashlib
import re
from importlib.machinery import ModuleSpec
from pathlib import Path

import pooch
import pytest

from nfa.errors import Refusal
from nfa.registry import folders
from nfa.registry.datasets import image_files
from tests.support.forks import files, fill_and_die, killed

CONTENT = {"a.bin": b"first", "b.bin": b"second"}
TOY = image_files.PublishedFiles(
    address="http://example.invalid/toy",
    files={role: (name, hashlib.md5(CONTENT[name]).hexdigest()) for role, name in (("one", "a.bin"), ("two", "b.bin"))},
)


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """A dataset "toy" that is nowhere yet, an empty cache, and no network."""

    def unreachable(*_: object, **__: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setitem(image_files.SOURCES, "toy", TOY)
    monkeypatch.setenv("NFA_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("NFA_CALLER_DIR", raising=False)
    monkeypatch.setattr(pooch, "retrieve", unreachable)
    return tmp_path / "cache" / "toy"


def fill(folder: Path, **changes: bytes) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in {**CONTENT, **{f"{key}.bin": value for key, value in changes.items()}}.items():
        (folder / name).write_bytes(content)
    return folder


def test_files_in_a_given_folder_are_found(cache, tmp_path):
    assert image_files.locate("toy", str(fill(tmp_path / "mine"))) == {
        "one": tmp_path / "mine/a.bin",
        "two": tmp_path / "mine/b.bin",
    }
    assert not cache.exists()


def test_files_in_the_cache_are_found(cache):
    fill(cache)
    assert image_files.locate("toy") == {"one": cache / "a.bin", "two": cache / "b.bin"}


def test_files_in_an_installed_folder_are_found_before_the_cache(cache, tmp_path, monkeypatch):
    installed = fill(tmp_path / "installed")
    fill(cache, a=b"damaged")
    monkeypatch.setitem(
        image_files.SOURCES, "toy", image_files.PublishedFiles(TOY.address, TOY.files, (str(installed),))
    )
    assert image_files.locate("toy")["one"] == installed / "a.bin"


@pytest.mark.usefixtures("cache")
def test_a_relative_folder_counts_from_where_the_command_was_typed(tmp_path, monkeypatch):
    fill(tmp_path / "here" / "mine")
    monkeypatch.setenv("NFA_CALLER_DIR", str(tmp_path / "here"))
    assert image_files.locate("toy", "mine")["one"] == tmp_path / "here/mine/a.bin"


@pytest.mark.usefixtures("cache")
def test_a_tilde_is_the_home_folder(tmp_path, monkeypatch):
    fill(tmp_path / "home" / "mine")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NFA_CALLER_DIR", str(tmp_path))
    assert image_files.locate("toy", "~/mine")["one"] == tmp_path / "home/mine/a.bin"


def test_a_given_folder_that_lacks_files_is_refused_with_their_names_and_what_to_do(cache, tmp_path):
    (fill(tmp_path / "mine") / "b.bin").unlink()
    fill(cache)
    with pytest.raises(Refusal, match=r"(?s)mine lacks b\.bin.*a\.bin, b\.bin.*do: download .*data_dir=FOLDER"):
        image_files.locate("toy", str(tmp_path / "mine"))


@pytest.mark.parametrize("given", [True, False], ids=["given folder", "cache"])
def test_a_damaged_file_is_refused_with_both_checksums(cache, tmp_path, given):
    folder = fill(tmp_path / "mine" if given else cache, b=b"damaged")
    found, expected = hashlib.md5(b"damaged").hexdigest(), TOY.files["two"][1]
    with pytest.raises(Refusal, match=f"(?s)b.bin with MD5 {found}.*allowed: MD5 {expected}.*do: .*delete it"):
        image_files.locate("toy", str(folder) if given else "")


def test_a_known_repackaging_is_accepted(cache, monkeypatch):
    files = {**TOY.files, "two": (*TOY.files["two"], hashlib.md5(b"packed anew").hexdigest())}
    monkeypatch.setitem(image_files.SOURCES, "toy", image_files.PublishedFiles(TOY.address, files))
    fill(cache, b=b"packed anew")
    assert image_files.locate("toy")["two"] == cache / "b.bin"


def test_without_a_network_the_refusal_names_the_files_and_every_way_to_get_them(cache):
    with pytest.raises(Refusal) as refusal:
        image_files.locate("toy")
    message = str(refusal.value)
    assert re.search(r"toy: a\.bin was not found and could not be downloaded \(OSError\)", message)
    assert "files a.bin, b.bin" in message
    for remedy in (TOY.address, str(cache), "data_dir=FOLDER"):
        assert remedy in message


@pytest.mark.usefixtures("cache")
def test_a_fetched_file_with_another_checksum_is_refused(monkeypatch):
    def wrong(*_: object, **__: object) -> None:
        raise ValueError("MD5 hash of downloaded file does not match")

    monkeypatch.setattr(pooch, "retrieve", wrong)
    with pytest.raises(Refusal, match=r"could not be downloaded \(ValueError\)"):
        image_files.locate("toy")


@pytest.mark.parametrize("end", [OSError, KeyboardInterrupt])
def test_a_download_that_fails_leaves_nothing_in_the_cache_nor_the_cache(cache, monkeypatch, end):
    def broken(*_: object, path: Path, **__: object) -> None:
        (path / "tmp1234").write_bytes(b"fir")
        raise end

    monkeypatch.setattr(pooch, "retrieve", broken)
    with pytest.raises((Refusal, KeyboardInterrupt)):
        image_files.locate("toy")
    assert not cache.parent.exists()


def test_what_a_killed_download_leaves_is_gone_with_the_next(cache, monkeypatch):
    monkeypatch.setattr(pooch, "retrieve", lambda *_, path, **__: fill_and_die(path / "tmp1234"))
    killed(image_files.locate, "toy")
    assert len(files(cache)) == 2
    monkeypatch.setattr(pooch, "retrieve", lambda *_, path, fname, **__: (path / fname).write_bytes(CONTENT[fname]))
    image_files.locate("toy")
    assert files(cache) == ["a.bin", "b.bin"]


def test_missing_files_are_fetched_once_with_their_checksums(cache, monkeypatch):
    asked = []

    def retrieve(url: str, *, known_hash: str, fname: str, path: Path, **_: object) -> None:
        asked.append((url, known_hash))
        Path(path).mkdir(parents=True, exist_ok=True)
        (Path(path) / fname).write_bytes(CONTENT[fname])

    monkeypatch.setattr(pooch, "retrieve", retrieve)
    for _ in range(2):
        assert image_files.locate("toy") == {"one": cache / "a.bin", "two": cache / "b.bin"}
    assert asked == [(f"{TOY.address}/{name}", f"md5:{md5}") for name, md5 in TOY.files.values()]


def test_the_cache_is_under_home_unless_the_environment_says_otherwise(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("NFA_CACHE", raising=False)
    assert folders.cache_folder("svhn") == tmp_path / ".cache/nfa/svhn"


def test_digits_lie_in_the_installed_scikit_learn():
    assert image_files.locate("digits")["table"].is_file()


def test_digits_are_refused_where_scikit_learn_is_not_installed(monkeypatch):
    monkeypatch.setattr("nfa.extras.is_installed", lambda _: False)
    with pytest.raises(Refusal, match=r"(?s)dataset=digits without scikit-learn.*pip install 'nfa\[registry\]'"):
        image_files.locate("digits")


def test_digits_are_refused_where_scikit_learn_came_without_its_data(monkeypatch):
    there = ModuleSpec("sklearn", None, origin="there/__init__.py")
    monkeypatch.setattr("nfa.registry.datasets.image_files.find_spec", lambda _: there)
    with pytest.raises(Refusal, match=r"(?s)digits: no file there/datasets.*pip install --force-reinstall"):
        image_files.locate("digits")


def test_every_source_has_the_checksum_of_each_file():
    for source in image_files.SOURCES.values():
        for name, *sums in source.files.values():
            assert sums, name
            assert all(re.fullmatch("[0-9a-f]{32}", md5) for md5 in sums)
