"""docs/comparing_runs.ipynb: its first page works, and what it has stored is small and the same on every machine."""

import re
from typing import Any

import nbformat
import pytest
from execute_notebook import FILE, execute, plain

from tests.support.stores import Store

TINY = {
    "--optimizer all --seeds 1-4": "--optimizer sgd --seeds 1",
    "--width 64 --depth 3": "--width 4 --depth 1",
    "--epochs 20 --schedule 0-20/2": "--epochs 2",
}
FIRST_PAGE = 6  # cells, up to the first figure


def notebook() -> Any:
    return nbformat.read(FILE, as_version=4)


def code(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def stored(kind: str) -> list[Any]:
    """All outputs of a kind."""
    return [output.data[kind] for cell in code(notebook()) for output in cell.outputs if kind in output.get("data", {})]


def test_the_first_page_is_executed_from_an_empty_store(fresh: Store) -> None:
    page = notebook()
    page.cells = page.cells[:FIRST_PAGE]
    training = code(page)[0]
    for long, short in TINY.items():
        assert long in training.source
        training.source = training.source.replace(long, short)
    for cell in code(page):
        cell.outputs = []
    execute(page, fresh.folder)
    training, table, figure = (cell.outputs for cell in code(page))
    assert training == []
    assert table[0].data["text/plain"].endswith("1 value of 1 run, 1 key, 1 step")
    assert "image/png" in figure[0].data


def test_every_cell_is_stored_with_its_output_and_without_an_error() -> None:
    cells = code(notebook())
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert {output.output_type for output in outputs} <= {"execute_result", "display_data"}
    assert [bool(cell.outputs) for cell in cells] == [not cell.source.startswith("%matplotlib") for cell in cells]
    assert len(stored("image/png")) == 3


def test_what_is_stored_is_small_and_names_no_place_and_no_run() -> None:
    text = FILE.read_text(encoding="utf-8")
    assert len(text) < 300_000
    said = "\n".join(stored("text/plain") + stored("text/html"))
    assert not re.search(r"/(home|tmp|root|work|Users)/|\b[0-9a-f]{32}\b|\d(:\d\d){2}", said)


def test_executing_it_again_changes_nothing_but_outputs() -> None:
    page = notebook()
    plain(page)
    assert page == notebook()


@pytest.mark.parametrize("page", ["notebook.md", "commands.md"])
def test_the_guides_name_it(page: str) -> None:
    assert "(comparing_runs.ipynb)" in (FILE.parent / page).read_text(encoding="utf-8")
