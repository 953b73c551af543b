"""How the queries and keys of a layer are read from the residual stream: found on a watched forward pass, and proven on it.

    query, key at t   =   M_t ( W D x(t) )  +  bias        W: rows of one linear layer inside attention

M_t is what rotary positions and a norm of queries and keys, held fixed, make of a head's coordinates. A rotation turns coordinates in pairs
and a norm scales them, so one coordinate behind the linear layer reaches at most two of the query. Their two coefficients are all that
has to be known of M_t (`Turn`); they are derivatives, read off the forward pass itself whatever its positions are.

1. The linear layer is the one that queries depend on; its columns of a head are those that the head depends on.
2. Which coordinates reach which: the derivatives of every coordinate, on the short prompt of the wiring.
3. The coordinates of the query are of two kinds, so that none behind the linear layer reaches two of one kind: the derivatives of the sums
   of each kind are the coefficients.
4. Prove: a random gradient, taken back by hand, is the one that autograd gives.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tracestore.extract.freeze import weight_and_bias
from tracestore.extract.norms import FrozenNorm


@dataclass(frozen=True, slots=True)
class AddressReading:
    """One layer's queries or keys. `weight` [Hx, Dk, d] is in the weights' own number format."""

    module: nn.Module  # the linear layer
    columns: Tensor  # [Hx, Dk] of its output
    weight: Tensor
    norm: FrozenNorm | None  # in front of attention
    goes_to: tuple[Tensor, Tensor]  # [Dk] the coordinate of either kind that one behind the linear layer reaches
    second: Tensor  # [Dk] which coordinates of the query are of the second kind

    def reading(self, dtype: torch.dtype) -> Tensor:
        """Give W with the input norm at scale one folded in, [Hx, Dk, d]: the gradient at x(t) is scale(t) times that behind W."""
        weight = self.weight.to(dtype)
        return weight if self.norm is None else self.norm.transposed(weight, weight.new_ones(1))

    def turn(self, made: Tensor, out: Tensor) -> Turn:
        """Find the coefficients for queries or keys `made` [B, Hx, T, Dk] from the linear layer's output `out`, both with their graph."""
        kinds = self.second.to(made.dtype)
        found = [_gathered(_derivative(made, out, kind.expand_as(made)), made, self.columns) for kind in (1 - kinds, kinds)]
        if all(bool((x == x[:, :1]).all()) for x in found):  # a rotation alone is the same for all heads
            found = [x[:, :1].clone() for x in found]
        return Turn(found[0], found[1], self)


@dataclass(frozen=True, slots=True)
class Turn:
    """M_t of one forward pass: derivatives [B, Hx or 1, T, Dk] of the coordinates of either kind by the one behind the linear layer."""

    first: Tensor
    second: Tensor
    reading: AddressReading

    def back(self, g: Tensor, batch: int, heads: Tensor, positions: Tensor) -> Tensor:
        """Take gradients `g` [..., Dk] at queries or keys of `heads` and `positions` (that broadcast to [...]) behind the linear layer."""
        if self.first.shape[1] == 1:
            heads = torch.zeros_like(heads)
        one, other = (kind[batch][heads, positions] for kind in (self.first, self.second))
        goes_to = self.reading.goes_to
        return one.mul_(g[..., goes_to[0]]).addcmul_(other, g[..., goes_to[1]])


def find_reading(made: Tensor, modules: Iterable[tuple[nn.Module, Tensor]], norm: FrozenNorm | None) -> AddressReading | None:
    """Find how `made` [B, Hx, T, Dk] comes from one of the linear `modules` (each with its output), or None where it has another form."""
    found = _source(made, list(modules))
    if found is None:
        return None
    module, out, columns = found
    pattern = torch.stack(
        [(_gathered(_derivative(made, out, unit.expand_as(made)), made, columns) != 0).any(2).any(1).any(0) for unit in _units(made)]
    )  # [Dk of the query, Dk behind the linear layer]
    kinds = _kinds(pattern)
    linear = weight_and_bias(module)
    if kinds is None or linear is None:
        return None
    second, goes_to = kinds
    weight = linear[0].detach()[columns.reshape(-1)].reshape(*columns.shape, -1)
    return AddressReading(module, columns, weight, norm, goes_to, second)


