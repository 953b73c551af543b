"""The method `frozen`: one frozen forward pass per prompt, one backward pass per explained output.

1. `ForwardPass`: run the patched model without its output head; keep the graph.
2. `explain`: seed the gradient at the final normed state with (W_token - mean W), (W_token - W_foil) or W_token, at one position or (the
   sum of a span) at several; run it back to the embeddings. On its way the hooks of `capture` and the attention function reduce it to
   the relevance of every node and the weight of every edge.
3. Check: scores + biases = explained, and the same at every node.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tracestore.extract.attribution import AttentionEdges, Floats, Flows, HeadTops
from tracestore.extract.capture import Capture, NodeSums, ReaderGradients
from tracestore.extract.edges import EdgeCollector

METHOD_VERSION = 1
"""Part of every trace_id: raised whenever the numbers of `frozen` change."""


@dataclass(frozen=True, slots=True)
class Seeds:
    """What is explained: the sum over ascending `positions` of < `vectors` [n, d], final state > + `biases`."""

    positions: tuple[int, ...]
    vectors: Tensor
    biases: tuple[float, ...]
    sinks: frozenset[int] = frozenset()  # attention sinks: a head's largest edge is looked for elsewhere


@dataclass(frozen=True, slots=True)
class Explained:
    """The raw result of one backward pass. Errors are absolute, in logits."""

    explained: float
    explained_at: Floats  # [n] the same, position by position
    scores: Floats  # [T]
    bias: float
    final_bias: Floats  # [n] of it, what the final norm and the output head add, position by position
    flows: Flows
    edges: AttentionEdges
    tops: HeadTops
    direct_value: Floats  # [T]
    direct_address: Floats  # [T]
    removal: Floats  # [T]
    closure_error: float
    node_errors: dict[str, float]


def explain(
    capture: Capture,
    seeds: Seeds,
    max_edges: int,
    *,
    batch: int = 0,
    retain: bool = True,
    readers: ReaderGradients | None = None,
) -> Explained:
    """Decompose what `seeds` name over tokens, nodes and attention edges, in one backward pass.

    `readers` is filled with the gradient into every reader, where that is asked for.
    """
    x0, final = capture.x0, capture.final
    if x0 is None or final is None:
        raise RuntimeError("the forward pass has not run")
    layers, length = len(capture.layout.blocks), x0.shape[1]
    collector = EdgeCollector((layers, capture.state.heads, length), seeds.positions, max_edges, x0.detach(), batch, seeds.sinks)
    capture.sums, capture.batch = NodeSums.zeros(layers, length, x0.detach()), batch
    capture.state.sink, capture.readers = collector, readers
    collector.head_gradients = None if readers is None else readers.heads
    try:
        rows = final[batch, list(seeds.positions)]
        (gradient,) = torch.autograd.grad(rows, x0, grad_outputs=seeds.vectors, retain_graph=retain)
        explained_at = _numpy((rows.detach().double() * seeds.vectors.double()).sum(-1)) + np.asarray(seeds.biases)
        sums = capture.sums
        scores = (gradient[batch] * x0.detach()[batch]).sum(-1)
        sums.pre[0] = scores
    finally:
        capture.state.sink, capture.sums, capture.readers = None, None, None
    form = capture.norms[capture.layout.final_norm]
    final_bias = np.asarray(seeds.biases)
    if form.bias is not None:
        final_bias = final_bias + _numpy(seeds.vectors.double() @ form.bias.double())
    return _result(capture, collector, sums, seeds.positions, explained_at, final_bias)


def _result(
    capture: Capture, collector: EdgeCollector, sums: NodeSums, positions: tuple[int, ...], explained_at: Floats, final_bias: Floats
) -> Explained:
    at = list(positions)
    layers = len(capture.layout.blocks)
    pre, pre_bias = _numpy(sums.pre), _numpy(sums.pre_bias)
    through = pre[layers, at]
    pre_bias[layers, at] += final_bias
    pre[layers] = 0.0
    pre[layers, at] = explained_at
    explained = float(explained_at.sum())
    flows = Flows(
        parallel=capture.layout.parallel,
        pre_relevance=pre,
        pre_bias=pre_bias,
        mid_relevance=_numpy(sums.mid),
        mid_bias=_numpy(sums.mid_bias),
        residual_in=_numpy(sums.residual_in),
        residual_out=_numpy(sums.residual_out),
        head_relevance=_numpy(collector.relevance),
        head_bias=_numpy(collector.bias),
        value_in=_numpy(collector.value.row),
        value_in_abs=_numpy(collector.value.row_abs),
        value_out=_numpy(collector.value.column),
        value_out_abs=_numpy(collector.value.column_abs),
        key_in=_numpy(collector.key.row),
        key_in_abs=_numpy(collector.key.row_abs),
        key_out=_numpy(collector.key.column),
        key_out_abs=_numpy(collector.key.column_abs),
        query=_numpy(collector.query),
        mlp_relevance=_numpy(sums.mlp),
        mlp_bias=_numpy(sums.mlp_bias),
        reads=_numpy(sums.reads),
    )
    scores = pre[0]
    bias = sum(float(part.sum()) for part in (flows.pre_bias, flows.mid_bias, flows.head_bias, flows.mlp_bias))
    return Explained(
        explained=explained,
        explained_at=explained_at,
        scores=scores,
        bias=bias,
        final_bias=final_bias,
        flows=flows,
        edges=collector.edges(),
        tops=collector.tops(),
        direct_value=_numpy(collector.value.direct).sum(0),
        direct_address=_numpy(collector.key.direct).sum(0),
        removal=_numpy(collector.removal),
        closure_error=abs(float(scores.sum()) + bias - explained),
        node_errors={**node_errors(flows), "final": float(np.abs(through + final_bias - explained_at).max())},
    )


def node_errors(flows: Flows) -> dict[str, float]:
    """Give the worst |in + bias - relevance| and |relevance - out| of each kind of node, in logits."""
    heads_in = flows.head_relevance.sum(1)
    attention_in, attention_out = flows.attention_in[0], flows.attention_out[0]
    errors = {
        "head": attention_in + flows.head_bias - flows.head_relevance,
        "mlp": flows.reads + flows.mlp_bias - flows.mlp_relevance,
    }
    arrived = flows.residual_out + flows.mlp_relevance + flows.pre_bias[1:]
    if flows.parallel:
        errors["pre in"] = arrived + heads_in - flows.pre_relevance[1:]
        errors["pre out"] = flows.residual_out + attention_out + flows.reads - flows.pre_relevance[:-1]
    else:
        errors["pre in"] = arrived - flows.pre_relevance[1:]
        errors["mid in"] = flows.residual_in + heads_in + flows.mid_bias - flows.mid_relevance
        errors["mid out"] = flows.residual_out + flows.reads - flows.mid_relevance
        errors["pre out"] = flows.residual_in + attention_out - flows.pre_relevance[:-1]
    return {name: float(np.abs(error).max()) for name, error in errors.items()}


def _numpy(tensor: Tensor) -> Floats:
    out: Floats = tensor.detach().cpu().to(torch.float64).numpy().copy()
    return out
