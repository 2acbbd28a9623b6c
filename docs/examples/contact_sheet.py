"""Draw all figures of all entry points with tiny trainings in a temporary store, and put them on one page to look at.

`python docs/examples/contact_sheet.py FOLDER` takes a few minutes. It writes the pictures into the folder, and
contact_sheet.html and contact_sheet.pdf, which show them at their real size. Of figures that a command draws for many
checkpoints or runs, two are shown.
"""

import html
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

DPI = 200  # of the pictures
PAGE = (11.0, 15.5)  # inches
MARGIN, CAPTION = 0.3, 0.25  # inches
MLP: dict[str, Any] = {"width": 24, "depth": 3, "epochs": 6, "schedule": "0-3,6", "max_samples": 200}
SHORT = MLP | {"epochs": 3, "schedule": "0-3"}
EEG: dict[str, Any] = {"subjects": 2, "stimuli": 2, "seconds": 60, "channels": 4, "window_seconds": 2, "epochs": 6}
EEG |= {"d_model": 8, "d_inner": 12, "n_layers": 2, "conv_kernel_size": 5, "eval_every": 2, "schedule": "0,2,6"}
LORA: dict[str, Any] = {"rank": 4, "batch_size": 2, "accumulation": 2, "max_items": 60, "eval_items": 12}
LORA |= {"lr": 0.005, "max_length": 200}
TUNE: dict[str, Any] = {"fixed": "width=12,depth=2,epochs=3,schedule=0-3,max_samples=64", "n_trials": 10, "confirm": 2}
ALL_SITES = {"workload": "transformer", "workload_args": "depth=8", "epochs": 1, "max_samples": 16, "chance": "false"}


@dataclass(frozen=True)
class Play:
    """A command: what it shows, its entry point, and parameters; {name} stands for the id of the run of that name."""

    shows: str
    entry_point: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    named: str = ""


PLAYS = (
    Play("one training", "train", MLP, "one"),
    Play("mean squared error and the gradient harmonising mechanism", "train", MLP | {"weighting": "ghm"}, "ghm"),
    Play("three optimizers", "train", SHORT | {"optimizer": "all", "loss": "cross-entropy"}, "optimizers"),
    Play("three seeds", "train", SHORT | {"seeds": "1-3", "label_noise": 0.2}, "seeds"),
    Play("three optimizers, three seeds", "train", SHORT | {"optimizer": "all", "seeds": "1-3"}, "both"),
    Play("the tour", "demo", {"epochs": 4, "width": 24}),
    Play("the default relations", "analyze", {"run_id": "{one}"}),
    Play("all relations", "analyze", {"run_id": "{one}", "relations": "all", "max_samples": 128}),
    Play("several runs", "analyze", {"run_id": "{optimizers}", "max_samples": 128}),
    Play("groups of seeds", "analyze", {"run_id": "{both}", "max_samples": 64}),
    Play("a transformer", "train", ALL_SITES, "transformer"),
    Play("many sites", "analyze", {"run_id": "{transformer}", "max_samples": 16, "epochs": "0-1"}),
    Play("one run", "gradient_directions", {"run_id": "{one}", "epochs": "all", "n": 96}),
    Play("two runs", "gradient_directions", {"run_id": "{one},{ghm}", "epochs": "2,6", "n": 96}),
    Play("three seeds with wrong labels", "gradient_directions", {"run_id": "{seeds}", "epochs": "1-3", "n": 96}),
    Play("one run", "gradient_flow", {"run_id": "{one}"}),
    Play("several runs", "gradient_flow", {"run_id": "{optimizers}"}),
    Play("groups of seeds", "gradient_flow", {"run_id": "{both}"}),
    Play("many parts", "gradient_flow", {"run_id": "{transformer}", "n": 16}),
    Play("one training", "train_eeg", EEG, "eeg"),
    Play("three seeds", "train_eeg", EEG | {"seeds": "1-3", "preset": "v1"}, "eeg seeds"),
    Play("presets", "ablate_eeg", EEG | {"switches": "none", "seeds": "1-3"}),
    Play("recordings and seeds", "gradient_flow", {"run_id": "{eeg},{eeg seeds}"}),
    Play("one fine-tuning", "train_lora", LORA, "lora"),
    Play("three seeds", "train_lora", LORA | {"seeds": "1-3", "max_items": 30}),
    Play("a teacher", "synthesize_teacher", {"run_id": "{lora}", "target_rank": 12}, "teacher"),
    Play("its factors", "lora_svd", {"run_id": "{teacher}", "rank": 4}),
    Play("the experiment, with its comparison", "lora_experiment", LORA | {"target_rank": 8, "seeds": "1,2"}),
    Play("gradients of steps", "gradient_directions", {"run_id": "{lora}", "epochs": "all", "n": 24}),
    Play("one objective", "tune", TUNE | {"space": "lr=log:1e-3:1,momentum=0:0.9,activation=relu|tanh"}),
    Play(
        "two objectives",
        "tune",
        TUNE | {"space": "lr=log:1e-3:1,batch_size=16:128/16", "objective": "val/loss,layer_0/agop_nfm"},
    ),
)  # fmt: skip


