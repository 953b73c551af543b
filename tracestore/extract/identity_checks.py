"""The identities that need vectors: each gives one relative error on one kept forward pass (`Attributor.run(..., keep=True)`).

They are checked in directions: for a random (or the real) vector r, <r, left side> = <r, right side>, with the parts of the right side
taken where they were written and their biases counted on their own.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from tracestore.extract.attention import KeptAttention, probabilities
from tracestore.extract.attribute import ForwardPass
from tracestore.extract.attribution import KEY, QUERY, VALUE
from tracestore.extract.capture import Capture, NodeSums
from tracestore.extract.scores import Scores, tile_scores
from tracestore.extract.secant import secant_row


def pull(capture: Capture, output: Tensor, inputs: list[Tensor], seed: Tensor) -> tuple[list[Tensor], NodeSums]:
    """Run `seed` back from `output` to `inputs`; give their gradients and the bias contributions met on the way."""
    x0 = capture.pre[0].detach()
    sums = capture.sums = NodeSums.zeros(len(capture.layout.blocks), x0.shape[1], x0)
    try:
        found = torch.autograd.grad(output, inputs, seed.reshape(output.shape), retain_graph=True, allow_unused=True)
    finally:
        capture.sums = None
    return [torch.zeros_like(x) if g is None else g for g, x in zip(found, inputs, strict=True)], sums


def pattern_of(kept: KeptAttention) -> Tensor:
    """Recompute the probabilities [H, T, J] of the first batch row."""
    rows = torch.arange(kept.query.shape[2], device=kept.query.device)
    with torch.no_grad():
        return probabilities(kept.pattern, kept.query[0].detach(), kept.key[0].detach(), rows, 0)


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


def naive_edges(run: ForwardPass, layer: int, pos: int, vector: Tensor) -> dict[int, Tensor]:
    """I7's left side: the edges of a layer by kind, each [H, T, T], from explicit vectors, for few tokens.

    VALUE: < g_i, W_O^h a_ij W_V D_j x_j >, with W_ij of the secant rule for a_ij in `secant`; there also KEY and QUERY (on the diagonal).
    """
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
    gz = torch.einsum("id,dihe->hie", g[0], output_matrix)
    repeat = kept.query.shape[1] // kept.value.shape[1]
    values = _linear_part(capture, kept.value, entered).repeat_interleave(repeat, 0)  # W_V D_j x_j [H, T, D]
    along = torch.einsum("hie,hje->hij", gz, values)
    if capture.state.method == "frozen":
        a = pattern_of(kept)
        return {VALUE: a * along[..., : a.shape[-1]]}
    scores = tile_scores(kept.pattern, kept.query[0].detach(), kept.key[0].detach(), torch.arange(out.shape[1], device=out.device), 0)
    whole = kept.value[0].detach().repeat_interleave(repeat, 0)
    weight, ds = _by_the_rule(scores, torch.einsum("hie,hje->hij", gz, whole))
    factor = ds * kept.pattern.scaling / 2 * (1 if scores.ratio is None else scores.ratio)
    query, key = kept.query[0].detach(), kept.key[0].detach().repeat_interleave(repeat, 0)
    keys = _linear_part(capture, kept.key, entered).repeat_interleave(repeat, 0)
    queries = _linear_part(capture, kept.query, entered)
    return {
        VALUE: weight * along,
        KEY: factor * torch.einsum("hie,hje->hij", query, keys),
        QUERY: torch.diag_embed((factor * torch.einsum("hie,hje->hij", queries, key)).sum(-1)),
    }


def _by_the_rule(scores: Scores, g: Tensor) -> tuple[Tensor, Tensor]:
    """Apply the rule to whole rows [H, T, J], a sink as one more key of value zero."""
    total, allowed = scores.total, scores.open.expand_as(scores.total) > 0
    if scores.sink is not None:
        sink = scores.sink.to(total.dtype).view(-1, 1, 1).expand(*total.shape[:2], 1)
        total, allowed, g = torch.cat([total, sink], -1), functional.pad(allowed, (0, 1), value=True), functional.pad(g, (0, 1))
    weight, ds = secant_row(total, allowed, g)
    seen = scores.total.shape[-1]
    return weight[..., :seen], ds[..., :seen]


def _linear_part(capture: Capture, made: Tensor, entered: Tensor) -> Tensor:
    """Give what the State at a position makes of its own query, key or value `made` [1, Hx, T, D], without biases: [Hx, T, D]."""
    linear = torch.zeros_like(made[0])
    for head in range(made.shape[1]):
        for coordinate in range(made.shape[3]):
            unit = torch.zeros_like(made)
            unit[:, head, :, coordinate] = 1
            (row,), _ = pull(capture, made, [entered], unit)
            linear[head, :, coordinate] = (row[0] * entered[0].detach()).sum(-1)
    return linear


def _random_like(x: Tensor, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(x.shape, generator=generator, dtype=x.dtype).to(x.device)


def _relative(left: float, right: float, seed: Tensor, x: Tensor) -> float:
    return abs(left - right) / max(float((seed * x.detach()).abs().sum()), 1e-30)
