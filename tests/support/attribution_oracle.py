"""A second implementation of `frozen`, in plain numpy float64 loops over layers, with every derivative written out by hand.

It shares nothing with the library: forward, backward, edges and biases of a Llama block (RMSNorm, RoPE, grouped heads, gated MLP, biases)
and of a GPT-2 block (LayerNorm, learned positions, plain MLP).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Expected:
    """Explained quantity, scores [T], edges [L, H, T, T] (query, key), bias, and relevances of heads [L, H, T] and MLPs [L, T]."""

    explained: float
    scores: Array
    edges: Array
    bias: float
    heads: Array
    mlps: Array


@dataclass(frozen=True, slots=True)
class Layer:
    """What a layer did: matrices [in, out], vectors, and the frozen factors."""

    norm_matrix: list[Array]  # D_j [d, d] of the attention norm at each position: N(x) = D x + b
    norm_bias: Array
    value: Array  # [d, Hkv * D]
    value_bias: Array
    output: Array  # [H * D, d]
    output_bias: Array
    pattern: Array  # [H, T, T]
    middle: Array  # [T, d]
    mlp_norm_matrix: list[Array]
    mlp_norm_bias: Array
    up: Array  # [d, m]
    up_bias: Array
    factor: Array  # [T, m] what the up branch is multiplied by: the gate, or phi(s)/s
    down: Array  # [m, d]
    down_bias: Array
    entered: Array  # [T, d]


def arrays(model: Any) -> dict[str, Array]:
    """Give a model's parameters by name, float64."""
    return {name: value.detach().double().numpy() for name, value in model.state_dict().items()}


def softmax(scores: Array) -> Array:
    """Normalise the last axis."""
    e = np.exp(scores - scores.max(-1, keepdims=True))
    return np.asarray(e / e.sum(-1, keepdims=True))


def causal_pattern(q: Array, k: Array) -> Array:
    """Attention probabilities [H, T, T] of q, k [H, T, D]."""
    length = q.shape[1]
    scores = np.einsum("hid,hjd->hij", q, k) / np.sqrt(q.shape[2])
    return softmax(np.where(np.tril(np.ones((length, length), dtype=bool)), scores, -np.inf))


def rope(x: Array, theta: float) -> Array:
    """Rotate x [H, T, D] by position, halves paired."""
    width = x.shape[2]
    angle = np.arange(x.shape[1])[:, None] / theta ** (np.arange(0, width, 2) / width)
    cos, sin = np.cos(np.concatenate([angle, angle], 1)), np.sin(np.concatenate([angle, angle], 1))
    half = width // 2
    return np.asarray(x * cos + np.concatenate([-x[..., half:], x[..., :half]], -1) * sin)


def rms(x: Array, weight: Array, eps: float) -> list[Array]:
    """The frozen RMSNorm matrices of the rows of x [T, d]."""
    return [np.diag(weight / np.sqrt((row**2).mean() + eps)) for row in x]


def layer_norm(x: Array, weight: Array, eps: float) -> list[Array]:
    """The frozen LayerNorm matrices of the rows of x [T, d]."""
    d = x.shape[1]
    centre = np.eye(d) - np.ones((d, d)) / d
    return [np.diag(weight / np.sqrt(row.var() + eps)) @ centre for row in x]


def apply(matrices: list[Array], x: Array, bias: Array) -> Array:
    """Apply one matrix per row."""
    return np.asarray(np.stack([m @ row for m, row in zip(matrices, x, strict=True)]) + bias)


def heads_of(x: Array, heads: int) -> Array:
    """Cut [T, H * D] into [H, T, D]."""
    return x.reshape(x.shape[0], heads, -1).transpose(1, 0, 2)


