"""The orthogonalisation of Muon against a singular value decomposition, in every shape and precision."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from nfa.reference import orthogonalised as by_decomposition
from nfa.reference import polar_express
from nfa.registry.training import muon
from nfa.registry.training.muon import COEFFICIENTS, STRIP, Muon, orthogonalised

QUINTIC = [(3.4445, -4.7750, 2.0315)] * 5  # Jordan et al. 2024


def draw(rows: int, columns: int) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(rows + 1000 * columns))


@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from(sorted(COEFFICIENTS)))
def test_it_is_the_polynomial_of_the_singular_values(rows: int, columns: int, name: str) -> None:
    matrix = draw(rows, columns).double()
    expected = by_decomposition(matrix, list(COEFFICIENTS[name]))
    found = orthogonalised(matrix, COEFFICIENTS[name], torch.float64)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("shape", [(STRIP * 2, STRIP * 2), (STRIP * 3 + 5, 300), (300, STRIP * 3 + 5), (1, 700)])
@pytest.mark.parametrize("name", COEFFICIENTS)
def test_only_the_lower_triangle_is_multiplied_and_nothing_changes(shape: tuple[int, int], name: str) -> None:
    matrix = draw(*shape)
    expected = by_decomposition(matrix, list(COEFFICIENTS[name])).float()
    found = orthogonalised(matrix, COEFFICIENTS[name], torch.float32)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=2e-5)


def test_fewer_numbers_are_multiplied_than_by_full_products(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a product in strips of s rows, (1 + s / n) / 2 are."""
    multiplied = []
    plain = torch.mm

    def counted(x: Tensor, y: Tensor, out: Tensor) -> Tensor:
        multiplied.append(x.shape[0] * x.shape[1] * y.shape[1])
        return plain(x, y, out=out)

    monkeypatch.setattr(torch, "mm", counted)
    n = 8 * STRIP
    matrix = draw(n, 4)
    found = muon._symmetric_product(matrix, matrix.T)
    assert sum(multiplied) == n * n * 4 * (1 + 1 / 8) / 2
    assert torch.equal(found, found.T)
    torch.testing.assert_close(found, matrix @ matrix.T)


def test_the_coefficients_are_those_of_the_papers() -> None:
    assert list(COEFFICIENTS["quintic"]) == QUINTIC
    scaled = [(a / 1.01, b / 1.01**3, c / 1.01**5) for a, b, c in polar_express(5)]
    for found, expected in zip(COEFFICIENTS["polar-express"], scaled, strict=True):
        assert found == pytest.approx(expected, rel=1e-5)


def test_polar_express_comes_nearer_to_an_orthogonal_matrix() -> None:
    left, right = torch.linalg.qr(draw(60, 60))[0], torch.linalg.qr(draw(60, 61)[:, :60])[0]
    matrix = left @ torch.logspace(-2, 0, 60).diag() @ right
    apart = {
        name: float((torch.linalg.svdvals(orthogonalised(matrix, each, torch.float32)) - 1).abs().max())
        for name, each in COEFFICIENTS.items()
    }
    assert apart["polar-express"] < 0.15 < apart["quintic"]


def test_the_zero_matrix_stays_zero() -> None:
    assert not orthogonalised(torch.zeros(4, 5), COEFFICIENTS["quintic"], torch.float32).any()


@pytest.mark.parametrize("units", [True, False])
def test_float32_is_used_where_there_are_no_units_for_bfloat16(units: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    used = []

    def recorded(matrix: Tensor, _: object, precision: torch.dtype) -> Tensor:
        used.append(precision)
        return matrix

    monkeypatch.setattr(muon, "has_bfloat16_units", lambda _: units)
    monkeypatch.setattr(muon, "orthogonalised", recorded)
    weight = torch.nn.Parameter(torch.ones(3, 3))
    weight.grad = torch.ones(3, 3)
    Muon([weight]).step()
    assert used == [torch.bfloat16 if units else torch.float32]


@pytest.mark.parametrize("wrong", [{"coefficients": "cubic"}, {"precision": "float16"}])
def test_what_there_is_not_is_said(wrong: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="which"):
        Muon([torch.nn.Parameter(torch.ones(2, 2))], **wrong)
