"""Pictures are inside the page while there is room, evenly over runs and steps; the others are links, which is said."""

import base64
import io
import urllib.parse
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from nfa.registry import tracking
from nfa.registry.report import pictures
from nfa.registry.report.page_data import PictureSeries
from nfa.registry.report.pictures import COPIES, HEAD, evenly_first, picture_series
from nfa.registry.tracking.store import client
from tests.support.logged_runs import analysis, logged
from tests.support.mlflow_servers import serving
from tests.support.stores import Store, used


def holder(run_id: str, *paths: str, seed: int = 0, size: tuple[int, int] = (8, 6)) -> Any:
    """The run with a picture at each of these paths, noise that does not get much smaller in a copy."""
    run, noise = client().get_run(run_id), np.random.default_rng(seed)
    for path in paths:
        picture = Image.fromarray(noise.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))
        tracking.put(run, path, lambda file, picture=picture: picture.save(file, format="PNG"))
    return run


def trained(*paths: str, **more: Any) -> Any:
    return holder(logged({}), *paths, **more)


def steps(count: int) -> list[str]:
    return [f"plots/map_epoch_{epoch}.png" for epoch in range(count)]


def image(address: str) -> Image.Image:
    assert address.startswith(HEAD)
    return Image.open(io.BytesIO(base64.b64decode(address.removeprefix(HEAD))))


def inside(entry: PictureSeries) -> list[int]:
    return [step for step, here in zip(entry["steps"], entry["inlined"], strict=True) if here]


def taken(entries: Sequence[PictureSeries]) -> int:
    return sum(len(address) for one in entries for address in one["pictures"] if address.startswith(HEAD))


@pytest.mark.usefixtures("store")
def test_pictures_are_series_by_name_and_step_and_single_ones_have_one() -> None:
    run = trained("plots/map_epoch_10.png", "plots/map_epoch_2.png", "plots/gns_vs_epoch.png", "plots/preview.png")
    found, said = picture_series([(4, [run])])
    assert [(one["run"], one["name"], one["by_step"], one["steps"]) for one in found] == [
        (4, "gns_vs_epoch", False, [0]),
        (4, "map", True, [2, 10]),
    ]
    assert all(image(address).format == "WEBP" for one in found for address in one["pictures"])
    assert said == []


@pytest.mark.usefixtures("store")
def test_pictures_by_optimizer_step_are_series_too() -> None:
    (found,), _ = picture_series([(0, [trained("plots/map_step_000040.png")])])
    assert (found["name"], found["steps"]) == ("map", [40])


@pytest.mark.usefixtures("store")
def test_of_pictures_with_one_name_those_of_the_newest_analysis_are_shown() -> None:
    run = trained("plots/curves.png")
    older = holder(analysis({}, run.info.run_id), "plots/map_epoch_0.png", "plots/map_epoch_1.png", "plots/old.png")
    newer = holder(analysis({}, run.info.run_id), "plots/map_epoch_1.png", size=(5, 5))
    found, _ = picture_series([(0, [run, newer, older])])
    assert [(one["name"], one["steps"]) for one in found] == [("curves", [0]), ("map", [1]), ("old", [0])]
    assert image(found[1]["pictures"][0]).size == (5, 5)


def test_the_last_and_evenly_spaced_steps_come_first() -> None:
    order = evenly_first(33)
    assert sorted(order) == [*range(33)]
    assert order[:3] == [32, 0, 16]
    assert set(order[:5]) == {0, 8, 16, 24, 32}
    assert evenly_first(1) == [0]


@pytest.mark.usefixtures("store")
def test_where_room_is_short_every_run_has_its_last_and_evenly_spaced_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = [(place, [trained(*steps(9), seed=place)]) for place in range(2)]
    whole, _ = picture_series(runs)
    monkeypatch.setattr(pictures, "ROOM", 6 * len(whole[0]["pictures"][0]) + 20)
    found, said = picture_series(runs)
    assert [inside(one) for one in found] == [[0, 4, 8], [0, 4, 8]]
    assert taken(found) <= pictures.ROOM
    assert said == ["The page holds at most 0 MB of pictures; 12 of 18 pictures are links to the artifacts."]


