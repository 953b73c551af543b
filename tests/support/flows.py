"""Random conserving flows: the mechanism graph of one Output, made without a model.

1. Draw attention probabilities and full signed VALUE, WRITES, READS, RESIDUAL and bias weights top-down, layer by layer, so that every
   node's inputs plus bias equal its outputs.
2. Prune as the extractor does: keep the largest attention edges up to a share of their mass and a number of edges.
3. Walk down from the Output: structural edges follow live nodes; what was removed is counted at both of its ends.

Every weight is a multiple of 2**-16 below 256, so float32 holds it and its sums exactly.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
QUANTUM = 2.0**-16


def quantise(values: Array | float) -> Array:
    """Round to multiples of `QUANTUM`."""
    return np.round(np.asarray(values, dtype=np.float64) / QUANTUM) * QUANTUM


@dataclass(frozen=True, slots=True)
class Flow:
    """All weights of one Output at position `pos` (T = pos + 1 positions, logits).

    attention, value: [layer, head, query, key]; head_relevance, head_bias: [layer, head, query]; mlp, mlp_bias, reads, skip_mlp (the
    residual edge into the next layer), skip_attention (the residual edge from `pre`), pre_bias, mid_bias: [layer, query]; pre: relevance
    [layer + 1, query]; mid: relevance [layer, query], unused in parallel blocks.
    """

    pos: int
    parallel: bool
    explained: float
    final_bias: float
    attention: Array
    value: Array
    head_relevance: Array
    head_bias: Array
    mlp: Array
    mlp_bias: Array
    reads: Array
    skip_mlp: Array
    skip_attention: Array
    pre_bias: Array
    mid_bias: Array
    pre: Array
    mid: Array

    @property
    def bias(self) -> float:
        """Sum of every bias in the full graph, logits."""
        parts = (self.head_bias, self.mlp_bias, self.pre_bias, self.mid_bias)
        return self.final_bias + float(sum(part.sum() for part in parts))


def random_flow(rng: np.random.Generator, *, pos: int, n_layers: int, n_heads: int, parallel: bool, explained: float) -> Flow:
    """Draw the full graph of one Output from the top down."""
    size = pos + 1
    attention = rng.gamma(0.5, size=(n_layers, n_heads, size, size)) + 1e-3
    attention[..., 0] += 0.5 * size * rng.random((n_layers, n_heads, size))
    attention = np.tril(attention)
    attention /= attention.sum(-1, keepdims=True)
    value = np.zeros_like(attention)
    head_relevance, head_bias = np.zeros(attention.shape[:3]), np.zeros(attention.shape[:3])
    names = ("mlp", "mlp_bias", "reads", "skip_mlp", "skip_attention", "pre_bias", "mid_bias", "mid")
    rows = {name: np.zeros((n_layers, size)) for name in names}
    pre = np.zeros((n_layers + 1, size))
    pre[n_layers, pos] = explained
    live = np.zeros(size, dtype=bool)
    live[pos] = True
    final_bias = float(quantise(rng.normal(0, 0.05)))
    top = pre[n_layers].copy()
    top[pos] -= final_bias
    for layer in reversed(range(n_layers)):
        scale = np.where(live, 1.0 / np.sqrt(live.sum()), 0.0)
        mlp, mlp_bias = quantise(rng.normal(0, 0.3, size) * scale), quantise(rng.normal(0, 0.02, size) * scale)
        reads, pre_bias = mlp - mlp_bias, quantise(rng.normal(0, 0.02, size) * scale)
        weight = quantise(attention[layer] * rng.normal(0, 1.5, attention[layer].shape) * scale[None, :, None] / np.sqrt(n_heads))
        bias = quantise(rng.normal(0, 0.01, (n_heads, size)) * scale)
        heads = weight.sum(-1) + bias
        mid_bias = np.zeros(size) if parallel else quantise(rng.normal(0, 0.02, size) * scale)
        skip_mlp = top - mlp - pre_bias
        if parallel:  # the block's heads and MLP both read `pre` and write into the next layer's `pre`
            skip_mlp = skip_mlp - heads.sum(0)
            skip_attention, mid = skip_mlp, np.zeros(size)
            pre[layer] = skip_mlp + reads + weight.sum((0, 1))
        else:
            mid = skip_mlp + reads
            skip_attention = mid - heads.sum(0) - mid_bias
            pre[layer] = skip_attention + weight.sum((0, 1))
        value[layer], head_relevance[layer], head_bias[layer] = weight, heads, bias
        for name, row in zip(names, (mlp, mlp_bias, reads, skip_mlp, skip_attention, pre_bias, mid_bias, mid), strict=True):
            rows[name][layer] = row
        live = live | (np.tril(np.ones((size, size), dtype=bool)) & live[:, None]).any(0)
        top = pre[layer]
    return Flow(pos, parallel, explained, final_bias, attention, value, head_relevance, head_bias, pre=pre, **rows)


@dataclass(frozen=True, slots=True)
class Kept:
    """What stays after pruning: masks of the same shapes as `Flow`; `mlp` covers the Mlp node and its two edges."""

    value: Array
    head: Array
    mlp: Array
    pre: Array
    mid: Array
    attention_kept: float


def prune(flow: Flow, *, keep: float, max_edges: int) -> Kept:
    """Keep the largest attention edges, then every live node and its structural edges."""
    n_layers, n_heads, size, _ = flow.value.shape
    mass = np.abs(flow.value).ravel()
    order = np.argsort(-mass, kind="stable")
    order = order[mass[order] > 0]
    reached = np.cumsum(mass[order])
    total = float(reached[-1]) if len(reached) else 0.0
    count = min(max_edges, int(np.searchsorted(reached, keep * total)) + 1, len(order))
    chosen = np.zeros(mass.shape, dtype=bool)
    chosen[order[:count]] = True
    value = chosen.reshape(flow.value.shape)
    pre, mid = np.zeros((n_layers + 1, size), dtype=bool), np.zeros((n_layers, size), dtype=bool)
    head = np.zeros((n_layers, n_heads, size), dtype=bool)
    pre[n_layers, flow.pos] = True
    for layer in reversed(range(n_layers)):
        mid[layer] = pre[layer + 1]
        head[layer] = value[layer].any(-1) & mid[layer]
        value[layer] &= head[layer][..., None]
        pre[layer] = mid[layer] | value[layer].any((0, 1))
    kept_mass = float(np.abs(flow.value[value]).sum())
    return Kept(value, head, mid.copy(), pre, mid, kept_mass / total if total else 1.0)
