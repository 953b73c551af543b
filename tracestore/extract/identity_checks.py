"""The identities that need vectors: each gives one relative error on one kept forward pass (`Attributor.run(..., keep=True)`).

They are checked in directions: for a random (or the real) vector r, <r, left side> = <r, right side>, with the parts of the right side
taken where they were written and their biases counted on their own.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tracestore.extract.attention import KeptAttention, probabilities
from tracestore.extract.attribute import ForwardPass
from tracestore.extract.capture import Capture, NodeSums


def pull(capture: Capture, output: Tensor, inputs: list[Tensor], seed: Tensor) -> tuple[list[Tensor], NodeSums]:
    """Run `seed` back from `output` to `inputs`; give their gradients and the bias contributions met on the way."""
    x0 = capture.pre[0].detach()
    sums = capture.sums = NodeSums.zeros(len(capture.layout.blocks), x0.shape[1], x0)
    try:
        found = torch.autograd.grad(output, inputs, seed, retain_graph=True, allow_unused=True)
    finally:
        capture.sums = None
    return [torch.zeros_like(x) if g is None else g for g, x in zip(found, inputs, strict=True)], sums


def pattern_of(kept: KeptAttention) -> Tensor:
    """Recompute the probabilities [H, T, J] of the first batch row."""
    rows = torch.arange(kept.query.shape[2], device=kept.query.device)
    with torch.no_grad():
        return probabilities(kept.pattern, kept.query[0], kept.key[0], rows, 0)


def row_sums(run: ForwardPass) -> float:
    """I1: rows of the pattern sum to 1 (at most 1 where there is a sink)."""
    worst = 0.0
    for kept in run.capture.state.kept.values():
        gap = pattern_of(kept).sum(-1) - 1
        gap = gap.clamp_min(0) if kept.pattern.sinks is not None else gap.abs()
        worst = max(worst, float(gap.max()))
    return worst


def attention_output(run: ForwardPass) -> float:
    """I2: the decomposed vectors over heads and keys, and the output bias, add up to the attention module's output."""
    capture, worst = run.capture, 0.0
    for layer, kept in capture.state.kept.items():
        out = capture.attended[layer]
        seed = _random_like(out, layer)
        (gz,), sums = pull(capture, out, [kept.out], seed)
        groups = kept.value.shape[1]
        a = pattern_of(kept)
        grouped = a.view(groups, -1, *a.shape[1:])
        z = torch.einsum("grij,gjd->igrd", grouped, kept.value[0, :, : a.shape[-1]].detach()).reshape(kept.out[0].shape)
        right = float((gz[0] * z).sum()) + float(sums.mid_bias.sum() + sums.pre_bias.sum())
        worst = max(worst, _relative(float((seed * out.detach()).sum()), right, seed, out))
    return worst


def written(run: ForwardPass, layer: int, seed: Tensor) -> tuple[float, float]:
    """Give < seed, x(l+1) > and the same through its parts: residual, heads, MLP and biases. `seed` [1, T, d]."""
    capture = run.capture
    after, mlps, kept = capture.pre[layer + 1], capture.written[layer], capture.state.kept[layer]
    grads, sums = pull(capture, after, [*mlps, kept.out], seed)
    mlp = sum(float((g * m.detach()).sum()) for g, m in zip(grads, mlps, strict=False))
    left, bias = float((seed * after.detach()).sum()), float(sums.pre_bias[layer + 1].sum())
    gz = grads[-1]
    if layer in capture.mid:
        (gz,), sums = pull(capture, capture.mid[layer], [kept.out], seed)
        bias += float(sums.mid_bias[layer].sum())
    heads = float((gz * kept.out.detach()).sum())
    return left, float((seed * capture.pre[layer].detach()).sum()) + mlp + heads + bias


def residual_stream(run: ForwardPass) -> float:
    """I3: x(l+1) = x(l) + written attention + written MLP."""
    worst = 0.0
    for layer in range(len(run.capture.layout.blocks)):
        after = run.capture.pre[layer + 1]
        seed = _random_like(after, layer)
        left, right = written(run, layer, seed)
        worst = max(worst, _relative(left, right, seed, after))
    return worst


