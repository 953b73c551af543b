"""Attention of the method `secant`: its gradient reaches values, queries and keys by the rule in `secant`.

Backward, per layer, in tiles of query rows:
1. Recompute the scores: s = cap(r) + b, r = scale q k', b what is added to them (ALiBi); a sink is one more key of value zero.
2. The rule gives W and ds from s and g = gz v'. VALUE edges are W < gz, v > over the bias-free values.
3. With f = half ds cap(r)/r, the ratio held fixed: KEY edges are f scale < q, k > over the bias-free keys, dq = scale f k, dk = scale f' q.
4. Per layer at the end: the QUERY edge of a row is < dq, q > over the bias-free query. To the heads' bias go the bias parts of values, keys
   and queries, sum ds b, and the sink's term.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn import functional

from tracestore.extract.attention import AttentionState, EdgeSink, HeadGradients, Pattern, RuledAttention
from tracestore.extract.scores import tile_scores
from tracestore.extract.secant import HALF

TILE_ROWS: Final = 64
"""Smaller than the frozen tiles: there are more tensors of a tile at once, and less of a causal tile is beyond the diagonal."""


class SecantAttention(RuledAttention):
    """Attention whose backward pass conserves relevance through values, queries and keys."""

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Give dq, dk and dv, and the edges to the state's sink."""
        query, key, value, out = ctx.saved_tensors
        dq, dk, dv = torch.zeros_like(query), torch.zeros_like(key), torch.zeros_like(value)
        state = ctx.state
        for b in range(value.shape[0]):
            sink = state.sink if state.sink is not None and state.sink.batch == b else None
            item = _Item(ctx.pattern, ctx.layer, b, query[b], key[b], value[b], grads[0][b], dq[b], dk[b], dv[b])
            if sink is None or sink.head_gradients is None:
                _backward_one(item, out[b], state, sink)
                continue
            apart = _apart(item, sink.head_gradients)
            _backward_one(apart, out[b], state, sink)
            for shared, own in ((item.dk, apart.dk), (item.dv, apart.dv)):
                shared.copy_(_shared(own, item.groups))
        return dq, dk, dv, None, None, None


def attend_secant(query: Tensor, key: Tensor, value: Tensor, pattern: Pattern, layer: int, state: AttentionState) -> Tensor:
    """Attend with the secant rule: output [B, T, H, D]."""
    out: Tensor = SecantAttention.apply(query, key, value, pattern, layer, state)
    return out


@dataclass(frozen=True, slots=True)
class _Item:
    """One layer of one batch row: its inputs, the gradient at its output, and where the gradients of the inputs are gathered."""

    pattern: Pattern
    layer: int
    batch: int
    query: Tensor  # [H, T, Dk]
    key: Tensor  # [Hkv, T, Dk]
    value: Tensor  # [Hkv, T, D]
    gz: Tensor  # [T, H, D]
    dq: Tensor  # [H, T, Dk]
    dk: Tensor  # [Hkv, T, Dk], or [H, T, Dk] to keep the heads apart
    dv: Tensor  # [Hkv, T, D], or [H, T, D]

    @property
    def groups(self) -> int:
        """Number of key and value heads."""
        return self.key.shape[0]

    def grouped(self, x: Tensor) -> Tensor:
        """View [H, R, n] as [Hkv, H/Hkv * R, n]: the rows that share keys."""
        return x.reshape(self.groups, -1, x.shape[-1])


def _apart(item: _Item, gradients: HeadGradients) -> _Item:
    """Let a layer gather the gradients of every query head on its own, in `gradients`."""
    heads = item.query.shape[0]
    key, value = (x.new_zeros(heads, *x.shape[1:]) for x in (item.dk, item.dv))
    gradients.query[item.layer], gradients.key[item.layer], gradients.value[item.layer] = item.dq, key, value
    return replace(item, dk=key, dv=value)


def _gather(into: Tensor, weight: Tensor, vectors: Tensor, scale: float = 1.0) -> None:
    """Add what rows send to keys to `into` [Hx, T, n]: `weight` [H, R, J], `vectors` [H, R, n]."""
    heads, seen = into.shape[0], weight.shape[-1]
    into[:, :seen].baddbmm_(weight.reshape(heads, -1, seen).transpose(1, 2), vectors.reshape(heads, -1, vectors.shape[-1]), alpha=scale)