def main(folder: str = "build/figures", plays: Sequence[Play] = PLAYS) -> int:
    """Draw everything, and return the number of pictures."""
    target = Path(folder).resolve()
    target.mkdir(parents=True, exist_ok=True)
    shown: list[tuple[str, Path]] = []
    with tempfile.TemporaryDirectory() as store:
        _enter(Path(store))
        for number, play in enumerate(plays, 1):
            shown += _kept(_played(play, Path(store)), target, f"{number:02}_{play.entry_point}")
        if plays is PLAYS:
            from_python = {"nfa.watch": _watched, "notebook": _tables}
            for name, draw in from_python.items():
                shown += _kept(_python(name, draw, Path(store) / name), target, name)
    write_page(shown, target / "contact_sheet.html")
    write_sheets(shown, target / "contact_sheet.pdf")
    print(f"{len(shown)} pictures: {target / 'contact_sheet.html'} and .pdf")
    return len(shown)


def _enter(store: Path) -> None:
    """Use a store of its own, from its folder."""
    for name in [name for name in os.environ if name.startswith(("MLFLOW_RUN", "MLFLOW_EXPERIMENT", "NFA_CALLER"))]:
        del os.environ[name]
    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{store}/mlflow.db"
    os.environ.setdefault("NFA_CACHE", str(Path.home() / ".cache" / "nfa"))
    os.chdir(store)


def _played(play: Play, store: Path) -> Iterator[tuple[str, Path]]:
    """Run the command, and yield the caption and the file of every picture that it stored."""
    from nfa.registry import cli, tracking
    from nfa.registry.entry_points import entry_points

    before = set(store.glob("mlruns/*/*"))
    config = entry_points()[play.entry_point].parameters
    given = dict(play.parameters) | ({"run_name": play.named} if play.named else {})
    words = [f"--{name}={_with_ids(str(value))}" for name, value in given.items()]
    print(f"== {play.entry_point} {' '.join(words)}", flush=True)
    cli.starter(play.entry_point)(cli.parse(config, words))
    for run in sorted(set(store.glob("mlruns/*/*")) - before, key=lambda run: run.stat().st_mtime):
        called = tracking.find_run(run.name).info.run_name
        for file in sorted(run.glob("artifacts/**/plots/**/*.png")):
            yield f"{play.entry_point} ({play.shows}), run “{called}”: {file.relative_to(run / 'artifacts')}", file


def _with_ids(text: str) -> str:
    """Return a parameter with ids in place of {name}."""
    from nfa.registry import tracking

    for part in text.split("{")[1:]:
        name = part.partition("}")[0]
        (found, *_) = tracking.named_runs(f"attributes.run_name = '{name}'")
        text = text.replace(f"{{{name}}}", found.info.run_id)
    return text


