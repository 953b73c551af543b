"""Reduce the attention edges of one target while they are computed, tile by tile; the T x T x L x H tensor never exists.

1. Per tile: signed and absolute row sums, absolute column sums, the rows of the target's positions, each head's largest edge.
2. Edges above a floor go to a pool. When the pool holds twice what may be kept, it is cut to the largest, and the floor rises to the
   smallest of those: an edge below it can never be kept.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from tracestore.extract.attribution import AttentionEdges, Floats, HeadTops


class EdgeCollector:
    """Collects the VALUE edges of one target, which reads the logits at `positions` of batch row `batch`."""

    def __init__(self, shape: tuple[int, int, int], positions: Sequence[int], max_edges: int, like: Tensor, batch: int = 0) -> None:
        layers, heads, length = shape
        self.shape, self.max_edges, self.batch = shape, max(int(max_edges), 1), batch
        self.positions = torch.tensor(list(positions), device=like.device)
        self.row = like.new_zeros(shape)
        self.row_abs = like.new_zeros(shape)
        self.column = like.new_zeros(layers, length)
        self.column_abs = like.new_zeros(layers, length)
        self.direct = like.new_zeros(layers, length)
        self.relevance = like.new_zeros(shape)
        self.bias = like.new_zeros(shape)
        self.top = like.new_zeros(layers, heads)
        self.top_at = torch.zeros(layers, heads, dtype=torch.int64, device=like.device)  # query * T + key
        self._floor = 0.0
        self._pool: list[tuple[Tensor, Tensor, Tensor]] = []  # key ((l*H+h)*T+i)*T+j, weight, attention
        self._pooled = 0

    def take(self, layer: int, rows: Tensor, attention: Tensor, weight: Tensor) -> None:
        """Reduce one tile: `rows` [R], `attention` and `weight` [H, R, J]."""
        heads, _, seen = weight.shape
        size = weight.abs()
        self.row[layer][:, rows] = weight.sum(-1)
        self.row_abs[layer][:, rows] = size.sum(-1)
        self.column_abs[layer, :seen] += size.sum((0, 1))
        here = torch.nonzero(torch.isin(rows, self.positions)).squeeze(1)
        if len(here):
            self.direct[layer, :seen] += size[:, here].sum((0, 1))
        top, at = size.view(heads, -1).max(-1)
        query, key = rows[at // seen], at % seen
        better = top > self.top[layer]
        self.top[layer] = torch.where(better, top, self.top[layer])
        self.top_at[layer] = torch.where(better, query * self.shape[2] + key, self.top_at[layer])
        if float(top.max()) > self._floor:
            self._pool_tile(layer, rows, attention, weight, size)

    def take_heads(self, layer: int, relevance: Tensor, bias: Tensor | None, value_out: Tensor) -> None:
        """Take <gz, z> [H, T], the bias part of the values [H, T] and the signed sum of edges per source [T]."""
        self.relevance[layer] = relevance
        if bias is not None:
            self.bias[layer] = bias
        self.column[layer] = value_out

    def _pool_tile(self, layer: int, rows: Tensor, attention: Tensor, weight: Tensor, size: Tensor) -> None:
        heads, n_rows, seen = weight.shape
        flat = torch.nonzero(size.view(-1) > self._floor).squeeze(1)
        values = weight.view(-1)[flat]
        if len(flat) > 2 * self.max_edges:
            kept = values.abs().topk(self.max_edges, sorted=False).indices
            flat, values = flat[kept], values[kept]
        head, rest = flat // (n_rows * seen), flat % (n_rows * seen)
        length = self.shape[2]
        key = ((layer * heads + head) * length + rows[rest // seen]) * length + rest % seen
        self._pool.append((key, values, attention.reshape(-1)[flat]))
        self._pooled += len(flat)
        if self._pooled > 2 * self.max_edges:
            self._cut()

    def _cut(self) -> None:
        key, weight, attention = (torch.cat(column) for column in zip(*self._pool, strict=True))
        if len(weight) > self.max_edges:
            best = weight.abs().topk(self.max_edges, sorted=True)
            self._floor = float(best.values[-1])
            key, weight, attention = key[best.indices], weight[best.indices], attention[best.indices]
        self._pool, self._pooled = [(key, weight, attention)], len(weight)

    def edges(self) -> AttentionEdges:
        """Give the pooled edges, at most `max_edges`, largest first; ties in order of layer, head, query, key."""
        _, heads, length = self.shape
        if not self._pool:
            none = np.zeros(0, dtype=np.int64)
            return AttentionEdges(none, none, none, none, np.zeros(0), np.zeros(0))
        key, weight, attention = (torch.cat(c).cpu().numpy() for c in zip(*self._pool, strict=True))
        order = np.lexsort((key, -np.abs(weight)))[: self.max_edges]
        rest, source = np.divmod(key[order], length)
        rest, query = np.divmod(rest, length)
        layer, head = np.divmod(rest, heads)
        return AttentionEdges(layer, head, query, source, weight[order].astype(np.float64), attention[order].astype(np.float64))

    def tops(self) -> HeadTops:
        """Give every head's largest edge."""
        at = self.top_at.cpu().numpy()
        return HeadTops(_numpy(self.top), at // self.shape[2], at % self.shape[2])


def _numpy(tensor: Tensor) -> Floats:
    out: Floats = tensor.detach().cpu().to(torch.float64).numpy()
    return out