def llama(model: Any, ids: list[int]) -> tuple[list[Layer], Array, list[Array], Array, Array]:
    """Run a Llama; give its layers, x_L, the final norm's matrices and bias, and the unembedding [V, d]."""
    p, config = arrays(model), model.config
    heads, groups, eps = config.num_attention_heads, config.num_key_value_heads, config.rms_norm_eps
    x, d = p["model.embed_tokens.weight"][ids], config.hidden_size
    layers = []
    for number in range(config.num_hidden_layers):
        at = f"model.layers.{number}."
        w = {name: p[f"{at}self_attn.{name}_proj.weight"].T for name in "qkvo"}
        b = {name: p[f"{at}self_attn.{name}_proj.bias"] for name in "qkvo"}
        first = rms(x, p[at + "input_layernorm.weight"], eps)
        n = apply(first, x, np.zeros(d))
        theta = config.rope_parameters["rope_theta"]
        q, k = rope(heads_of(n @ w["q"] + b["q"], heads), theta), rope(heads_of(n @ w["k"] + b["k"], groups), theta)
        a = causal_pattern(q, np.repeat(k, heads // groups, 0))
        v = np.repeat(heads_of(n @ w["v"] + b["v"], groups), heads // groups, 0)
        z = np.einsum("hij,hjd->ihd", a, v).reshape(len(ids), -1)
        middle = x + z @ w["o"] + b["o"]
        second = rms(middle, p[at + "post_attention_layernorm.weight"], eps)
        u = apply(second, middle, np.zeros(d))
        m = {name: (p[f"{at}mlp.{name}_proj.weight"].T, p[f"{at}mlp.{name}_proj.bias"]) for name in ("gate", "up", "down")}
        gate = u @ m["gate"][0] + m["gate"][1]
        factor = gate / (1 + np.exp(-gate))
        written = (factor * (u @ m["up"][0] + m["up"][1])) @ m["down"][0] + m["down"][1]
        zero = np.zeros(d)
        layers.append(Layer(first, zero, w["v"], b["v"], w["o"], b["o"], a, middle, second, zero, *m["up"], factor, *m["down"], x))
        x = middle + written
    return layers, x, rms(x, p["model.norm.weight"], eps), np.zeros(d), p["lm_head.weight"]


def gpt2(model: Any, ids: list[int]) -> tuple[list[Layer], Array, list[Array], Array, Array]:
    """Run a GPT-2; the same as `llama` gives."""
    p, config = arrays(model), model.config
    heads, eps, d = config.n_head, config.layer_norm_epsilon, config.n_embd
    x = p["transformer.wte.weight"][ids] + p["transformer.wpe.weight"][: len(ids)]
    layers = []
    for number in range(config.n_layer):
        at = f"transformer.h.{number}."
        first, first_bias = layer_norm(x, p[at + "ln_1.weight"], eps), p[at + "ln_1.bias"]
        n = apply(first, x, first_bias)
        fused, fused_bias = p[at + "attn.c_attn.weight"], p[at + "attn.c_attn.bias"]
        q, k, v = (heads_of(part, heads) for part in np.split(n @ fused + fused_bias, 3, axis=1))
        a = causal_pattern(q, k)
        z = np.einsum("hij,hjd->ihd", a, v).reshape(len(ids), -1)
        output, output_bias = p[at + "attn.c_proj.weight"], p[at + "attn.c_proj.bias"]
        middle = x + z @ output + output_bias
        second, second_bias = layer_norm(middle, p[at + "ln_2.weight"], eps), p[at + "ln_2.bias"]
        up, up_bias = p[at + "mlp.c_fc.weight"], p[at + "mlp.c_fc.bias"]
        s = apply(second, middle, second_bias) @ up + up_bias
        activated = 0.5 * s * (1 + np.tanh(np.sqrt(2 / np.pi) * (s + 0.044715 * s**3)))
        down, down_bias = p[at + "mlp.c_proj.weight"], p[at + "mlp.c_proj.bias"]
        layers.append(
            Layer(
                *(first, first_bias, fused[:, 2 * d :], fused_bias[2 * d :], output, output_bias, a, middle, second, second_bias),
                *(up, up_bias, activated / s, down, down_bias, x),
            )
        )
        x = middle + activated @ down + down_bias
    final = layer_norm(x, p["transformer.ln_f.weight"], eps)
    return layers, x, final, p["transformer.ln_f.bias"], p["lm_head.weight"]


def attribute(parts: tuple[list[Layer], Array, list[Array], Array, Array], pos: int, token: int, foil: int | None) -> Expected:
    """Decompose the centred logit (or token minus foil) at `pos` by hand."""
    layers, last, final, final_bias, unembedding = parts
    vector = unembedding[token] - (unembedding.mean(0) if foil is None else unembedding[foil])
    explained = float(vector @ (final[pos] @ last[pos] + final_bias))
    length, count = len(last), len(layers)
    n_heads = layers[0].pattern.shape[0]
    edges, heads, mlps = np.zeros((count, n_heads, length, length)), np.zeros((count, n_heads, length)), np.zeros((count, length))
    bias = float(vector @ final_bias)
    g = np.zeros_like(last)
    g[pos] = final[pos].T @ vector
    for number in range(count - 1, -1, -1):
        layer = layers[number]
        u = apply(layer.mlp_norm_matrix, layer.middle, layer.mlp_norm_bias)
        written = (layer.factor * (u @ layer.up + layer.up_bias)) @ layer.down + layer.down_bias
        mlps[number] = (g * written).sum(1)
        gate = layer.factor * (g @ layer.down.T)
        gu = gate @ layer.up.T
        bias += float((g @ layer.down_bias).sum() + (gate @ layer.up_bias).sum() + (gu @ layer.mlp_norm_bias).sum())
        g = g + np.stack([m.T @ row for m, row in zip(layer.mlp_norm_matrix, gu, strict=True)])
        bias += float((g @ layer.output_bias).sum())
        gz = heads_of(g @ layer.output.T, n_heads)  # [H, T, D]
        groups = layer.value.shape[1] // gz.shape[2]
        linear = np.stack([layer.norm_matrix[j] @ layer.entered[j] for j in range(length)]) @ layer.value
        shift = layer.norm_bias @ layer.value + layer.value_bias
        v = np.repeat(heads_of(linear, groups), n_heads // groups, 0)
        vb = np.repeat(shift.reshape(groups, -1), n_heads // groups, 0)
        edges[number] = layer.pattern * np.einsum("hid,hjd->hij", gz, v)
        from_bias = np.einsum("hij,hid,hd->hi", layer.pattern, gz, vb)
        bias += float(from_bias.sum())
        heads[number] = edges[number].sum(2) + from_bias
        dv = np.einsum("hij,hid->hjd", layer.pattern, gz).reshape(groups, n_heads // groups, length, -1).sum(1)
        back = dv.transpose(1, 0, 2).reshape(length, -1) @ layer.value.T
        g = g + np.stack([m.T @ row for m, row in zip(layer.norm_matrix, back, strict=True)])
    scores = (g * layers[0].entered).sum(1)
    return Expected(explained, scores, edges, bias, heads, mlps)
