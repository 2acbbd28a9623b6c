"""The contact sheet plays every command that draws, and shows what it is given at real size."""

from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image

from nfa.registry import cli
from nfa.registry.entry_points import entry_points
from tests.support.programs import example

UNDRAWN = {"prepare_eeg", "import_checkpoints", "report"}  # the report draws its page in the browser
INSIDE = {"compare_lora"}  # lora_experiment starts it


@pytest.fixture(scope="module")
def sheet() -> ModuleType:
    return example("contact_sheet")


def test_every_command_that_draws_is_played_with_parameters_that_it_knows(sheet: ModuleType) -> None:
    played = {play.entry_point for play in sheet.PLAYS}
    assert played == set(entry_points()) - UNDRAWN - INSIDE
    for play in sheet.PLAYS:
        words = [f"--{name}={value}" for name, value in play.parameters.items()]
        cli.parse(entry_points()[play.entry_point].parameters, words)


def test_pictures_are_on_the_page_and_the_sheets_in_real_size(sheet: ModuleType, tmp_path: Path) -> None:
    shown = []
    for number, size in enumerate([(1000, 500), (1000, 500), (4000, 300), (200, 2900)]):
        shown.append((f"picture <{number}>", tmp_path / f"{number}.png"))
        Image.new("RGB", size, "white").save(shown[-1][1])
    sheet.write_page(shown, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert page.count("<img") == 4
    assert "width:5.00in" in page
    assert "picture &lt;0&gt;" in page
    sheet.write_sheets(shown, tmp_path / "sheets.pdf")
    assert (tmp_path / "sheets.pdf").stat().st_size > 0
    placed = [place for sheet_page in sheet._pages(shown) for place in sheet_page]
    assert [file for *_, file in placed] == [file for _, file in shown]


def test_of_figures_of_many_checkpoints_the_first_and_last_are_kept(sheet: ModuleType, tmp_path: Path) -> None:
    made = [tmp_path / name for name in ("a_epoch_0.png", "a_epoch_5.png", "a_epoch_9.png", "b.png", "preview.png")]
    for file in made:
        file.write_bytes(b"")
    (target := tmp_path / "kept").mkdir()
    kept = sheet._kept(((file.name, file) for file in made), target, "01_x")
    assert [file.name for _, file in kept] == ["01_x_01a_a_epoch_0.png", "01_x_01b_a_epoch_9.png", "01_x_02a_b.png"]
    assert kept[0][0] == "a_epoch_0.png (one of 3)"
