"""Figures of a run as artifacts."""

from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from mlflow.entities import Run

from nfa.registry.tracking import artifacts
from nfa.registry.tracking.places import local_folder, store_address
from nfa.registry.tracking.runs import TrackedRun
from nfa.sinks.pictures import KINDS, mask_texts, write_picture

FOLDER = "plots"
WIDEST = 1000  # pixels, beside which the UI has room for its own column


def save_picture(run: TrackedRun | Run, figure: Any, name: str, *, also_pdf: bool = True) -> None:
    """Store a matplotlib figure as plots/<name>.png and .pdf; do nothing in a thrifty run."""
    if isinstance(run, TrackedRun) and run.thrifty:
        return
    info = run.info if isinstance(run, TrackedRun) else run
    mask_texts(figure)
    for kind in KINDS if also_pdf else ("png",):
        artifacts.put(info, f"{FOLDER}/{name}.{kind}", partial(write_picture, figure))


def preview(run: TrackedRun, path: str) -> str:
    """Return the path of a smaller copy of a picture, because MLflow's UI shows pictures in their own size; of the
    picture itself if it is small.
    """
    from PIL import Image

    with Image.open(artifacts.get(run.run_id, path)) as picture:
        if picture.width <= WIDEST:
            return path
        smaller = picture.convert("RGB").resize((WIDEST, round(picture.height * WIDEST / picture.width)))
    artifacts.put(run.info, artifacts.PREVIEW, lambda file: _saved(smaller, file))
    return artifacts.PREVIEW


def _saved(picture: Any, file: Path) -> None:
    picture.save(file, format="PNG")


def picture_paths(run: Run) -> list[str]:
    """Return the paths of a run's PNG files, sorted, without the preview, which is a copy."""
    if folder := local_folder(run):  # many runs are looked at, and the store need not be asked for each
        paths = [f"{FOLDER}/{file.name}" for file in (folder / FOLDER).glob("*.png")]
    else:
        paths = artifacts.names(run.info.run_id, FOLDER)
    return sorted(path for path in paths if path.endswith(".png") and path != artifacts.PREVIEW)


def artifact_address(run: Run, path: str) -> str:
    """Return where a browser finds an artifact: at the tracking server, or else in its file; without a password."""
    server = urlsplit(store_address())
    if server.scheme in ("http", "https"):
        asked = urlencode({"path": path, "run_uuid": run.info.run_id}, quote_via=quote)
        host = server.netloc.rpartition("@")[2]
        return f"{server.scheme}://{host}{server.path.rstrip('/')}/get-artifact?{asked}"
    folder = local_folder(run)
    return (folder / path).absolute().as_uri() if folder else f"{run.info.artifact_uri}/{quote(path)}"


def opened(run: Run, path: str) -> Any:
    """Return a picture as an RGB image on white; raise `Refusal` if it is missing or damaged."""
    from PIL import Image

    with artifacts.reading_of(run.info.run_id, path):
        file = artifacts.file_of(run, path)
        with Image.open(file) as picture:
            found = Image.new("RGB", picture.size, "white")
            found.paste(picture.convert("RGB"), mask=picture.convert("RGBA").getchannel("A"))
        if local_folder(run) is None:
            file.unlink()  # the copy is not needed any more
    return found
