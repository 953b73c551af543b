"""Compositions: the exact weight < write_A , gradient into reader B > of every writer A and reader B, summed over positions.

The residual stream is linear, so a reader's relevance is the sum over what was written before it. The gradient into a reader is
that of the one backward pass, before it is summed with the others':

    head's V input   G(j) = D_j' W_V' ( sum over i of a_ij gz_i )      [H, T, d] a layer
    MLP              G(i) = D_i' gu_i                                  gu: gradient at what the MLP reads
    output           G    = D' (explained direction)                   at the explained position alone

1. `ReaderGradients` is filled by the backward pass.
2. Positions are taken in chunks: the writes [A, N, d] and gradients [B, N, d] of a chunk meet in one product for each group of layers,
   over the writers that the group can see.
3. Biases are a writer of their own (`bias`): those in the residual stream and the reader's own. So the weights into a reader add up to
   its relevance (identity I13).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from tracestore.extract.attribution import Compositions, Floats, Flows
from tracestore.extract.capture import ReaderGradients
from tracestore.extract.frozen import Seeds
from tracestore.extract.writers import Writers

CHUNK_ROWS = 64
LAYER_GROUP = 10


def compositions(
    writers: Writers, gradients: ReaderGradients, seeds: Seeds, flows: Flows, explained: float, final_bias: float
) -> Compositions:
    """Give the weights of all writers into all readers for what `seeds` name.

    Readers are numbered like writers, less one: heads and MLP of each layer, then the output.
    """
    layers, heads = writers.layers, writers.heads
    x0 = writers.residual(0)
    length, readers = seeds.positions[-1] + 1, layers * (heads + 1)  # later positions have no gradient
    weight = x0.new_zeros(writers.count, readers + 1)
    bias = x0.new_zeros(readers + 1)
    chunk = min(CHUNK_ROWS, length)
    written_buffer, into_buffer = (x0.new_empty(count, chunk, x0.shape[-1]) for count in (writers.count, readers))
    for rows in torch.split(torch.arange(length, device=x0.device), chunk):
        whole = len(rows) == chunk
        written, biases = writers.written(rows, written_buffer if whole else None), writers.biases(rows)
        into = _into_readers(writers, gradients, rows, into_buffer if whole else x0.new_empty(readers, len(rows), x0.shape[-1]))
        for first, last in _groups(layers):
            _multiply(weight, written, into, writers, first, last)
        if biases is not None:
            for layer in range(layers):
                at = slice(layer * (heads + 1), layer * (heads + 1) + heads)
                bias[at] += torch.einsum("nd,hnd->h", biases[2 * layer], into[at])
                bias[at.stop] += (biases[2 * layer + 1] * into[at.stop]).sum()
    _output(writers, weight, bias, seeds)
    _hide_unseen(writers, weight)
    names = tuple(writers.name(writer) for writer in range(writers.count))
    return Compositions(
        writers=(*names, "bias"),
        readers=(*((name, "MLP" if name.endswith("mlp") else "V") for name in names[1:]), ("out", "OUT")),
        weight=np.concatenate([_numpy(weight), (_numpy(bias) + _own_biases(flows, final_bias))[None]]),
        relevance=_relevance(flows, explained),
    )


def _groups(layers: int) -> list[tuple[int, int]]:
    return [(first, min(first + LAYER_GROUP, layers)) for first in range(0, layers, LAYER_GROUP)]


def _multiply(weight: Tensor, written: Tensor, into: Tensor, writers: Writers, first: int, last: int) -> None:
    """Add the products of a chunk for the readers of layers `first` to `last`: what was written before them, then their own halves."""
    width = writers.heads + 1

    def add(start: int, stop: int, readers: slice) -> None:
        if stop > start:
            weight[start:stop, readers] += written[start:stop].flatten(1) @ into[readers].flatten(1).T

    seen = writers.seen(2 * first)
    add(0, seen, slice(first * width, last * width))
    middle = (first + last) // 2
    if middle > first:
        halfway = writers.seen(2 * middle)
        add(seen, halfway, slice(first * width, last * width))
        add(halfway, writers.seen(2 * last - 1), slice(middle * width, last * width))
    else:
        add(seen, writers.seen(2 * last - 1), slice(first * width, last * width))


def _into_readers(writers: Writers, gradients: ReaderGradients, rows: Tensor, out: Tensor) -> Tensor:
    """Put the gradients into heads' V inputs and MLPs at `rows` [N] into `out` [L (H + 1), N, d]."""
    heads = writers.heads
    for layer, wiring in enumerate(writers.wiring):
        first = layer * (heads + 1)
        some, value = out[first : first + heads], wiring.reading(out.dtype)
        dv = gradients.values[layer][:, rows]
        if wiring.attention_norm is not None:
            dv = dv * wiring.attention_norm.scale(writers.residual(2 * layer)[rows])
        torch.bmm(dv.reshape(value.shape[0], -1, value.shape[1]), value, out=some.view(value.shape[0], -1, some.shape[-1]))
        g = gradients.mlp[layer][rows]
        norm = wiring.mlp_norm
        out[first + heads] = g if norm is None else norm.transposed(g, norm.scale(writers.residual(2 * layer + 1)[rows]))
    return out


def _output(writers: Writers, weight: Tensor, bias: Tensor, seeds: Seeds) -> None:
    rows, site = torch.tensor(seeds.positions, device=weight.device), 2 * writers.layers
    g = writers.into_output(rows, seeds.vectors)
    weight[:, -1] = writers.written(rows).flatten(1) @ g.flatten()
    biases = writers.biases(rows)
    if biases is not None:
        bias[-1] = (biases[site] * g).sum()


def _hide_unseen(writers: Writers, weight: Tensor) -> None:
    """Set to zero what a group's product gave for writers that a reader cannot see."""
    for layer in range(writers.layers):
        first = layer * (writers.heads + 1)
        weight[writers.seen(2 * layer) :, first : first + writers.heads] = 0.0
        weight[writers.seen(2 * layer + 1) :, first + writers.heads] = 0.0


def _own_biases(flows: Flows, final_bias: float) -> Floats:
    """Give what readers' own biases add, for each reader but the output; the output's last."""
    own = np.concatenate([flows.head_bias.sum(2), flows.mlp_bias.sum(1)[:, None]], 1).reshape(-1)
    return np.append(own, final_bias)


def _relevance(flows: Flows, explained: float) -> Floats:
    own = np.concatenate([flows.head_relevance.sum(2), flows.mlp_relevance.sum(1)[:, None]], 1).reshape(-1)
    return np.append(own, explained)


def _numpy(tensor: Tensor) -> Floats:
    out: Floats = tensor.cpu().to(torch.float64).numpy()
    return out
