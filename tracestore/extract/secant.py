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

`expm1` and the differences a - u = u (e^d - 1), E_a s - E_u s = sum u d (e^d - 1) keep nearly indifferent rows exact in float32. What is
not allowed is multiplied by zero rather than filled: filling costs ten times as much.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

METHOD_VERSION: Final = 2
"""Part of every trace_id: raised whenever the numbers of `secant` change."""

HALF: Final = 0.5
"""The share of a product that goes to its first factor: patterns and values, queries and keys, gates and what they gate."""

_NEVER: Final = 1e30
"""What is taken off the score of a key that is not allowed."""


@dataclass(frozen=True, slots=True)
class SecantRows:
    """The part of the rule that does not depend on a gradient; it serves any number of gradients of the same rows.

    `rise`, `slope` [..., n] are zero where a key is not allowed; the others [..., 1] belong to a row.
    """

    rise: Tensor  # e^d - 1
    slope: Tensor  # n L
    open: Tensor  # 1 where a key is allowed, else 0; [..., n] or broadcast to it
    share: Tensor  # u
    spread: Tensor  # 1 - tau
    contrast: Tensor  # half tau / (n (E_a s - E_u s))
    half: float

    @property
    def attention(self) -> Tensor:
        """The probabilities a [..., n]."""
        return (1 + self.rise) * self.open * self.share

    @property
    def value(self) -> Tensor:
        """W [..., n]."""
        rest = (1 - self.half) + self.half * self.spread
        return ((1 - self.half) * self.rise).add_(rest).mul_(self.open).mul_(self.share)

    def address(self, g: Tensor) -> Tensor:
        """Give ds [..., n] for g_j = < gz, v_j > [..., n], finite; leading dimensions broadcast."""
        gbar = (self.slope * g).sum(-1, keepdim=True) / self.slope.sum(-1, keepdim=True).clamp_min(1e-30)
        ug = self.share * (self.open * g).sum(-1, keepdim=True)
        return (g - gbar).mul_(self.slope).mul_(self.half * self.share).addcmul_(self.contrast * ug, self.rise)


def secant_rows(scores: Tensor, allowed: Tensor, half: float = HALF) -> SecantRows:
    """Prepare the rule for rows of `scores` [..., n] (scaled, capped, with whatever is added) over the `allowed` keys [..., n], bool.

    A sink is one more key whose g is 0. A row without allowed keys is zero throughout. Scores of keys that are not allowed are not read.
    """
    return prepare_rows(torch.where(allowed, scores, 0.0), allowed.to(scores.dtype), half)


def prepare_rows(scores: Tensor, open_: Tensor, half: float = HALF) -> SecantRows:
    """Do what `secant_rows` does for finite `scores` and allowed keys as numbers, 1 or 0, that broadcast to them."""
    count = open_.sum(-1, keepdim=True)
    some = count.clamp_min(1)
    below = torch.log_softmax(scores + (open_ - 1) * _NEVER, -1)
    d = below.add_(some.log()).mul_(open_)
    rise = torch.expm1(d)
    slope = (rise / d).nan_to_num_(nan=1.0).mul_(open_)
    share = count.clamp_max(1) / some  # 0 for a row that may see nothing
    variance = share * (rise * rise).sum(-1, keepdim=True)
    gain = (rise * d).sum(-1, keepdim=True)  # n (E_a s - E_u s)
    tau = variance / (1 + variance)
    tiny = torch.finfo(scores.dtype).tiny
    contrast = torch.where(gain > tiny, half * tau / gain.clamp_min(tiny), 0.0)
    return SecantRows(rise, slope, open_, share, 1 - tau, contrast, half)


def secant_row(scores: Tensor, allowed: Tensor, g: Tensor, half: float = HALF) -> tuple[Tensor, Tensor]:
    """Give W and ds, both [..., n], of rows of `scores` for g_j = < gz, v_j >; see `secant_rows`."""
    rows = secant_rows(scores, allowed, half)
    return rows.value, rows.address(g)
