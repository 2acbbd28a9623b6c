"""Tables of per-example gradients, whatever form the gradients have and however they come."""

import pytest
import torch
from torch import Tensor

from nfa.maths import example_gradients, gradient_table
from nfa.maths.example_gradients import Dense, GradientFactors, Part
from nfa.maths.gradient_table import GradientTables
from nfa.maths.image_gradients import Geometry, ImageFactors
from nfa.maths.lookup_gradients import Rows
from nfa.observe.recording import with_tensors

N = 12


def parts(seed: int = 0) -> dict[str, list[Part]]:
    """Gradients in every form, by parameter."""
    random = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=random)

    factors = GradientFactors(normal(N, 3, 1, 5), normal(N, 3, 1, 7))
    grouped = GradientFactors(normal(N, 3, 2, 5), normal(N, 3, 2, 4))
    image = ImageFactors(normal(N, 4, 5, 5), normal(N, 3, 5, 5), Geometry((3, 3), (1, 1), (1, 1), (1, 1), 1))
    rows = Rows(torch.randint(6, (N, 4), generator=random), normal(N, 4, 3), 6)
    return {
        "linear": [factors],
        "grouped": [grouped],
        "kernel": [image],
        "table": [rows],
        "bias": [Dense(normal(N, 3))],
        "scale": [Dense(normal(N, 2))],
        "tied": [rows, GradientFactors(normal(N, 2, 1, 6), normal(N, 2, 1, 3)), Dense(normal(N, 18))],
    }


def in_double(part: Part) -> Part:
    return with_tensors(part, lambda one: one.double() if one.is_floating_point() else one)


def dense(gradients: dict[str, list[Part]]) -> Tensor:
    return torch.cat([torch.stack([one.dense().values for one in of]).sum(0) for of in gradients.values()], dim=1)


def of_rows(part: Part, rows: slice) -> Part:
    if isinstance(part, Rows):
        return Rows(part.index[rows], part.values[rows], part.rows)
    if isinstance(part, ImageFactors):
        return part.of(rows)
    return type(part)(*(tensor[rows] for tensor in part.tensors))


def fill(tables: GradientTables, gradients: dict[str, list[Part]], sizes: tuple[int, ...]) -> GradientTables:
    """Write the gradients batch by batch; every second batch uses the parameters in another order."""
    start = 0
    for place, size in enumerate(sizes):
        rows = slice(start, start + size)
        for key in list(gradients)[:: -1 if place % 2 else 1]:
            tables.write(rows, key, [of_rows(part, rows) for part in gradients[key]])
        tables.end(rows)
        start += size
    return tables


@pytest.fixture(params=[(2**16, 2**12), (8, 4), (1, 1), (50, 20)], ids=str)
def _widths(request, monkeypatch):
    columns, narrow = request.param
    monkeypatch.setattr(example_gradients, "COLUMNS", columns)
    monkeypatch.setattr(gradient_table, "NARROW", narrow)


@pytest.fixture(params=[2, 48], ids=["triangle", "all products"])
def _side(request, monkeypatch):
    monkeypatch.setattr(gradient_table, "SIDE", request.param)


@pytest.mark.usefixtures("_widths", "_side")
@pytest.mark.parametrize("sizes", [(N,), (5, 7), (1, 4, 4, 3)], ids=str)
def test_products_are_those_of_the_gradients_written_out(sizes):
    gradients = parts()
    expected = dense(gradients).double() @ dense(gradients).double().T
    found = fill(GradientTables(N), gradients, sizes).gram()
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.usefixtures("_widths", "_side")
def test_gradients_that_are_not_kept_give_the_same_and_memory_is_used_again():
    gradients = parts()
    expected = fill(GradientTables(N), gradients, (N,)).gram()
    tables, used = GradientTables(N, at_once=True), []
    for _ in range(3):
        tables = GradientTables(N, used=used, at_once=True)
        found = fill(tables, gradients, (N,)).gram()
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))
        assert {one.data_ptr() for one in used} <= {one.data_ptr() for one in tables.memory}
        used = tables.memory
        for one in used:
            one.fill_(torch.nan)  # what an earlier matrix has left must not be read


@pytest.mark.usefixtures("_widths")
@pytest.mark.parametrize("at_once", [True, False])
def test_gradients_of_two_types_keep_their_digits(at_once):
    single, double = parts(), {f"double {key}": [in_double(one) for one in of] for key, of in parts(seed=1).items()}
    given = dict(pair for pairs in zip(single.items(), double.items(), strict=True) for pair in pairs)
    found = fill(GradientTables(N, at_once=at_once), given, (N,) if at_once else (5, 7)).gram()
    expected = dense(double) @ dense(double).T
    rest = fill(GradientTables(N), single, (N,)).gram()
    torch.testing.assert_close(found, expected + rest, rtol=0, atol=1e-5 * float(expected.abs().max()))
    small = {key: [one.times(torch.zeros(N)) for one in of] for key, of in single.items()}
    found = fill(GradientTables(N, at_once=at_once), {**small, **double}, (N,) if at_once else (5, 7)).gram()
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12 * float(expected.abs().max()))


@pytest.mark.usefixtures("_widths")
def test_a_parameter_that_a_batch_does_not_use_has_gradients_of_zero_there_also_beside_other_tables():
    whole = parts()
    early = {key: of for key, of in whole.items() if key not in ("bias", "kernel")}
    late = {key: of for key, of in whole.items() if key != "linear"}
    used = [torch.full((N, width), torch.nan) for width in (3, 8, 35, gradient_table.NARROW)]
    tables = GradientTables(N, used=used)
    for rows, gradients in ((slice(0, 5), early), (slice(5, N), late)):
        for key, of in gradients.items():
            tables.write(rows, key, [of_rows(part, rows) for part in of])
        tables.end(rows)
    expected, start = dense(whole), 0
    for key, of in whole.items():
        stop = start + of[0].entries
        expected[{"bias": slice(0, 5), "kernel": slice(0, 5), "linear": slice(5, N)}.get(key, slice(0)), start:stop] = 0
        start = stop
    near = {"rtol": 0, "atol": 1e-5 * float((expected @ expected.T).abs().max())}
    torch.testing.assert_close(tables.gram().float(), expected @ expected.T, **near)
    others = parts(seed=1)
    other = fill(GradientTables(N, tables), others, (N,))
    torch.testing.assert_close(tables.products(other).float(), expected @ dense(others).T, **near)
