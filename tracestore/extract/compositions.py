"""Compositions: the exact weight < write_A , gradient into reader B > of every writer A and reader B, summed over positions.

The residual stream is linear, so a reader's relevance is the sum over what was written before it. The gradient into a reader is
that of the one backward pass, before it is summed with the others':

    head's V input   G(j) = D_j' W_V' ( sum over i of a_ij gz_i )      [H, T, d] a layer; `secant`: W_ij for a_ij
    ... K input      G(j) = D_j' W_K' M_j' dk_j                        `secant` alone: dk, dq its gradients at keys and queries, M their
    ... Q input      G(i) = D_i' W_Q' M_i' dq_i                        positions and norms (`address_wiring`)
    MLP              G(i) = D_i' gu_i                                  gu: gradient at what the MLP reads
    output           G    = D' (explained direction)                   at the explained position alone

1. `ReaderGradients` is filled by the backward pass.
2. Positions are taken in chunks: the writes [A, N, d] and gradients [B, N, d] of a chunk meet in one product for each group of layers,
   over the writers that the group can see.
3. Biases are a writer of their own (`bias`): those in the residual stream and the reader's own. So the weights into a reader add up to
   its relevance (identity I13).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from tracestore.extract.attention import HeadGradients
from tracestore.extract.attribution import CHANNELS, Compositions, Floats, Flows
from tracestore.extract.capture import ReaderGradients
from tracestore.extract.frozen import Seeds
from tracestore.extract.writers import CHUNK_ROWS, Writers

LAYER_GROUP = 10


def compositions(
    writers: Writers, gradients: ReaderGradients, seeds: Seeds, flows: Flows, explained: float, final_bias: float
) -> Compositions:
    """Give the weights of all writers into all readers for what `seeds` name.

    Readers are numbered by layer: the heads' V inputs (then K, then Q), the MLP; then the output.
    """
    layers, heads = writers.layers, writers.heads
    channels = 1 + bool(gradients.heads.key) + bool(gradients.heads.query)
    x0 = writers.residual(0)
    length, width = seeds.positions[-1] + 1, channels * heads + 1  # later positions have no gradient
    readers = layers * width
    weight = x0.new_zeros(writers.count, readers + 1)
    bias = x0.new_zeros(readers + 1)
    chunk = min(CHUNK_ROWS, writers.length)
    written_buffer, into_buffer = (x0.new_empty(count, chunk, x0.shape[-1]) for count in (writers.count, readers))
    for number in range(-(-length // chunk)):
        written, biases = writers.chunk(number, written_buffer)
        rows = torch.arange(number * chunk, number * chunk + written.shape[1], device=x0.device)
        into = _into_readers(
            writers, gradients, rows, into_buffer if len(rows) == chunk else x0.new_empty(readers, len(rows), x0.shape[-1])
        )
        for first, last in _groups(layers):
            _multiply(weight, written, into, writers, first, last, width)
        if biases is not None:
            for layer in range(layers):
                at = slice(layer * width, (layer + 1) * width - 1)
                bias[at] += torch.einsum("nd,hnd->h", biases[2 * layer], into[at])
                bias[at.stop] += (biases[2 * layer + 1] * into[at.stop]).sum()
    _output(writers, weight, bias, seeds)
    _hide_unseen(writers, weight, width)
    own = _own_biases(writers, gradients.heads, flows)
    names = tuple(writers.name(writer) for writer in range(writers.count))
    return Compositions(
        writers=(*names, "bias"),
        readers=tuple(_readers(writers, channels)),
        weight=np.concatenate([_numpy(weight), (_numpy(bias) + np.append(own, final_bias))[None]]),
        relevance=np.append(_read(flows, channels) + own, explained),
    )


def _readers(writers: Writers, channels: int) -> Iterator[tuple[str, str]]:
    for layer in range(writers.layers):
        for via in CHANNELS[:channels]:
            yield from ((writers.name(writers.head(layer, head)), via) for head in range(writers.heads))
        yield writers.name(writers.mlp(layer)), "MLP"
    yield "out", "OUT"


def _groups(layers: int) -> list[tuple[int, int]]:
    return [(first, min(first + LAYER_GROUP, layers)) for first in range(0, layers, LAYER_GROUP)]


def _multiply(weight: Tensor, written: Tensor, into: Tensor, writers: Writers, first: int, last: int, width: int) -> None:
    """Add the products of a chunk for the readers of layers `first` to `last`, `width` each: what was written before them, then their own
    halves."""

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
    """Put the gradients into the heads' inputs and MLPs at `rows` [N] into `out` [readers, N, d]."""
    heads, found = writers.heads, gradients.heads
    width = len(out) // writers.layers
    for layer, wiring in enumerate(writers.wiring):
        given = [(found.value[layer][:, rows], wiring.reading(out.dtype))]
        if width > heads + 1:
            where = torch.arange(heads, device=rows.device)[:, None], rows[None]
            query_turn, key_turn = writers.capture.turns[layer]
            shared = heads // len(key_turn.reading.weight)
            dk = key_turn.back(found.key[layer][:, rows], writers.batch, where[0] // shared, where[1])
            dq = query_turn.back(found.query[layer][:, rows], writers.batch, *where)
            given += [(dk, key_turn.reading.reading(out.dtype)), (dq, query_turn.reading.reading(out.dtype))]
        scale = None
        if wiring.attention_norm is not None:
            scale = wiring.attention_norm.scale(writers.residual(2 * layer)[rows])
        for channel, (g, matrices) in enumerate(given):
            first = layer * width + channel * heads
            some = out[first : first + heads].view(len(matrices), -1, out.shape[-1])
            torch.bmm((g if scale is None else g * scale).reshape(len(matrices), -1, matrices.shape[1]), matrices, out=some)
        g, norm = gradients.mlp[layer][rows], wiring.mlp_norm
        last = (layer + 1) * width - 1
        out[last] = g if norm is None else norm.transposed(g, norm.scale(writers.residual(2 * layer + 1)[rows]))
    return out


def _output(writers: Writers, weight: Tensor, bias: Tensor, seeds: Seeds) -> None:
    rows, site = torch.tensor(seeds.positions, device=weight.device), 2 * writers.layers
    g = writers.into_output(rows, seeds.vectors)
    weight[:, -1] = writers.written(rows).flatten(1) @ g.flatten()
    biases = writers.biases(rows)
    if biases is not None:
        bias[-1] = (biases[site] * g).sum()


def _hide_unseen(writers: Writers, weight: Tensor, width: int) -> None:
    """Set to zero what a group's product gave for writers that a reader cannot see."""
    for layer in range(writers.layers):
        first, last = layer * width, (layer + 1) * width - 1
        weight[writers.seen(2 * layer) :, first:last] = 0.0
        weight[writers.seen(2 * layer + 1) :, last] = 0.0


def _own_biases(writers: Writers, gradients: HeadGradients, flows: Flows) -> Floats:
    """Give what readers' own biases add, for each reader but the output. Of a head's, those that are neither of its values nor of its
    queries count for its keys: biases of keys, terms added to the scores, sinks."""
    whole, state = flows.head_bias.sum(2), writers.capture.state
    parts = [whole]
    if gradients.key:
        value, query = np.zeros_like(whole), np.zeros_like(whole)
        for layer, shift in state.value_bias.items():
            dv = gradients.value[layer]
            value[layer] = _numpy((dv.sum(1) * shift.to(dv.dtype).repeat_interleave(len(dv) // len(shift), 0)).sum(-1))
        for layer, address in state.address_bias.items():
            query[layer] = _numpy((gradients.query[layer] * address.query[writers.batch]).sum((1, 2)))
        parts = [value, whole - value - query, query]
    return np.concatenate([*parts, flows.mlp_bias.sum(1)[:, None]], 1).reshape(-1)


def _read(flows: Flows, channels: int) -> Floats:
    """Give what each reader but the output reads, without its own biases: its edges' sums."""
    edges = [flows.value_in.sum(2), flows.key_in.sum(2), flows.query.sum(2)][:channels]
    return np.concatenate([*edges, flows.reads.sum(1)[:, None]], 1).reshape(-1)


def _numpy(tensor: Tensor) -> Floats:
    out: Floats = tensor.cpu().to(torch.float64).numpy()
    return out