@pytest.mark.usefixtures("store")
def test_copies_become_smaller_before_any_picture_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = [(0, [trained(*steps(3), size=(1200, 300))])]
    large, _ = picture_series(runs)
    assert {image(address).size for address in large[0]["pictures"]} == {(1000, 250)}
    monkeypatch.setattr(pictures, "ROOM", taken(large) // 2)
    found, said = picture_series(runs)
    assert all(found[0]["inlined"])
    assert not said
    sizes = {image(address).width for address in found[0]["pictures"]}
    assert len(sizes) == 1
    assert sizes < {longest for longest, _ in COPIES[1:]}
    assert taken(found) <= pictures.ROOM


@pytest.mark.usefixtures("store")
def test_letters_in_a_picture_of_many_panels_stay_readable() -> None:
    (found,), _ = picture_series([(0, [trained("plots/tall.png", size=(30, 5000))])])
    assert image(found["pictures"][0]).size == (12, 2000)


@pytest.mark.usefixtures("store")
def test_no_picture_is_enlarged_and_what_is_transparent_is_white() -> None:
    run = trained()
    clear = Image.new("RGBA", (20, 10), (0, 0, 0, 0))
    tracking.put(run, "plots/clear.png", lambda file: clear.save(file, format="PNG"))
    (found,), _ = picture_series([(0, [run])])
    assert image(found["pictures"][0]).size == (20, 10)
    assert image(found["pictures"][0]).convert("RGB").getpixel((3, 3)) == (255, 255, 255)


@pytest.mark.usefixtures("store")
def test_pictures_of_the_thirteenth_run_are_links_and_that_is_said() -> None:
    without = trained()
    runs = [(0, [without]), *((place, [trained(*steps(2), seed=place)]) for place in range(1, 14))]
    found, said = picture_series(runs)
    assert [one["run"] for one in found if not all(one["inlined"])] == [13]
    assert said == ["The page holds pictures of 12 runs; 2 pictures of 1 more run are links to the artifacts."]
    file = urllib.request.url2pathname(urllib.parse.urlsplit(found[-1]["pictures"][0]).path)
    assert Image.open(file).size == (8, 6)


def test_a_link_leads_to_its_file_whatever_the_folder_is_called(
    empty_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pictures, "MOST_RUNS", 0)
    with used(empty_store.copy(tmp_path / "my runs ü"), monkeypatch):
        (found,), _ = picture_series([(0, [trained("plots/the map of_epoch_1.png")])])
    (address,) = found["pictures"]
    assert address.startswith("file:///")
    assert " " not in address
    with urllib.request.urlopen(address) as answer:
        assert Image.open(answer).size == (8, 6)


@pytest.mark.usefixtures("store")
def test_a_picture_that_cannot_be_read_is_named_and_the_others_are_there() -> None:
    run = trained(*steps(3))
    tracking.put(run, "plots/map_epoch_1.png", lambda file: file.write_bytes(b"\x89PNG\r\n\x1a\nbroken"))
    (found,), said = picture_series([(0, [run])])
    assert inside(found) == [0, 2]
    named = f"plots/map_epoch_1.png of run {run.info.run_id[:12]}"
    assert said == [f"1 picture could not be read; links are in their place: {named}."]


@pytest.mark.usefixtures("store")
def test_the_same_pictures_give_the_same_bytes() -> None:
    runs = [(0, [trained(*steps(2), "plots/curves.png", size=(300, 200))])]
    assert picture_series(runs) == picture_series(runs)


@pytest.mark.usefixtures("store")
def test_runs_after_those_that_are_looked_at_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "MOST_LOOKED_AT", 1)
    found, said = picture_series([(place, [trained("plots/curves.png")]) for place in range(3)])
    assert [one["run"] for one in found] == [0]
    assert said == [
        "Pictures were looked for in the first 1 runs; those of 2 more runs are among their artifacts, in plots/."
    ]


@pytest.mark.slow
def test_a_server_is_asked_only_for_pictures_that_are_shown_and_its_links_open(
    empty_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pictures, "MOST_RUNS", 1)
    downloaded: list[str] = []
    file_of = tracking.artifacts.file_of
    monkeypatch.setattr(tracking.artifacts, "file_of", lambda run, path: downloaded.append(path) or file_of(run, path))
    with serving(empty_store.copy(tmp_path / "store")) as server:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server.address)
        runs = [(place, [trained(f"plots/run {place}.png")]) for place in range(2)]
        (here, linked), _ = picture_series(runs)
        assert image(here["pictures"][0]).size == (8, 6)
        assert downloaded == ["plots/run 0.png"]
        with urllib.request.urlopen(linked["pictures"][0]) as answer:
            assert Image.open(answer).size == (8, 6)