def _backward_one(item: _Item, out: Tensor, state: AttentionState, sink: EdgeSink | None) -> None:
    alive = torch.nonzero(item.gz.abs().amax((1, 2)) > 0).squeeze(1)
    bias = item.gz.new_zeros(item.query.shape[0], len(item.gz))  # [H, T]
    value_bias, address = state.value_bias.get(item.layer), state.address_bias.get(item.layer)
    shift = None  # what a row's gradient makes of the bias part of the values [H, T]
    if value_bias is not None:
        repeated = value_bias.to(item.gz.dtype).repeat_interleave(item.query.shape[0] // item.groups, 0)
        shift = (item.gz * repeated).sum(-1).T
    key_bias = None if address is None else address.key[item.batch]
    relevance = (item.gz * out).sum(-1).T
    for rows in torch.split(alive, TILE_ROWS) if len(alive) else ():
        bias[:, rows] = _tile(item, rows, relevance[:, rows], None if shift is None else shift[:, rows], key_bias, sink)
    if sink is None:
        return
    query, key, value = item.query, item.key, item.value
    if value_bias is not None:
        value = value - value_bias[:, None].to(value.dtype)
    if address is not None:
        query, key = query - address.query[item.batch], key - address.key[item.batch]
        bias += (item.dq * address.query[item.batch]).sum(-1)
    keys, values = (_shared(x, item.groups) for x in (item.dk, item.dv))
    sink.take_heads(item.layer, relevance, bias, (values * value).sum((0, 2)))
    sink.take_queries(item.layer, (item.dq * query).sum(-1), (keys * key).sum((0, 2)))


def _shared(x: Tensor, groups: int) -> Tensor:
    """Add up [H, T, n] over the heads that share keys: [Hkv, T, n]."""
    return x if x.shape[0] == groups else x.view(groups, -1, *x.shape[1:]).sum(1)


def _tile(item: _Item, rows: Tensor, relevance: Tensor, shift: Tensor | None, key_bias: Tensor | None, sink: EdgeSink | None) -> Tensor:
    """Work one tile of query `rows` [R]; give the bias of its heads [H, R] save that of the queries."""
    whole = int(rows[-1]) - int(rows[0]) + 1 == len(rows)
    span = slice(int(rows[0]), int(rows[-1]) + 1) if whole else rows
    scaling, query = item.pattern.scaling, item.query[:, span]
    scores = tile_scores(item.pattern, query, item.key, rows, item.batch)
    rule = scores.rows()
    heads, count, seen = scores.raw.shape
    gz = item.gz[span].transpose(0, 1)
    g = torch.matmul(item.grouped(gz), item.value[:, :seen].transpose(1, 2)).view(heads, count, seen)
    weight, attention = rule.value, rule.attention
    bias = g.new_zeros(heads, count)
    if scores.sink is None:
        ds = rule.address(g)
    else:
        ds = rule.address(functional.pad(g, (0, 1)))
        bias += ds[..., -1] * scores.sink.to(g.dtype)[:, None]
        ds, weight, attention = ds[..., :seen].contiguous(), weight[..., :seen].contiguous(), attention[..., :seen]
    if scores.added is not None:
        bias += (ds * scores.added).sum(-1)
    factor = ds.mul_(HALF) if scores.ratio is None else ds.mul_(HALF).mul_(scores.ratio)
    _gather(item.dv, weight, gz)
    item.dq[:, span] = torch.matmul(item.grouped(factor), item.key[:, :seen]).mul_(scaling).view_as(query)
    _gather(item.dk, factor, query, scaling)
    if sink is None:
        return bias
    sink.take_removals(rows, attention, g, relevance)
    if shift is not None:
        bias += weight.sum(-1) * shift
        g -= shift[..., None]
    sink.take(item.layer, rows, attention, weight.mul_(g))
    raw = scores.raw
    if key_bias is not None:
        from_bias = torch.matmul(item.grouped(query), key_bias[:, :seen].transpose(1, 2)).view_as(raw).mul_(scaling)
        bias += (factor * from_bias).sum(-1)
        raw = raw - from_bias
    sink.take_keys(item.layer, rows, attention, factor.mul_(raw))
    return bias
