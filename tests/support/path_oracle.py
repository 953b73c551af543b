"""Every path and every composition of a tiny model by hand: plain numpy loops over the parts that `attribution_oracle` took out of it.

Heads write z_h W_O^h, with values that hold their biases; the output projection's bias is a writer of its own ("bias").
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from tests.support.attribution_oracle import Array, Layer, apply, heads_of


@dataclass(frozen=True, slots=True)
class Written:
    """One layer: what its heads [H, T, d] and its MLP [T, d] write, linear values and their bias part [H, T, D], [H, D], W_O [H, D, d]."""

    heads: Array
    mlp: Array
    values: Array
    value_bias: Array
    output: Array
    value: Array  # W_V of every query head [H, d, D]


class PathOracle:
    """All paths of a model whose parts are `parts` (from `attribution_oracle.llama` or `.gpt2`)."""

    def __init__(self, parts: tuple[list[Layer], Array, list[Array], Array, Array]) -> None:
        self.layers, self.last, self.final, self.final_bias, self.unembedding = parts
        self.parts = [_written(layer) for layer in self.layers]
        self.found: dict[tuple[str, ...], float] = defaultdict(float)
        self.compositions: dict[tuple[str, str], float] = defaultdict(float)

    def walk(self, pos: int, token: int, foil: int | None) -> dict[tuple[str, ...], float]:
        """Follow every path from the output at `pos` back to embeddings and biases: hops, source first, and weight."""
        vector = self.unembedding[token] - (self.unembedding.mean(0) if foil is None else self.unembedding[foil])
        self._leaf(pos, (f"out@{pos}",), float(vector @ self.final_bias))
        self._site(len(self.layers), False, pos, self.final[pos].T @ vector, (f"out@{pos}",))
        return dict(self.found)

    def _leaf(self, pos: int, hops: tuple[str, ...], weight: float) -> None:
        self.found[(f"bias@{pos}", *hops)] += weight

    def _site(self, layer: int, middle: bool, i: int, g: Array, hops: tuple[str, ...]) -> None:
        """Go from gradient g at pre(layer), or at mid(layer), to every writer below."""
        self.found[(f"emb@{i}", *hops)] += float(g @ self.layers[0].entered[i])
        for below in range(layer + middle):
            self._leaf(i, hops, float(g @ self.layers[below].output_bias))
            for h in range(len(self.parts[below].heads)):
                self._head(below, h, i, g, hops)
            if below < layer:
                self._mlp(below, i, g, hops)

    def _head(self, layer: int, h: int, i: int, g: Array, hops: tuple[str, ...]) -> None:
        part, facts = self.parts[layer], self.layers[layer]
        gz = part.output[h] @ g
        here = (f"L{layer}.h{h}:V@{i}", *hops)
        self._leaf(i, here, float(facts.pattern[h, i].sum() * (gz @ part.value_bias[h])))
        for j in range(i + 1):
            self._site(layer, False, j, facts.pattern[h, i, j] * (facts.norm_matrix[j].T @ part.value[h] @ gz), here)

    def _mlp(self, layer: int, i: int, g: Array, hops: tuple[str, ...]) -> None:
        facts = self.layers[layer]
        here = (f"L{layer}.mlp@{i}", *hops)
        gate = facts.factor[i] * (facts.down @ g)
        gu = facts.up @ gate
        self._leaf(i, here, float(g @ facts.down_bias + gate @ facts.up_bias + gu @ facts.mlp_norm_bias))
        self._site(layer, True, i, facts.mlp_norm_matrix[i].T @ gu, here)


def _written(layer: Layer) -> Written:
    n_heads = layer.pattern.shape[0]
    length = len(layer.entered)
    linear = np.stack([layer.norm_matrix[j] @ layer.entered[j] for j in range(length)]) @ layer.value
    shift = layer.norm_bias @ layer.value + layer.value_bias
    width = layer.output.shape[0] // n_heads
    groups = layer.value.shape[1] // width
    values = np.repeat(heads_of(linear, groups), n_heads // groups, 0)
    bias = np.repeat(shift.reshape(groups, -1), n_heads // groups, 0)
    matrix = np.repeat(layer.value.reshape(-1, groups, width).transpose(1, 0, 2), n_heads // groups, 0)
    output = layer.output.reshape(n_heads, width, -1)
    z = np.einsum("hij,hjd->hid", layer.pattern, values + bias[:, None])
    u = apply(layer.mlp_norm_matrix, layer.middle, layer.mlp_norm_bias)
    mlp = (layer.factor * (u @ layer.up + layer.up_bias)) @ layer.down + layer.down_bias
    return Written(np.einsum("hid,hde->hie", z, output), mlp, values, bias, output, matrix)


def compose(paths: dict[tuple[str, ...], float]) -> dict[tuple[str, str], float]:
    """Add up paths by each pair of neighbours in them: what a writer contributes through a reader."""
    found: dict[tuple[str, str], float] = defaultdict(float)
    for hops, weight in paths.items():
        names = [hop.split("@")[0] for hop in hops]
        for writer, reader in pairwise(names):
            found[writer.split(":")[0], reader] += weight
    return dict(found)
