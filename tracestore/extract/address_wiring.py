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

Layers are alike as a rule, so a layer's form is tried on the next one first: the proof decides.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from tracestore.extract.freeze import weight_and_bias
from tracestore.extract.norms import FrozenNorm

if TYPE_CHECKING:
    from tracestore.extract.attribute import Attributor

PROBE_TOKENS = 8


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


def find_addresses(attributor: Attributor) -> tuple[tuple[AddressReading, AddressReading], ...] | int:
    """Find how every layer of `attributor`'s model reads its queries and its keys, or give the first layer where they have another form."""
    made: dict[int, dict[nn.Module, Tensor]] = {}
    with ExitStack() as stack:
        for layer, block in enumerate(attributor.layout.blocks):
            outputs = made[layer] = {}
            for module in block.attention.modules():
                if weight_and_bias(module) is not None:
                    stack.callback(module.register_forward_hook(_note(outputs, attributor, layer)).remove)
        run = attributor.forward(attributor.short_prompt(PROBE_TOKENS), {}, "frozen", keep=True)
    found: list[tuple[AddressReading, AddressReading]] = []
    try:
        for layer, block in enumerate(attributor.layout.blocks):
            norm = None if block.attention_norm is None else attributor.norms.get(block.attention_norm)
            kept, guess = run.state.kept[layer], found[-1] if found else (None, None)
            linear, before = list(made[layer].items()), run.pre[layer]
            query, key = (_find(x, linear, norm, before, like) for x, like in zip((kept.query, kept.key), guess, strict=True))
            if query is None or key is None:
                return layer
            found.append((query, key))
    finally:
        run.state.kept.clear()
    return tuple(found)


def _note(outputs: dict[nn.Module, Tensor], attributor: Attributor, layer: int) -> Any:
    """Make a hook that notes the outputs of linear layers until their layer has attended."""

    def hook(module: nn.Module, _: tuple[Any, ...], output: Any) -> None:
        state = attributor.running
        if state is not None and layer not in state.called and isinstance(output, Tensor):
            outputs[module] = output

    return hook


def _find(
    made: Tensor, modules: list[tuple[nn.Module, Tensor]], norm: FrozenNorm | None, before: Tensor, like: AddressReading | None
) -> AddressReading | None:
    """Find how `made` [B, Hx, T, Dk] comes from one of the linear `modules` (each with its output); None where it has another form."""
    source = _source(made, modules)
    if source is None:
        return None
    module, out = source
    if like is not None:
        found = _reading(module, like.columns, norm, like.goes_to, like.second)
        if found is not None and _proven(found, made, out, before):
            return found
    columns = _columns(made, out)
    if columns is None:
        return None
    units = torch.eye(made.shape[-1], dtype=made.dtype, device=made.device)
    derivatives = (_gathered(_derivative(made, out, unit.expand_as(made)), made, columns) for unit in units)
    pattern = torch.stack([(found != 0).flatten(0, 2).any(0) for found in derivatives])  # [Dk of the query, Dk behind the linear layer]
    kinds = _kinds(pattern)
    found = None if kinds is None else _reading(module, columns, norm, kinds[1], kinds[0])
    return found if found is not None and _proven(found, made, out, before) else None


def _reading(
    module: nn.Module, columns: Tensor, norm: FrozenNorm | None, goes_to: tuple[Tensor, Tensor], second: Tensor
) -> AddressReading | None:
    linear = weight_and_bias(module)
    if linear is None or int(columns.max()) >= len(linear[0]):
        return None
    weight = linear[0].detach()[columns.reshape(-1)].reshape(*columns.shape, -1)
    return AddressReading(module, columns, weight, norm, goes_to, second)


def _proven(reading: AddressReading, made: Tensor, out: Tensor, before: Tensor) -> bool:
    """Compare the gradient at the State `before` [B, T, d] of random ones at `made` [B, Hx, T, Dk]: by hand, and by autograd."""
    g = _random_like(made)
    (wanted,) = torch.autograd.grad(made, before, g, retain_graph=True)
    turn = reading.turn(made, out)
    batch, heads, length, _ = made.shape
    at = torch.arange(heads, device=g.device)[:, None], torch.arange(length, device=g.device)[None]
    behind = torch.stack([turn.back(g[b], b, *at) for b in range(batch)])
    by_hand = torch.einsum("bhtk,hkd->btd", behind, reading.reading(made.dtype)).view_as(wanted)
    if reading.norm is not None:
        by_hand = by_hand * reading.norm.scale(before.detach())
    tolerance = 1e-9 if made.dtype == torch.float64 else 1e-4
    return float((by_hand - wanted).abs().max()) <= tolerance * float(wanted.abs().max())


def _random_like(made: Tensor) -> Tensor:
    return torch.randn(made.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(made)


def _derivative(made: Tensor, out: Tensor, g: Tensor) -> Tensor:
    (found,) = torch.autograd.grad(made, out, g, retain_graph=True)
    return found


def _gathered(g: Tensor, made: Tensor, columns: Tensor) -> Tensor:
    """Give a gradient at a linear layer's output by head and position: [B, Hx, T, Dk]."""
    batch, heads, length, width = made.shape
    return g.reshape(batch, length, -1)[..., columns.reshape(-1)].view(batch, length, heads, width).transpose(1, 2)


def _source(made: Tensor, modules: list[tuple[nn.Module, Tensor]]) -> tuple[nn.Module, Tensor] | None:
    """Find the one linear layer that `made` depends on, and its output."""
    candidates = [(module, out) for module, out in modules if out.requires_grad]
    if not candidates:
        return None
    outputs = [out for _, out in candidates]
    found = torch.autograd.grad(made, outputs, _random_like(made), retain_graph=True, allow_unused=True)
    chosen = [pair for pair, gradient in zip(candidates, found, strict=True) if gradient is not None and bool(gradient.any())]
    return chosen[0] if len(chosen) == 1 else None


def _columns(made: Tensor, out: Tensor) -> Tensor | None:
    """Find which columns of `out` each head depends on, [Hx, Dk]."""
    g, columns = _random_like(made), []
    for head in range(made.shape[1]):
        alone = torch.zeros_like(g)
        alone[:, head] = g[:, head]
        columns.append(torch.nonzero((_derivative(made, out, alone).reshape(-1, out.shape[-1]) != 0).any(0)).squeeze(1))
        if len(columns[-1]) != made.shape[-1]:
            return None
    return torch.stack(columns)


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
