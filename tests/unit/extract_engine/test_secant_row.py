"""The softmax rule of `secant` by itself: what it adds up to, at both ends and in between, against the formulas written out."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from tracestore.extract.secant import secant_row, secant_rows

ROWS, KEYS = 50, 9


def draw(*shape: int, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def some_allowed(seed: int) -> Tensor:
    allowed = torch.rand(ROWS, KEYS, generator=torch.Generator().manual_seed(seed)) > 0.4
    allowed[:, 0] = True
    return allowed


def by_the_book(scores: list[float], g: list[float]) -> tuple[list[float], list[float]]:
    """One row of allowed keys, as the formulas stand, in plain Python."""
    n = len(scores)
    s0 = math.log(sum(math.exp(s) for s in scores)) - math.log(n)
    a = [math.exp(s - s0) / n for s in scores]
    u = 1 / n
    slope = [u * math.expm1(s - s0) / (s - s0) for s in scores]
    gbar = sum(x * y for x, y in zip(slope, g, strict=True)) / sum(slope)
    tau = 1 - 1 / (n * sum(x * x for x in a))
    ug = u * sum(g)
    gain = sum((x - u) * s for x, s in zip(a, scores, strict=True))
    value = [0.5 * x + 0.5 * (1 - tau) * u for x in a]
    pairs = zip(slope, a, g, strict=True)
    return value, [0.5 * x * (y - gbar) + 0.5 * tau * ug * (p - u) / gain for x, p, y in pairs]


@pytest.mark.parametrize("spread", [0.01, 1.0, 30.0])
def test_values_and_scores_add_up_to_the_row(spread: float) -> None:
    scores, g, allowed = spread * draw(ROWS, KEYS, seed=1), draw(ROWS, KEYS, seed=2), some_allowed(3)
    value, ds = secant_row(scores, allowed, g)
    a = scores.masked_fill(~allowed, -torch.inf).softmax(-1)
    torch.testing.assert_close((value * g + ds * scores).sum(-1), (a * g).sum(-1), atol=1e-12, rtol=0)
    torch.testing.assert_close(ds.sum(-1), torch.zeros(ROWS, dtype=torch.float64), atol=1e-12, rtol=0)
    torch.testing.assert_close(secant_rows(scores, allowed).attention, a, atol=1e-14, rtol=0)
    assert not bool(value[~allowed].any())
    assert not bool(ds[~allowed].any())


@pytest.mark.parametrize("half", [0.0, 0.5, 1.0])
def test_any_half_conserves(half: float) -> None:
    scores, g, allowed = draw(ROWS, KEYS, seed=1), draw(ROWS, KEYS, seed=2), some_allowed(3)
    value, ds = secant_row(scores, allowed, g, half)
    a = scores.masked_fill(~allowed, -torch.inf).softmax(-1)
    torch.testing.assert_close((value * g + ds * scores).sum(-1), (a * g).sum(-1), atol=1e-12, rtol=0)


def test_rows_equal_the_formulas_written_out() -> None:
    scores, g = 2 * draw(20, KEYS, seed=4), draw(20, KEYS, seed=5)
    allowed = torch.arange(KEYS) < 6
    value, ds = secant_row(scores, allowed.expand(20, KEYS), g)
    for row in range(20):
        wanted = by_the_book(scores[row, :6].tolist(), g[row, :6].tolist())
        torch.testing.assert_close(value[row, :6], torch.tensor(wanted[0], dtype=torch.float64), atol=1e-13, rtol=0)
        torch.testing.assert_close(ds[row, :6], torch.tensor(wanted[1], dtype=torch.float64), atol=1e-13, rtol=0)


def test_adding_a_constant_to_the_scores_changes_nothing() -> None:
    scores, g, allowed = draw(ROWS, KEYS, seed=1), draw(ROWS, KEYS, seed=2), some_allowed(3)
    for before, after in zip(secant_row(scores, allowed, g), secant_row(scores + 1000, allowed, g), strict=True):
        torch.testing.assert_close(after, before, atol=1e-11, rtol=0)


def test_a_saturated_row_still_has_an_address() -> None:
    """One key holds everything: the derivative of the softmax is 0 to the last bit, the secant is not."""
    scores = torch.zeros(1, 4, dtype=torch.float64)
    scores[0, 2] = 900.0
    g = torch.tensor([[0.0, 1.0, 3.0, 0.0]], dtype=torch.float64)
    value, ds = secant_row(scores, torch.ones(1, 4, dtype=torch.bool), g)
    assert bool(torch.isfinite(ds).all())
    assert float(ds[0, 2]) > 0 > float(ds[0, 0])
    assert float(ds[0, 2] * 900) > 0.5  # of 3.0
    assert float(value[0, 0]) == pytest.approx(0.5 * 0.25 * 0.25)  # tau = 3/4
    assert float((value * g + ds * scores).sum()) == pytest.approx(3.0, abs=1e-12)


def test_a_uniform_row_gives_its_values_everything() -> None:
    g = draw(1, 5, seed=6)
    value, ds = secant_row(torch.full((1, 5), 3.0, dtype=torch.float64), torch.ones(1, 5, dtype=torch.bool), g)
    torch.testing.assert_close(value, torch.full((1, 5), 0.2, dtype=torch.float64))
    torch.testing.assert_close(ds, 0.5 * 0.2 * (g - g.mean()))
    assert float((ds * 3.0).sum()) == pytest.approx(0.0, abs=1e-12)


def test_one_allowed_key_has_no_choice() -> None:
    allowed = torch.tensor([[False, True, False]])
    value, ds = secant_row(torch.tensor([[5.0, -3.0, torch.inf]], dtype=torch.float64), allowed, draw(1, 3, seed=7))
    assert value.tolist() == [[0.0, 1.0, 0.0]]
    assert ds.tolist() == [[0.0, 0.0, 0.0]]


def test_a_row_that_may_see_nothing_is_zero() -> None:
    value, ds = secant_row(draw(2, 3, seed=8), torch.zeros(2, 3, dtype=torch.bool), draw(2, 3, seed=9))
    assert not bool(value.any())
    assert not bool(ds.any())


def test_it_is_linear_in_the_gradient_and_serves_many() -> None:
    rows = secant_rows(draw(ROWS, KEYS, seed=1), some_allowed(3))
    g = draw(7, ROWS, KEYS, seed=2)
    together = rows.address(g)
    torch.testing.assert_close(rows.address(2 * g[0] - g[1]), 2 * together[0] - together[1], atol=1e-13, rtol=0)


@pytest.mark.parametrize("spread", [1e-6, 1e-3, 1.0, 100.0])
def test_float32_keeps_its_digits(spread: float) -> None:
    """Rows that are nearly uniform are where the formulas fail when they are written with differences."""
    scores, g = spread * draw(ROWS, KEYS, seed=1, dtype=torch.float32), 1 + draw(ROWS, KEYS, seed=2, dtype=torch.float32)
    allowed = some_allowed(3)
    narrow, wide = secant_row(scores, allowed, g), secant_row(scores.double(), allowed, g.double())
    for found, wanted in zip(narrow, wide, strict=True):
        torch.testing.assert_close(found.double(), wanted, atol=2e-6, rtol=0)
