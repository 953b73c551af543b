"""Baselines made from the model's own gradient: softmax, norms and activations as they are.

The explained quantity is the token's centred logit z (or, where asked, its raw logit); x the embeddings [T, d] as the embedding module
gives them.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from tracestore.errors import UnsupportedModelError
from tracestore.evaluate.case import Case, Scores, as_scores
from tracestore.extract.attention import KeptAttention
from tracestore.extract.capture import hidden_argument
from tracestore.extract.freeze import quieten, use_plain_experts
from tracestore.extract.scores import tile_scores
from tracestore.model import Gauge

_ACROSS: Final = 1e-3
"""Cosines under this at every token are none: an epsilon inside a norm, and rounding, leave that much."""

STEPS: Final = 20
"""Points of the path of integrated gradients (Gauss-Legendre)."""


def _gradients(case: Case, scale: Tensor, gauge: Gauge, *, along: bool) -> tuple[Tensor, Tensor]:
    """Give dz/dx [n, T, d] at the embeddings times each of `scale` [n], and the embeddings [T, d].

    `along` says that they will be multiplied: refused with UnsupportedModelError where that is zero by construction.
    """
    attributor = case.attributor
    model: Any = attributor.model
    held: list[Tensor] = []
    plain: list[Tensor] = []

    def hook(_m: Any, _a: Any, out: Tensor) -> Tensor:
        plain.append(out.detach()[0])
        x = (out.detach() * scale.to(out.dtype).view(-1, 1, 1)).requires_grad_(True)
        held.append(x)
        return x

    with ExitStack() as stack, torch.enable_grad():
        quieten(model, stack)
        if next(model.parameters()).dtype == torch.float64:
            use_plain_experts(model, stack)
        stack.callback(model.get_input_embeddings().register_forward_hook(hook).remove)
        finals: list[Tensor] = []
        entered: list[Tensor] = []
        first = attributor.layout.blocks[0].layer
        stack.callback(
            first.register_forward_pre_hook(lambda m, a, k: entered.append(hidden_argument(m, a, k)[0]), with_kwargs=True).remove
        )
        stack.callback(attributor.layout.final_norm.register_forward_hook(lambda _m, _a, out: finals.append(out)).remove)
        model.base_model(input_ids=case.ids.expand(len(scale), -1), use_cache=False)
        if along:
            _need_scale(case, entered[0], held[0])
        row = finals[-1][:, case.pos]
        vector, _ = attributor.reader.direction(gauge, case.token_id, None, row)
        (gradient,) = torch.autograd.grad((row @ vector.to(row.dtype)).sum(), held[0])
    return gradient, plain[0]


def _one(case: Case) -> Tensor:
    return torch.ones(1, device=case.attributor.device)


def _need_scale(case: Case, entered: Tensor, x: Tensor) -> None:
    """Refuse a model that a factor on its embeddings cannot change: gradients along them are rounding, and so is what is made of them.

    `entered` is the residual stream of the first layer, `x` the embeddings it is made of, both [n, T, d].
    """
    probe = torch.randn(entered.shape[-1], generator=torch.Generator().manual_seed(0)).to(entered)
    (slope,) = torch.autograd.grad((entered @ probe).sum(), x, retain_graph=True)
    slope, x = slope[-1], x[-1]  # of the largest factor: near zero an epsilon inside the norm is all that counts
    if bool(((slope * x).sum(-1).abs() <= _ACROSS * slope.norm(dim=-1) * x.norm(dim=-1)).all()):
        raise UnsupportedModelError(
            f"{type(case.attributor.model).__name__} reads its embeddings through a norm: along them its gradient is zero"
        )


def saliency(case: Case, gauge: Gauge = "centred") -> Scores:
    """L2 norm of the gradient at each token."""
    gradient, _ = _gradients(case, _one(case), gauge, along=False)
    return as_scores(gradient[0].norm(dim=-1))


def gradient_x_input(case: Case, gauge: Gauge = "centred") -> Scores:
    """< gradient, embedding >, signed. Raises UnsupportedModelError where the model reads its embeddings through a norm."""
    gradient, x = _gradients(case, _one(case), gauge, along=True)
    return as_scores((gradient[0] * x).sum(-1))


def integrated_gradients(case: Case, steps: int = STEPS, gauge: Gauge = "centred") -> Scores:
    """Integrated gradients from a zero embedding, signed (Sundararajan et al., 2017), by Gauss-Legendre quadrature.

    Raises UnsupportedModelError where the model reads its embeddings through a norm.
    """
    points, weights = np.polynomial.legendre.leggauss(steps)
    total: Tensor | None = None
    x: Tensor | None = None
    for part in np.array_split(np.arange(steps), -(-steps * case.length // 1024)):
        if not len(part):
            continue
        scale = torch.from_numpy((points[part] + 1) / 2).to(case.attributor.device)
        gradient, x = _gradients(case, scale, gauge, along=True)
        weighted = torch.einsum("n,ntd->td", torch.from_numpy(weights[part] / 2).to(gradient), gradient)
        total = weighted if total is None else total + weighted
    assert total is not None
    assert x is not None
    return as_scores((total * x).sum(-1))


def sensitivity(case: Case) -> Mapping[str, Scores]:
    """Sum |amount times true derivative| over a source's values and scores, into the explained position (`direct`) or all (`total`).

    What a trace stores as the `sensitivity` of an edge (tracestore/extract/sensitivity.py), for all edges. Whole matrices, for short
    prompts; value and key biases are counted with the edges.
    """
    attributor = case.attributor
    plain = attributor.forward(case.ids, {}, "gradient", keep=True)
    assert plain.final is not None
    layers = [plain.state.kept[layer] for layer in range(len(plain.layout.blocks))]
    row = plain.final[0, case.pos]
    vector, _ = attributor.reader.direction("centred", case.token_id, None, row)
    slopes = torch.autograd.grad(row, [kept.out for kept in layers], vector.to(row.dtype), allow_unused=True)
    direct, total = np.zeros(case.length), np.zeros(case.length)
    with torch.no_grad():
        for kept, gz in zip(layers, slopes, strict=True):
            if gz is not None:
                size = _edge_sizes(kept, gz[0].transpose(0, 1))
                direct += as_scores(size[:, case.pos].sum(0))
                total += as_scores(size.sum((0, 1)))
    return {"direct": direct, "total": total}


def _edge_sizes(kept: KeptAttention, gz: Tensor) -> Tensor:
    """Give |VALUE| + |KEY| [H, T, T] of a layer; `gz` [H, T, D] at the heads' outputs."""
    query, key, value = kept.query[0], kept.key[0], kept.value[0]
    repeats = query.shape[0] // key.shape[0]
    scores = tile_scores(kept.pattern, query, key, torch.arange(query.shape[1], device=query.device), 0)
    total = scores.total.masked_fill(scores.open == 0, -torch.inf)
    if scores.sink is not None:
        total = torch.cat([total, scores.sink.to(total.dtype).view(-1, 1, 1).expand(*total.shape[:2], 1)], -1)
    a = total.softmax(-1).nan_to_num(0.0)[..., : scores.total.shape[-1]]
    g = torch.matmul(gz, value.repeat_interleave(repeats, 0).transpose(1, 2))
    slope = a * (g - (a * g).sum(-1, keepdim=True))
    cap = kept.pattern.softcap
    if cap is not None:
        slope = slope * (1 - torch.tanh(scores.raw / cap).square())
    return (a * g).abs() + (slope * scores.raw).abs()
