"""Files of the published data sets: found in a folder or downloaded once, and always verified by checksum.

Nothing heavy is imported here, so a missing or damaged file is reported before any work starts.
"""

import hashlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from nfa import unfinished
from nfa.errors import Refusal, reading
from nfa.extras import check_extra
from nfa.registry.folders import cache_folder, typed_folder


@dataclass(frozen=True)
class PublishedFiles:
    """Files of a published dataset by role, their download address, and folders in which they may already lie.

    Each file is a name, its published MD5, and the MD5s of known repackagings with the same content (Debian's).
    """

    address: str
    files: Mapping[str, tuple[str, ...]]
    folders: tuple[str, ...] = ()


SOURCES = {
    "fashion-mnist": PublishedFiles(
        address="http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",
        files={
            "train_images": (
                "train-images-idx3-ubyte.gz",
                "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
                "cf8536b0aa1a6ac5fa3f23001093305c",
            ),
            "train_labels": (
                "train-labels-idx1-ubyte.gz",
                "25c81989df183df01b3e8a0aad5dffbe",
                "10bea18fdb374794d4bb42e356e600c9",
            ),
            "test_images": (
                "t10k-images-idx3-ubyte.gz",
                "bef4ecab320f06d8554ea6380940ec79",
                "f78720b4224f21cce2f2ccf2d7a94c9a",
            ),
            "test_labels": (
                "t10k-labels-idx1-ubyte.gz",
                "bb300cfdad3c16e7a12a480ee83cd310",
                "0d30e22e447f3c33dab9ed536400ac01",
            ),
        },
        folders=("/usr/share/datasets/fashion-mnist",),
    ),
    "svhn": PublishedFiles(
        address="http://ufldl.stanford.edu/housenumbers",
        files={
            "train": ("train_32x32.mat", "e26dedcc434d2e4c54c9b2d4a06d8373"),
            "test": ("test_32x32.mat", "eb5a983be6a315427106f1b164d9cef3"),
        },
    ),
    "cifar10": PublishedFiles(
        address="https://www.cs.toronto.edu/~kriz",
        files={"archive": ("cifar-10-binary.tar.gz", "c32a1d4ab5d03f1284b67883e8d87530")},
    ),
}
DIGITS = "datasets/data/digits.csv.gz"  # in the package of scikit-learn


def locate(dataset: str, data_dir: str = "") -> dict[str, Path]:
    """Find or download a dataset's files.

    Args:
        dataset: Name of a published dataset, such as "digits" or "cifar10".
        data_dir: Folder that holds the files; empty = search the known folders, else download. Digits come with
            scikit-learn, whatever the folder.

    Returns:
        Paths of the verified files by role.

    Raises:
        Refusal: A file is missing, damaged, or cannot be downloaded.
    """
    if dataset == "digits":
        return {"table": _with_scikit_learn()}
    source = SOURCES[dataset]
    if data_dir:
        return _verified(dataset, typed_folder(data_dir))
    for candidate in (*source.folders, str(cache_folder(dataset))):
        if all(Path(candidate, name).is_file() for name, *_ in source.files.values()):
            return _verified(dataset, Path(candidate))
    return _fetched(dataset)


def _with_scikit_learn() -> Path:
    """Return the digits file of the installed scikit-learn, without importing it, because that is slow."""
    check_extra("dataset=digits", "registry", "scikit-learn")
    package = find_spec("sklearn")
    assert package
    assert package.origin
    file = Path(package.origin).parent / DIGITS
    if not file.is_file():
        remedy = "install it again: pip install --force-reinstall scikit-learn"
        raise Refusal(f"digits: no file {file}", "scikit-learn with its data sets", remedy)
    return file


def _verified(dataset: str, folder: Path) -> dict[str, Path]:
    files = SOURCES[dataset].files
    missing = [name for name, *_ in files.values() if not (folder / name).is_file()]
    if missing:
        got = f"{dataset}: {folder} lacks {', '.join(missing)}"
        raise Refusal(got, f"a folder with {_names(dataset)}", _by_hand(dataset))
    for name, *expected in files.values():
        with reading(f"{dataset}: {folder / name}", "a readable file", "check its permissions"):
            found = _md5(folder / name)
        if found not in expected:
            remedy = f"the file is damaged or a different version: delete it and download it again. {_by_hand(dataset)}"
            raise Refusal(f"{dataset}: {folder / name} with MD5 {found}", f"MD5 {' or '.join(expected)}", remedy)
    return {role: folder / name for role, (name, *_) in files.items()}


def _fetched(dataset: str) -> dict[str, Path]:
    source, folder = SOURCES[dataset], cache_folder(dataset)
    for name, *known in source.files.values():
        if (folder / name).is_file() and _md5(folder / name) in known:
            continue
        try:
            unfinished.write(folder / name, partial(_fetch, f"{source.address}/{name}", known[0]))
        except (OSError, ValueError) as error:
            reason = f"{dataset}: {name} was not found and could not be downloaded ({type(error).__name__})"
            raise Refusal(reason, f"files {_names(dataset)}", _by_hand(dataset)) from None
    return {role: folder / name for role, (name, *_) in source.files.items()}


def _fetch(address: str, md5: str, file: Path) -> None:
    import pooch

    bar = sys.stderr.isatty()
    pooch.retrieve(address, known_hash=f"md5:{md5}", fname=file.name, path=file.parent, progressbar=bar)


def _names(dataset: str) -> str:
    return ", ".join(name for name, *_ in SOURCES[dataset].files.values())


def _by_hand(dataset: str) -> str:
    return (
        f"download {_names(dataset)} from {SOURCES[dataset].address} into {cache_folder(dataset)}, "
        "or name the folder that holds them: data_dir=FOLDER"
    )


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
