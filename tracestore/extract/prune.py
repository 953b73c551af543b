"""Choose which attention edges are stored, and which nodes live (numpy, no loop over edges).

1. Kept edges: the largest attention edges, of whatever kind, until `keep` of the total |VALUE| + |KEY| + |QUERY| is reached, at most
   `max_edges`.
2. One pass from the final States at the target's positions downwards: a live pre(l+1, i) makes mid(l, i), its Mlp and its RESIDUAL live;
   heads (l, h, i) with a kept edge live and WRITE to it; pre(l) is live where mid(l) is and at the sources of live heads' edges.
   (Parallel blocks: the same without mid.) Kept edges into heads that do not live are let go.
3. What is not stored is counted, signed and absolute, at each of its ends that is.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tracestore.extract.attribution import AttentionEdges, Bools, Floats, Flows, PrunedGraph
from tracestore.model import PruningOptions


def choose_edges(edges: AttentionEdges, total: float, options: PruningOptions) -> AttentionEdges:
    """Keep the head of `edges` (largest first) that holds `options.keep` of `total`, at most `options.max_edges`."""
    mass = np.cumsum(np.abs(edges.weight))
    enough = len(edges) if options.keep >= 1 else int(np.searchsorted(mass, options.keep * total * (1 - 1e-9))) + 1
    return edges.take(np.arange(min(enough, options.max_edges, len(edges))))


def prune(flows: Flows, edges: AttentionEdges, positions: Sequence[int], options: PruningOptions) -> PrunedGraph:
    """Prune the graph of one Output, which reads the logits at `positions`."""
    layers, heads, length = flows.head_relevance.shape
    whole_in, whole_in_abs = flows.attention_in
    total = float(whole_in_abs.sum())
    kept = choose_edges(edges, total, options)
    pre = np.zeros((layers + 1, length), dtype=bool)
    mid = np.zeros((layers, length), dtype=bool)
    head = np.zeros((layers, heads, length), dtype=bool)
    pre[layers, list(positions)] = True
    stored = np.zeros(len(kept), dtype=bool)
    by_layer = np.argsort(kept.layer, kind="stable")
    bounds = np.searchsorted(kept.layer[by_layer], np.arange(layers + 1))
    for layer in range(layers - 1, -1, -1):
        mid[layer] = pre[layer + 1]
        mine = by_layer[bounds[layer] : bounds[layer + 1]]
        mine = mine[mid[layer, kept.query[mine]]]
        stored[mine] = True
        head[layer, kept.head[mine], kept.query[mine]] = True
        pre[layer] = mid[layer]
        pre[layer, kept.key[mine]] = True
    final = kept.take(stored)
    kept_in, kept_in_abs = _per_head(final, flows)
    graph = PrunedGraph(
        edges=final,
        pre_live=pre,
        mid_live=mid,
        head_live=head,
        pre_dropped_in=np.zeros_like(flows.pre_relevance),
        pre_dropped_in_abs=np.zeros_like(flows.pre_relevance),
        pre_dropped_out=np.zeros_like(flows.pre_relevance),
        pre_dropped_out_abs=np.zeros_like(flows.pre_relevance),
        mid_dropped_in=np.zeros_like(flows.mid_relevance),
        mid_dropped_in_abs=np.zeros_like(flows.mid_relevance),
        head_dropped_in=whole_in - kept_in,
        head_dropped_in_abs=np.maximum(whole_in_abs - kept_in_abs, 0.0),
        attention_kept=float(np.abs(final.weight).sum() / total) if total > 0 else 1.0,
    )
    _drop_writes(graph, flows)
    _drop_out(graph, flows, *_per_source(final, flows))
    return graph


def _per_head(edges: AttentionEdges, flows: Flows) -> tuple[Floats, Floats]:
    shape = flows.value_in.shape
    at = np.ravel_multi_index((edges.layer, edges.head, edges.query), shape)
    return _sums(at, edges.weight, shape)


def _per_source(edges: AttentionEdges, flows: Flows) -> tuple[Floats, Floats]:
    shape = flows.value_out.shape
    return _sums(np.ravel_multi_index((edges.layer, edges.key), shape), edges.weight, shape)


def _sums(at: np.typing.NDArray[np.intp], weight: Floats, shape: tuple[int, ...]) -> tuple[Floats, Floats]:
    size = int(np.prod(shape))
    signed: Floats = np.bincount(at, weights=weight, minlength=size).astype(np.float64)
    absolute: Floats = np.bincount(at, weights=np.abs(weight), minlength=size).astype(np.float64)
    return signed.reshape(shape), absolute.reshape(shape)


def _drop_writes(graph: PrunedGraph, flows: Flows) -> None:
    """Count what heads that do not live write into live States."""
    lost = np.where(graph.head_live, 0.0, flows.head_relevance)
    signed, absolute = lost.sum(1), np.abs(lost).sum(1)
    if flows.parallel:
        live = graph.pre_live[1:]
        graph.pre_dropped_in[1:] = np.where(live, signed, 0.0)
        graph.pre_dropped_in_abs[1:] = np.where(live, absolute, 0.0)
    else:
        graph.mid_dropped_in[:] = np.where(graph.mid_live, signed, 0.0)
        graph.mid_dropped_in_abs[:] = np.where(graph.mid_live, absolute, 0.0)


def _drop_out(graph: PrunedGraph, flows: Flows, kept_out: Floats, kept_out_abs: Floats) -> None:
    """Count attention edges out of live States that are not stored, and RESIDUAL and READS of States that live as sources only."""
    layers = flows.value_out.shape[0]
    live = graph.pre_live[:layers]
    whole_out, whole_out_abs = flows.attention_out
    signed = whole_out - kept_out
    absolute = np.maximum(whole_out_abs - kept_out_abs, 0.0)
    source_only: Bools = live & ~graph.mid_live
    passed = (flows.residual_out, flows.reads) if flows.parallel else (flows.residual_in,)
    for edge in passed:
        signed = signed + np.where(source_only, edge, 0.0)
        absolute = absolute + np.where(source_only, np.abs(edge), 0.0)
    graph.pre_dropped_out[:layers] = np.where(live, signed, 0.0)
    graph.pre_dropped_out_abs[:layers] = np.where(live, absolute, 0.0)