def proven(reading: AddressReading, made: Tensor, out: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
    """Give the gradient [B, T, d] at the State `before` of random ones at `made` [B, Hx, T, Dk]: by hand, and by autograd."""
    generator = torch.Generator().manual_seed(0)
    g = torch.randn(made.shape, generator=generator, dtype=torch.float64).to(made)
    (wanted,) = torch.autograd.grad(made, before, g, retain_graph=True)
    turn = reading.turn(made, out)
    batch, heads, length, _ = made.shape
    at = torch.arange(heads)[:, None], torch.arange(length)[None]
    behind = torch.stack([turn.back(g[b], b, *at) for b in range(batch)])
    by_hand = torch.einsum("bhtk,hkd->btd", behind, reading.reading(made.dtype))
    if reading.norm is not None:
        by_hand = by_hand * reading.norm.scale(before.detach())
    return by_hand, wanted


def _derivative(made: Tensor, out: Tensor, g: Tensor) -> Tensor:
    (found,) = torch.autograd.grad(made, out, g, retain_graph=True)
    return found


def _gathered(g: Tensor, made: Tensor, columns: Tensor) -> Tensor:
    """Give a gradient at a linear layer's output by head and position: [B, Hx, T, Dk]."""
    batch, heads, length, width = made.shape
    return g.reshape(batch, length, -1)[..., columns.reshape(-1)].view(batch, length, heads, width).transpose(1, 2)


def _units(made: Tensor) -> Tensor:
    return torch.eye(made.shape[-1], dtype=made.dtype, device=made.device)


def _source(made: Tensor, modules: list[tuple[nn.Module, Tensor]]) -> tuple[nn.Module, Tensor, Tensor] | None:
    """Find the one linear layer that `made` depends on, its output and its columns [Hx, Dk]."""
    generator = torch.Generator().manual_seed(0)
    g = torch.randn(made.shape, generator=generator, dtype=torch.float64).to(made)
    candidates = [(module, out) for module, out in modules if out.requires_grad]
    if not candidates:
        return None
    found = torch.autograd.grad(made, [out for _, out in candidates], g, retain_graph=True, allow_unused=True)
    chosen = [pair for pair, gradient in zip(candidates, found, strict=True) if gradient is not None and bool(gradient.any())]
    if len(chosen) != 1:
        return None
    module, out = chosen[0]
    columns = []
    for head in range(made.shape[1]):
        alone = torch.zeros_like(g)
        alone[:, head] = g[:, head]
        gradient = _derivative(made, out, alone).reshape(-1, out.shape[-1])
        columns.append(torch.nonzero((gradient != 0).any(0)).squeeze(1))
        if len(columns[-1]) != made.shape[-1]:
            return None
    return module, out, torch.stack(columns)


def _kinds(pattern: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]] | None:
    """Divide the coordinates of a query so that no column of `pattern` [Dk, Dk] (who reaches whom) reaches two of one kind."""
    kind: dict[int, int] = {}
    reached = [torch.nonzero(column).squeeze(1).tolist() for column in pattern.T]
    for pair in sorted(reached, key=len, reverse=True):  # pairs first
        if len(pair) > 2:
            return None
        if len(pair) < 2:
            continue
        known = next((k for k in pair if k in kind), None)
        first = pair[0] if known is None else known
        kind.setdefault(first, 0)
        other = pair[1] if first == pair[0] else pair[0]
        if kind.setdefault(other, 1 - kind[first]) == kind[first]:
            return None
    width = len(reached)
    second = torch.tensor([kind.get(k, 0) == 1 for k in range(width)], device=pattern.device)
    goes_to = [[next((k for k in pair if kind.get(k, 0) == wanted), 0) for pair in reached] for wanted in (0, 1)]
    return second, (torch.tensor(goes_to[0], device=pattern.device), torch.tensor(goes_to[1], device=pattern.device))