def _python(name: str, draw: Callable[[Path], None], folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield the same for the figures that Python draws into a folder."""
    print(f"== {name}", flush=True)
    folder.mkdir()
    draw(folder)
    for file in sorted(folder.glob("**/*.png")):
        yield f"{name}: {file.relative_to(folder)}", file


def _network() -> tuple[Any, Any, Any]:
    """Return a small model, its per-example loss and a probe of digits."""
    import torch
    import torch.nn as nn
    from sklearn.datasets import load_digits

    torch.manual_seed(0)
    inputs, targets = load_digits(return_X_y=True)
    model = nn.Sequential(nn.Linear(64, 24), nn.ReLU(), nn.Linear(24, 24), nn.ReLU(), nn.Linear(24, 10))
    probe = (torch.tensor(inputs[:96] / 16).float(), torch.tensor(targets[:96]))
    return model, nn.CrossEntropyLoss(reduction="none"), probe


def _watched(folder: Path) -> None:
    import torch

    import nfa
    from nfa.sinks import JsonLines

    model, loss, probe = _network()
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    with nfa.watch(model, loss, probe, studies="alignment,directions,flow", sink=JsonLines(folder)) as watch:
        for step in range(5):
            watch.record(step)
            optimizer.zero_grad()
            loss(model(probe[0]), probe[1]).mean().backward()
            optimizer.step()


def _tables(folder: Path) -> None:
    import nfa
    from nfa.sinks.pictures import write_picture

    model, loss, probe = _network()
    for name in ("alignment", "gradient_directions", "gradient_flow"):
        write_picture(getattr(nfa, name)(model, loss, probe).plot(), folder / f"{name}.png")
    for name in ("one", "optimizers", "both"):
        write_picture(nfa.results(_with_ids(f"{{{name}}}")).plot("agop_nfm"), folder / f"results of {name}.png")


def _kept(found: Iterator[tuple[str, Path]], folder: Path, name: str) -> list[tuple[str, Path]]:
    """Copy the pictures into the folder, because the store is temporary; of pictures of one kind, the first and last.
    """
    kinds: dict[str, list[tuple[str, Path]]] = {}
    for caption, file in found:
        if file.stem != "preview":  # a smaller copy of another
            kinds.setdefault(re.sub(r"_(epoch|step)_\d+$", "", file.stem), []).append((caption, file))
    kept = []
    for number, alike in enumerate(kinds.values(), 1):
        for place, (caption, file) in enumerate(alike[:1] + alike[1:][-1:]):
            more = f" (one of {len(alike)})" if len(alike) > 2 else ""
            kept.append((caption + more, folder / f"{name}_{number:02}{'ab'[place]}_{file.name}"))
            shutil.copyfile(file, kept[-1][1])
    return kept


# ---- the page and the sheets


def write_page(shown: Sequence[tuple[str, Path]], file: Path) -> None:
    """Write a page with all pictures; an inch of a picture is an inch of CSS."""
    parts = ["<!DOCTYPE html><html lang='en'><meta charset='utf-8'><title>All figures of nfa</title>"]
    for caption, picture in shown:
        with Image.open(picture) as opened:
            wide = opened.width / DPI
        image = f"<img loading='lazy' style='width:{wide:.2f}in' src='{html.escape(picture.name)}' alt=''>"
        parts.append(f"<figure>{image}<figcaption>{html.escape(caption)}</figcaption></figure>")
    file.write_text("\n".join([*parts, "</html>"]), encoding="utf-8")


def write_sheets(shown: Sequence[tuple[str, Path]], file: Path) -> None:
    """Write the same as pages of a PDF file."""
    pages = [_sheet(page) for page in _pages(shown)]
    if pages:
        pages[0].save(file, save_all=True, append_images=pages[1:], resolution=DPI)


Placed = tuple[int, int, str, Path]


def _pages(shown: Sequence[tuple[str, Path]]) -> list[list[Placed]]:
    """Place the pictures in rows, from left to right and from top to bottom; one larger than a page is alone."""
    wide, high, gap, below = (int(inches * DPI) for inches in (*PAGE, MARGIN, CAPTION))
    pages: list[list[Placed]] = [[]]
    x = y = gap
    row = 0
    for caption, picture in shown:
        with Image.open(picture) as opened:
            width, height = opened.width + gap, opened.height + gap + below
        if x > gap and x + width > wide:
            x, y, row = gap, y + row, 0
        if y > gap and y + height > high:
            pages.append([])
            x, y, row = gap, gap, 0
        pages[-1].append((x, y, caption, picture))
        x, row = x + width, max(row, height)
    return pages


def _sheet(placed: Sequence[Placed]) -> Image.Image:
    sizes = []
    for x, y, _, picture in placed:
        with Image.open(picture) as opened:
            sizes.append((x + opened.width, y + opened.height))
    wide, high = (max(int(least * DPI), *ends) for least, ends in zip(PAGE, zip(*sizes, strict=True), strict=True))
    sheet = Image.new("RGB", (wide + 60, high + 100), "white")
    pen = ImageDraw.Draw(sheet)
    for (x, y, caption, picture), (_, bottom) in zip(placed, sizes, strict=True):
        with Image.open(picture) as opened:
            sheet.paste(opened.convert("RGB"), (x, y))
        pen.text((x, bottom + 8), caption, fill="black", font_size=22)
    return sheet


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "build/figures")
