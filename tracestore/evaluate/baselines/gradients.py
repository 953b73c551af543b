"""Baselines made from the model's own gradient: softmax, norms and activations as they are.

The explained quantity is the token's centred logit z (or, where asked, its raw logit); x the embeddings [T, d] as the embedding module
gives them.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from tracestore.evaluate.case import Case, Scores, as_scores
from tracestore.extract.freeze import quieten, use_plain_experts
from tracestore.model import Gauge

STEPS: Final = 20
"""Points of the path of integrated gradients (Gauss-Legendre)."""


def _gradients(case: Case, scale: Tensor, gauge: Gauge) -> tuple[Tensor, Tensor]:
    """Give dz/dx [n, T, d] at the embeddings times each of `scale` [n], and the embeddings [T, d]."""
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
        stack.callback(attributor.layout.final_norm.register_forward_hook(lambda _m, _a, out: finals.append(out)).remove)
        model.base_model(input_ids=case.ids.expand(len(scale), -1), use_cache=False)
        row = finals[-1][:, case.pos]
        vector, _ = attributor.reader.direction(gauge, case.token_id, None, row)
        (gradient,) = torch.autograd.grad((row @ vector.to(row.dtype)).sum(), held[0])
    return gradient, plain[0]


def _one(case: Case) -> Tensor:
    return torch.ones(1, device=case.attributor.device)


def saliency(case: Case, gauge: Gauge = "centred") -> Scores:
    """L2 norm of the gradient at each token."""
    gradient, _ = _gradients(case, _one(case), gauge)
    return as_scores(gradient[0].norm(dim=-1))


def gradient_x_input(case: Case, gauge: Gauge = "centred") -> Scores:
    """< gradient, embedding >, signed."""
    gradient, x = _gradients(case, _one(case), gauge)
    return as_scores((gradient[0] * x).sum(-1))


def integrated_gradients(case: Case, steps: int = STEPS, gauge: Gauge = "centred") -> Scores:
    """Integrated gradients from a zero embedding, signed (Sundararajan et al., 2017), by Gauss-Legendre quadrature."""
    points, weights = np.polynomial.legendre.leggauss(steps)
    total: Tensor | None = None
    x: Tensor | None = None
    for part in np.array_split(np.arange(steps), -(-steps * case.length // 1024)):
        if not len(part):
            continue
        scale = torch.from_numpy((points[part] + 1) / 2).to(case.attributor.device)
        gradient, x = _gradients(case, scale, gauge)
        weighted = torch.einsum("n,ntd->td", torch.from_numpy(weights[part] / 2).to(gradient), gradient)
        total = weighted if total is None else total + weighted
    assert total is not None
    assert x is not None
    return as_scores((total * x).sum(-1))
