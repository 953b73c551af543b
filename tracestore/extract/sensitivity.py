"""First-order estimates of single edges by the plain gradient: what knocking an edge out would take away, to first order.

Nothing is held fixed here: norms, activations and softmax have their true derivatives. The numbers neither add up nor explain, but for the
removal of one edge they are the best cheap prediction, so they serve to choose what to try on the model.

1. One more forward pass of the model with its own non-linearities, every layer's queries, keys, values and head outputs kept.
2. Per target one backward pass from the explained quantity to the head outputs: gz.
3. Per stored edge, amount times derivative, in the sign of a contribution:

    VALUE  a_ij < gz_i, v_j >                                         v_j without its bias, as in the edge's weight
    KEY    a_ij (< gz_i, v_j > - < gz_i, z_i >) cap'(r_ij) t_ij       t_ij the part of the score that State j makes through its key
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from tracestore.extract.attention import AttentionState, KeptAttention, Pattern, attend
from tracestore.extract.attribution import KEY, VALUE, AttentionEdges, Floats
from tracestore.extract.scores import tile_scores
from tracestore.extract.secant_attention import TILE_ROWS

if TYPE_CHECKING:
    from tracestore.extract.capture import Capture


def attend_plainly(query: Tensor, key: Tensor, value: Tensor, pattern: Pattern, _layer: int, _state: AttentionState) -> Tensor:
    """Attend with the true gradient: output [B, T, H, D]; where torch's kernels cannot, in tiles that are computed again in backward."""
    if pattern.plain:
        return attend(pattern, query, key, value)
    length = query.shape[2]
    rows = torch.split(torch.arange(length, device=query.device), TILE_ROWS)
    out = [
        torch.cat([checkpoint(_tile, pattern, query[b][:, at], key[b], value[b], at, b, use_reentrant=False) for at in rows])
        for b in range(query.shape[0])
    ]
    return torch.stack(out)


def _tile(pattern: Pattern, query: Tensor, key: Tensor, value: Tensor, rows: Tensor, batch: int) -> Tensor:
    a = tile_scores(pattern, query, key, rows, batch).attention()
    groups = key.shape[0]
    z = torch.matmul(a.reshape(groups, -1, a.shape[-1]), value[:, : a.shape[-1]])
    return z.view(*query.shape[:2], -1).transpose(0, 1)


def edge_sensitivity(
    plain: Capture, explained: Capture, positions: tuple[int, ...], vectors: Tensor, edges: AttentionEdges, batch: int, *, retain: bool
) -> Floats:
    """Give the sensitivity [K] of each of `edges`, NaN for QUERY edges.

    `plain` is the pass with true derivatives, `explained` the pass that the edges come from; `vectors` [n, d] at `positions` name what is
    explained.
    """
    assert plain.final is not None
    layers = range(len(plain.layout.blocks))
    outputs = [plain.state.kept[layer].out for layer in layers]
    rows = plain.final[batch, list(positions)]
    found = torch.autograd.grad(rows, outputs, grad_outputs=vectors.to(rows.dtype), retain_graph=retain, allow_unused=True)
    out = np.full(len(edges), np.nan)
    for layer, gradient in zip(layers, found, strict=True):
        at = np.flatnonzero((edges.layer == layer) & ((edges.kind == VALUE) | (edges.kind == KEY)))
        if gradient is None or not len(at):
            out[at] = 0.0
            continue
        with torch.no_grad():
            out[at] = _of_layer(plain.state.kept[layer], explained.state, layer, gradient[batch], edges.take(at), batch)
    return out


def _of_layer(kept: KeptAttention, state: AttentionState, layer: int, gz: Tensor, edges: AttentionEdges, batch: int) -> Floats:
    """Work the edges of one layer; `gz` [T, H, D]."""
    device = gz.device
    head, query, key = (torch.from_numpy(column).to(device) for column in (edges.head, edges.query, edges.key))
    group = head // (kept.query.shape[1] // kept.key.shape[1])
    a = torch.from_numpy(edges.attention).to(gz)
    g, v = gz[query, head], kept.value[batch][group, key]
    along = (g * v).sum(-1)
    bias = state.value_bias.get(layer)
    value = a * (along if bias is None else along - (g * bias.to(g.dtype)[group]).sum(-1))
    if not bool((edges.kind == KEY).any()):
        return _numpy(value)
    q, k = kept.query[batch][head, query], kept.key[batch][group, key]
    address = state.address_bias.get(layer)
    part = k if address is None else k - address.key[batch][group, key]
    slope = a * (along - (g * kept.out[batch][query, head]).sum(-1))
    if kept.pattern.softcap is not None:
        slope = slope * (1 - torch.tanh((q * k).sum(-1) * kept.pattern.scaling / kept.pattern.softcap).square())
    keys = slope * (q * part).sum(-1) * kept.pattern.scaling
    return np.where(edges.kind == KEY, _numpy(keys), _numpy(value))


def _numpy(tensor: Tensor) -> Floats:
    out: Floats = tensor.cpu().to(torch.float64).numpy()
    return out
