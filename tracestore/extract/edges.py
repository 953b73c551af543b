"""Reduce the attention edges of one target while they are computed, tile by tile; the T x T x L x H tensor never exists.

1. Per tile: signed and absolute row sums, absolute column sums, the rows of the target's positions, each head's largest VALUE edge
   (from a token that is no attention sink, unless only sinks have any).
2. Of all tiles together: what hiding each source from every later row would take away, to first order (`take_removals`).
3. Edges above a floor go to a pool, whatever their kind. When the pool holds twice what may be kept, it is cut to the largest, and the
   floor rises to the smallest of those: an edge below it can never be kept.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor

from tracestore.extract.attention import HeadGradients
from tracestore.extract.attribution import KEY, QUERY, VALUE, AttentionEdges, Floats, HeadTops

LEAST_LEFT: Final = 0.05
"""A row that attends to one key alone has nothing left to share out when the key is hidden: it counts as if so much were left."""


@dataclass(frozen=True, slots=True)
class EdgeSums:
    """What all edges of one kind add up to: into heads `row*` [L, H, T], out of States `column*` and into the target `direct` [L, T]."""

    row: Tensor
    row_abs: Tensor
    column: Tensor
    column_abs: Tensor
    direct: Tensor

    @staticmethod
    def zeros(shape: tuple[int, int, int], like: Tensor) -> EdgeSums:
        """Start from nothing."""
        rows, columns = shape, (shape[0], shape[2])
        return EdgeSums(*(like.new_zeros(size) for size in (rows, rows, columns, columns, columns)))


class EdgeCollector:
    """Collects the VALUE, KEY and QUERY edges of one target, which reads the logits at `positions` of batch row `batch`."""

    def __init__(
        self,
        shape: tuple[int, int, int],
        positions: Sequence[int],
        max_edges: int,
        like: Tensor,
        batch: int = 0,
        sinks: Collection[int] = (),
    ) -> None:
        layers, heads, _ = shape
        self.shape, self.max_edges, self.batch = shape, max(int(max_edges), 1), batch
        self.positions = torch.tensor(list(positions), device=like.device)
        self.value, self.key = EdgeSums.zeros(shape, like), EdgeSums.zeros(shape, like)
        self.query = like.new_zeros(shape)
        self.relevance = like.new_zeros(shape)
        self.bias = like.new_zeros(shape)
        self.removal = like.new_zeros(shape[2])
        self.head_gradients: HeadGradients | None = None  # filled where compositions are asked for
        open_keys = torch.tensor([key for key in range(shape[2]) if key not in sinks], dtype=torch.int64, device=like.device)
        self._groups = (open_keys, torch.tensor(sorted(sinks), dtype=torch.int64, device=like.device))
        self._top = like.new_zeros(2, layers, heads)  # over the two groups of keys
        self._top_at = torch.zeros(2, layers, heads, dtype=torch.int64, device=like.device)  # query * T + key
        self._floor = 0.0
        self._pool: list[tuple[Tensor, Tensor, Tensor]] = []  # code (((kind*L+l)*H+h)*T+i)*T+j, weight, attention
        self._pooled = 0

    def take(self, layer: int, rows: Tensor, attention: Tensor, weight: Tensor) -> None:
        """Reduce one tile of VALUE edges: `rows` [R], `attention` and `weight` [H, R, J]."""
        size = self._reduce(self.value, VALUE, layer, rows, attention, weight)
        for group, keys in enumerate(self._groups):
            self._take_top(group, layer, rows, size, keys[: int(torch.searchsorted(keys, size.shape[2]))])

    def take_removals(self, rows: Tensor, attention: Tensor, g: Tensor, relevance: Tensor) -> None:
        """Add what hiding each key from the `rows` would take away: sum over heads and rows of a / (1 - a) (g - relevance).

        The other keys share out the attention that a hidden one had: z becomes (z - a v) / (1 - a). A row's own key is not hidden from it.
        """
        seen = attention.shape[2]
        lost = (1 - attention).clamp_min_(LEAST_LEFT)
        torch.div(attention, lost, out=lost)
        lost[:, torch.arange(len(rows), device=rows.device), rows] = 0
        self.removal[:seen] -= (relevance.reshape(1, -1) @ lost.view(-1, seen))[0]  # apart from g: a pass over the tile less
        self.removal[:seen] += lost.mul_(g).sum((0, 1))

    def _take_top(self, group: int, layer: int, rows: Tensor, size: Tensor, keys: Tensor) -> None:
        """Keep each head's largest |weight| among some keys, ascending."""
        if not len(keys):
            return
        first, last = int(keys[0]), int(keys[-1]) + 1
        part = size[:, :, first:last] if last - first == len(keys) else size[:, :, keys]  # a view where they lie together
        top = part.amax((1, 2))
        better = torch.nonzero(top > self._top[group, layer]).squeeze(1)
        if len(better):
            at = part[better].flatten(1).argmax(-1)
            self._top[group, layer, better] = top[better]
            self._top_at[group, layer, better] = rows[at // len(keys)] * self.shape[2] + keys[at % len(keys)]

    def take_keys(self, layer: int, rows: Tensor, attention: Tensor, weight: Tensor) -> None:
        """Reduce one tile of KEY edges, shaped as in `take`."""
        self._reduce(self.key, KEY, layer, rows, attention, weight)

    def take_heads(self, layer: int, relevance: Tensor, bias: Tensor | None, value_out: Tensor) -> None:
        """Take <gz, z> [H, T], the bias part of the heads [H, T] and the signed sum of VALUE edges per source [T]."""
        self.relevance[layer] = relevance
        if bias is not None:
            self.bias[layer] = bias
        self.value.column[layer] = value_out

    def take_queries(self, layer: int, query: Tensor, key_out: Tensor) -> None:
        """Take the QUERY edges [H, T] and the signed sum of KEY edges per source [T]."""
        self.query[layer] = query
        self.key.column[layer] = key_out

    def _reduce(self, sums: EdgeSums, kind: int, layer: int, rows: Tensor, attention: Tensor, weight: Tensor) -> Tensor:
        """Add one tile to the sums of its kind and offer its edges to the pool; give |weight|."""
        seen = weight.shape[2]
        size = weight.abs()
        sums.row[layer][:, rows] = weight.sum(-1)
        sums.row_abs[layer][:, rows] = size.sum(-1)
        sums.column_abs[layer, :seen] += size.sum((0, 1))
        here = torch.nonzero(torch.isin(rows, self.positions)).squeeze(1)
        if len(here):
            sums.direct[layer, :seen] += size[:, here].sum((0, 1))
        if float(size.amax()) > self._floor:
            self._pool_tile(kind, layer, rows, attention, weight, size)
        return size

    def _pool_tile(self, kind: int, layer: int, rows: Tensor, attention: Tensor, weight: Tensor, size: Tensor) -> None:
        heads, n_rows, seen = weight.shape
        flat = torch.nonzero(size.view(-1) > self._floor).squeeze(1)
        values = weight.view(-1)[flat]
        if len(flat) > 2 * self.max_edges:
            kept = values.abs().topk(self.max_edges, sorted=False).indices
            flat, values = flat[kept], values[kept]
        head, rest = flat // (n_rows * seen), flat % (n_rows * seen)
        layers, _, length = self.shape
        code = (((kind * layers + layer) * heads + head) * length + rows[rest // seen]) * length + rest % seen
        self._add(code, values, attention.reshape(-1)[flat])

    def _add(self, code: Tensor, weight: Tensor, attention: Tensor) -> None:
        self._pool.append((code, weight, attention))
        self._pooled += len(weight)
        if self._pooled > 2 * self.max_edges:
            self._cut()

    def _cut(self) -> None:
        code, weight, attention = (torch.cat(column) for column in zip(*self._pool, strict=True))
        if len(weight) > self.max_edges:
            best = weight.abs().topk(self.max_edges, sorted=True)
            self._floor = float(best.values[-1])
            code, weight, attention = code[best.indices], weight[best.indices], attention[best.indices]
        self._pool, self._pooled = [(code, weight, attention)], len(weight)

    def edges(self) -> AttentionEdges:
        """Give the pooled edges, at most `max_edges`, largest first; ties in order of kind, layer, head, query, key."""
        self._take_query_edges()
        layers, heads, length = self.shape
        if not self._pool:
            none = np.zeros(0, dtype=np.int64)
            return AttentionEdges(none, none, none, none, np.zeros(0), np.zeros(0), none)
        code, weight, attention = (torch.cat(c).cpu().numpy() for c in zip(*self._pool, strict=True))
        order = np.lexsort((code, -np.abs(weight)))[: self.max_edges]
        rest, source = np.divmod(code[order], length)
        rest, query = np.divmod(rest, length)
        rest, head = np.divmod(rest, heads)
        kind, layer = np.divmod(rest, layers)
        return AttentionEdges(layer, head, query, source, weight[order].astype(np.float64), attention[order].astype(np.float64), kind)

    def _take_query_edges(self) -> None:
        """Offer the QUERY edges to the pool; their source is the row's own position."""
        flat = torch.nonzero(self.query.view(-1).abs() > self._floor).squeeze(1)
        layers, heads, length = self.shape
        weight = self.query.view(-1)[flat]
        code = (QUERY * layers * heads * length + flat) * length + flat % length
        if len(flat):
            self._add(code, weight, torch.zeros_like(weight))

    def tops(self) -> HeadTops:
        """Give every head's largest VALUE edge whose source is no sink; from a sink where there is no other."""
        chosen = (self._top[0] <= 0).long()[None]  # the sinks where nothing else has an edge
        at = self._top_at.gather(0, chosen)[0].cpu().numpy()
        return HeadTops(_numpy(self._top.gather(0, chosen)[0]), at // self.shape[2], at % self.shape[2])


def _numpy(tensor: Tensor) -> Floats:
    out: Floats = tensor.detach().cpu().to(torch.float64).numpy()
    return out
