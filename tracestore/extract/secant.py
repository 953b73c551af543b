"""The softmax rule of the method `secant`: what a row of attention owes to its values and what to its scores.

A row attends with a = softmax(s) to n allowed keys, u = 1/n each if it did not choose. For a gradient gz at the head's output and
g_j = < gz, v_j > the row's relevance is sum_j a_j g_j. The rule splits it, exactly and linearly in g:

    sum_j W_j g_j  (what the values carry, `value`)  +  sum_j ds_j s_j  (what the scores carry, `address`)  =  sum_j a_j g_j

1. d_j = s_j - s0, s0 = logsumexp(s) - log n, so that a_j = u e^d_j: how far the row is from indifferent.
2. slope L_j = u (e^d_j - 1) / d_j: the secant from the indifferent row to the real one. It is positive where the softmax is saturated
   and its derivative is gone.
3. concentration tau = V / (1 + V), V = sum u (e^d - 1)^2 = n sum a^2 - 1: 0 for an indifferent row, 1 - 1/n for a one-hot row.
4. W = half a + half (1 - tau) u  and  ds = half L (g - gbar) + half tau ug (a - u) / (E_a s - E_u s), with gbar the mean of g under L
   and ug under u.

`expm1` and the differences a - u = u (e^d - 1), E_a s - E_u s = sum u d (e^d - 1) keep nearly indifferent rows exact in float32.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

HALF: Final = 0.5
"""The share of a product that goes to its first factor: patterns and values, queries and keys, gates and what they gate."""


@dataclass(frozen=True, slots=True)
class SecantRows:
    """The part of the rule that does not depend on a gradient. Every tensor is [..., n], zero where a key is not allowed.

    It serves any number of gradients of the same rows: `value` is W, `address(g)` gives ds.
    """

    attention: Tensor  # a
    value: Tensor  # W
    slope: Tensor  # half L
    centre: Tensor  # L / sum L: the weights of gbar
    contrast: Tensor  # half tau (a - u) / (E_a s - E_u s)
    uniform: Tensor  # u

    def address(self, g: Tensor) -> Tensor:
        """Give ds [..., n] for g_j = < gz, v_j > [..., n]; leading dimensions broadcast."""
        gbar = (self.centre * g).sum(-1, keepdim=True)
        ug = (self.uniform * g).sum(-1, keepdim=True)
        return self.slope * (g - gbar) + self.contrast * ug


def secant_rows(scores: Tensor, allowed: Tensor, half: float = HALF) -> SecantRows:
    """Prepare the rule for rows of `scores` [..., n] (scaled, capped, with whatever is added) over the `allowed` keys [..., n], bool.

    A sink is one more key whose g is 0. A row without allowed keys is zero throughout. Scores of keys that are not allowed are not read.
    """
    count = allowed.sum(-1, keepdim=True).to(scores.dtype)
    u = torch.where(allowed, 1 / count.clamp_min(1), 0.0)
    below = scores.masked_fill(~allowed, -torch.inf)
    below = below - below.amax(-1, keepdim=True).clamp_min(torch.finfo(scores.dtype).min)
    d = below - (below.exp().sum(-1, keepdim=True).log() - count.log())
    d = d.masked_fill(~allowed, 0.0)
    rise = torch.expm1(d)
    slope = u * torch.where(d == 0, 1.0, rise / torch.where(d == 0, 1.0, d))
    moved = u * rise  # a - u
    variance = (moved * rise).sum(-1, keepdim=True)
    gain = (moved * d).sum(-1, keepdim=True)  # E_a s - E_u s
    tau = variance / (1 + variance)
    attention = u + moved
    tiny = torch.finfo(scores.dtype).tiny
    return SecantRows(
        attention=attention,
        value=(1 - half) * attention + half * (1 - tau) * u,
        slope=half * slope,
        centre=slope / slope.sum(-1, keepdim=True).clamp_min(tiny),
        contrast=torch.where(gain > tiny, half * tau / gain.clamp_min(tiny), 0.0) * moved,
        uniform=u,
    )


def secant_row(scores: Tensor, allowed: Tensor, g: Tensor, half: float = HALF) -> tuple[Tensor, Tensor]:
    """Give W and ds, both [..., n], of rows of `scores` for g_j = < gz, v_j >; see `secant_rows`."""
    rows = secant_rows(scores, allowed, half)
    return rows.value, rows.address(g)