def norm_split(run: ForwardPass) -> float:
    """I4: a frozen norm of a residual stream cut in two is the sum of the two halves' (and its bias)."""
    capture, worst = run.capture, 0.0
    for layer, block in enumerate(capture.layout.blocks):
        form = capture.norms.get(block.attention_norm) if block.attention_norm is not None else None
        if form is None:
            continue
        x = capture.pre[layer].detach().clone().requires_grad_(True)
        y = form(x)
        seed = _random_like(y, layer)
        (g,) = torch.autograd.grad(y, x, seed)
        part = _random_like(x, layer + 100)
        halves = float((g * part).sum()) + float((g * (x.detach() - part)).sum())
        shift = 0.0 if form.bias is None else float((seed * form.bias.to(seed.dtype)).sum())
        worst = max(worst, _relative(float((seed * y.detach()).sum()), halves + shift, seed, y))
    return worst


def direct_logit_attribution(run: ForwardPass, pos: int, vector: Tensor, bias: float, explained: float) -> float:
    """I5: the embedding and everything that was written, read by the final gradient, add up to the explained logit (absolute error)."""
    capture = run.capture
    assert capture.final is not None
    seed_out = torch.zeros_like(capture.final)
    seed_out[0, pos] = vector
    (seed,), _ = pull(capture, capture.final, [capture.pre[-1]], seed_out)
    form = capture.norms[capture.layout.final_norm]
    total = float((seed * capture.pre[0].detach()).sum()) + bias
    total += 0.0 if form.bias is None else float(torch.dot(form.bias.to(vector.dtype), vector))
    for layer in range(len(capture.layout.blocks)):
        _, right = written(run, layer, seed)
        total += right - float((seed * capture.pre[layer].detach()).sum())
    return abs(total - explained)


def naive_edges(run: ForwardPass, layer: int, pos: int, vector: Tensor) -> Tensor:
    """I7's left side: edges [H, T, T] of a layer from explicit vectors: < g_i, W_O^h a_ij W_V D_j x_j >, for few tokens."""
    capture = run.capture
    assert capture.final is not None
    out, kept, entered = capture.attended[layer], capture.state.kept[layer], capture.pre[layer]
    seed = torch.zeros_like(capture.final)
    seed[0, pos] = vector
    (g,), _ = pull(capture, capture.final, [out], seed)
    projection = []  # rows of W_O at every position: [d, T, H, D]
    for coordinate in range(out.shape[-1]):
        unit = torch.zeros_like(out)
        unit[..., coordinate] = 1
        (row,), _ = pull(capture, out, [kept.out], unit)
        projection.append(row[0])
    output_matrix = torch.stack(projection)
    groups, width = kept.value.shape[1], kept.value.shape[3]
    linear = torch.zeros_like(kept.value[0])  # W_V D_j x_j [Hkv, T, D]
    for group in range(groups):
        for coordinate in range(width):
            unit = torch.zeros_like(kept.value)
            unit[:, group, :, coordinate] = 1
            (row,), _ = pull(capture, kept.value, [entered], unit)
            linear[group, :, coordinate] = (row[0] * entered[0].detach()).sum(-1)
    a = pattern_of(kept)
    heads, length, seen = a.shape
    edges = torch.zeros(heads, length, length, dtype=a.dtype, device=a.device)
    for h in range(heads):
        for i in range(length):
            for j in range(seen):
                vector_edge = output_matrix[:, i, h] @ (a[h, i, j] * linear[h // (heads // groups), j])
                edges[h, i, j] = torch.dot(g[0, i], vector_edge)
    return edges


def _random_like(x: Tensor, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(x.shape, generator=generator, dtype=x.dtype).to(x.device)


def _relative(left: float, right: float, seed: Tensor, x: Tensor) -> float:
    return abs(left - right) / max(float((seed * x.detach()).abs().sum()), 1e-30)
