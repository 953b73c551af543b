"""Activations and products of `secant`: ratios as slopes, half of a product to each factor, whatever way the model writes it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tracestore.extract.secant_mlp import secant_activation

S = [-2.0, 0.5, 3.0, 0.0]
UP = [1.0, -4.0, 2.0, 5.0]
WAYS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "gate * up": lambda gate, up: gate * up,
    "up * gate": lambda gate, up: up * gate,
    "torch.mul": lambda gate, up: torch.mul(gate, up),
    "through views": lambda gate, up: gate.view(2, 2) * up.view(2, 2),
    "after dropout": lambda gate, up: functional.dropout(gate, 0.0, False) * up,
}


def leaf(values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize("way", WAYS)
def test_a_gated_product_gives_half_to_each_factor(way: str) -> None:
    s, up = leaf(S), leaf(UP)
    out = WAYS[way](secant_activation(functional.silu)(s), up)
    torch.testing.assert_close(out.reshape(-1), functional.silu(s) * up)
    weight = torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64)
    gs, gup = torch.autograd.grad((out.reshape(-1) * weight).sum(), (s, up))
    slope = torch.sigmoid(s.detach())  # silu(s) / s, also at 0
    torch.testing.assert_close(gs, 0.5 * weight * up.detach() * slope, atol=1e-8, rtol=0)
    torch.testing.assert_close(gup, 0.5 * weight * functional.silu(s.detach()))
    torch.testing.assert_close((gs * s + gup * up).sum(), (weight * functional.silu(s) * up).sum())  # nothing is lost


def test_a_plain_activation_passes_its_whole_ratio_and_a_constant_factor_takes_nothing() -> None:
    s = leaf(S)
    out = secant_activation(functional.relu)(s) * torch.tensor(UP, dtype=torch.float64)
    (gs,) = torch.autograd.grad(out.sum(), s)
    torch.testing.assert_close(gs, torch.tensor([0.0, -4.0, 2.0, 2.5], dtype=torch.float64))  # the middle of relu's slopes at 0


def test_what_a_function_gives_at_zero_comes_from_nowhere() -> None:
    s = leaf([0.0, 1.0])
    (gs,) = torch.autograd.grad(secant_activation(torch.exp)(s).sum(), s)
    torch.testing.assert_close(gs, torch.tensor([0.0, torch.e], dtype=torch.float64))
