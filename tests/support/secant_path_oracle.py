"""Every path of a tiny Llama under `secant` by hand: the rule's formulas as they stand in the books, in plain numpy, one row at a time."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.support.attribution_oracle import Array, apply, arrays, heads_of, llama, rope, softmax
from tests.support.path_oracle import PathOracle


def secant_row(scores: Array, g: Array) -> tuple[Array, Array]:
    """Give W and ds of one row of n scores for g_j = < gz, v_j >."""
    n = len(scores)
    a, u = softmax(scores), np.full(n, 1 / n)
    d = np.log(a / u)
    slope = np.where(np.abs(d) < 1e-9, u, (a - u) / np.where(d == 0, 1, d))
    centre = (slope * g).sum() / slope.sum()
    tau = 1 - 1 / (n * (a**2).sum())
    gain = a @ scores - u @ scores
    ds = slope * (g - centre) / 2
    if n > 1:
        ds = ds + tau * (u @ g) * (a - u) / gain / 2
    return a / 2 + (1 - tau) * u / 2, ds


class SecantPathOracle(PathOracle):
    """All paths of a Llama, through values, keys, queries, and both branches of its MLPs."""

    def __init__(self, model: Any, ids: list[int]) -> None:
        super().__init__(llama(model, ids))
        p, config = arrays(model), model.config
        self.heads, self.groups, self.width = config.num_attention_heads, config.num_key_value_heads, config.head_dim
        theta = config.rope_parameters["rope_theta"]
        units = np.repeat(np.eye(self.width)[:, None], len(ids), 1)
        self.turns = rope(units, theta).transpose(1, 0, 2)  # [T, D, D]: a row y at t becomes y @ turns[t]
        self.projections = []
        for number, layer in enumerate(self.layers):
            at = f"model.layers.{number}."
            found: dict[str, Any] = {
                name: (p[f"{at}self_attn.{name}_proj.weight"].T, p[f"{at}self_attn.{name}_proj.bias"]) for name in "qk"
            }
            found["gate"] = p[f"{at}mlp.gate_proj.weight"].T, p[f"{at}mlp.gate_proj.bias"]
            n = apply(layer.norm_matrix, layer.entered, layer.norm_bias)
            found["query"] = rope(heads_of(n @ found["q"][0] + found["q"][1], self.heads), theta)
            found["key"] = rope(heads_of(n @ found["k"][0] + found["k"][1], self.groups), theta)
            self.projections.append(found)

    def _head(self, layer: int, h: int, i: int, g: Array, hops: tuple[str, ...]) -> None:
        part, facts, found = self.parts[layer], self.layers[layer], self.projections[layer]
        group, scale = h // (self.heads // self.groups), self.width**-0.5
        gz = part.output[h] @ g
        query, keys = found["query"][h, i], found["key"][group, : i + 1]
        value, ds = secant_row(scale * (keys @ query), (part.values[h, : i + 1] + part.value_bias[h]) @ gz)
        here = {channel: (f"L{layer}.h{h}:{channel}@{i}", *hops) for channel in "VKQ"}
        self._leaf(i, here["V"], float(value.sum() * (gz @ part.value_bias[h])))
        for j in range(i + 1):
            self._site(layer, False, j, value[j] * (facts.norm_matrix[j].T @ part.value[h] @ gz), here["V"])
            behind = self.turns[j] @ (ds[j] / 2 * scale * query)
            self._back(layer, "k", group, i, j, behind, here["K"])
        behind = self.turns[i] @ (ds / 2 * scale @ keys)
        self._back(layer, "q", h, i, i, behind, here["Q"])

    def _back(self, layer: int, name: str, head: int, i: int, j: int, behind: Array, hops: tuple[str, ...]) -> None:
        """Go from a gradient behind a head's rows of W_K or W_Q to the State at j."""
        weight, bias = self.projections[layer][name]
        mine = slice(head * self.width, (head + 1) * self.width)
        self._leaf(i, hops, float(behind @ bias[mine]))
        self._site(layer, False, j, self.layers[layer].norm_matrix[j].T @ weight[:, mine] @ behind, hops)

    def _mlp(self, layer: int, i: int, g: Array, hops: tuple[str, ...]) -> None:
        facts, (weight, bias) = self.layers[layer], self.projections[layer]["gate"]
        here = (f"L{layer}.mlp@{i}", *hops)
        u = facts.mlp_norm_matrix[i] @ facts.middle[i]
        before = u @ weight + bias
        up = facts.factor[i] * (facts.down @ g) / 2
        gate = facts.factor[i] / before * (u @ facts.up + facts.up_bias) * (facts.down @ g) / 2
        self._leaf(i, here, float(g @ facts.down_bias + up @ facts.up_bias + gate @ bias))
        self._site(layer, True, i, facts.mlp_norm_matrix[i].T @ (facts.up @ up + weight @ gate), here)
