"""Other rules for what a row of attention owes to its values and its scores, in the machinery of the method `secant`.

A rule maps scores, allowed keys and g_j = < gz, v_j > to W [H, T, T] and ds [H, T, T] (tracestore/extract/secant.py says what they are).
Norms held fixed, activations by the identity rule, products by halves: as there. Whole matrices, for short prompts.

attnlrp     W = a/2, ds = a (g - ag) / 2: the softmax passes on its gradient (Achtibat et al., 2024; what does not add up is absorbed)
gradient    W = a, ds = a (g - ag): the softmax's own gradient in full (the other rules as they are)
linear(h)   W = a - h (a - u), ds = h L (g - gbar): the secant rule without its concentration term, h = 1/2
ratio       W = a (1 + phi)/2, phi = ug/ag held within 0 and 1, and the rest to ds along L (g - gbar): conserving, not linear in g
secant(h)   the secant rule with the share h for the scores where it has a half
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from tracestore.evaluate.case import Case, Scores, as_scores
from tracestore.extract.attention import AttentionState, Pattern, attend
from tracestore.extract.capture import hidden_argument
from tracestore.extract.freeze import frozen
from tracestore.extract.scores import tile_scores
from tracestore.extract.secant import HALF, secant_rows

Rule: TypeAlias = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
_TINY = 1e-12


def attnlrp(scores: Tensor, allowed: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
    """Half to the values; the other half through the softmax's own gradient."""
    a = _attention(scores, allowed)
    return a / 2, a * (g - (a * g).sum(-1, keepdim=True)) / 2


def gradient(scores: Tensor, allowed: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
    """The derivative itself; the products of queries and keys are halved by the caller, so it is doubled here."""
    a = _attention(scores, allowed)
    return a, 2 * a * (g - (a * g).sum(-1, keepdim=True))


def linear_share(half: float) -> Rule:
    """Secant slopes without the concentration term; `half` is the share of the scores."""

    def rule(scores: Tensor, allowed: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
        rows = secant_rows(scores, allowed)
        slope = rows.slope * rows.share
        weight = rows.attention - half * (rows.attention - rows.open * rows.share)
        return weight, half * slope * (g - _mean(g, slope))

    return rule


linear = linear_share(HALF)


def ratio(scores: Tensor, allowed: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
    """Scale the real pattern by how much of its outcome an indifferent row would have had."""
    rows = secant_rows(scores, allowed)
    a, slope = rows.attention, rows.slope * rows.share
    ag, ug = (a * g).sum(-1, keepdim=True), (rows.open * rows.share * g).sum(-1, keepdim=True)
    phi = torch.where(ag.abs() > _TINY, ug / ag, torch.ones_like(ag)).clamp(0, 1)
    rest = (1 - phi) * ag / 2
    whole = torch.where((ag - ug).abs() > _TINY, rest / (ag - ug), torch.zeros_like(ag))
    return a * (1 + phi) / 2, whole * slope * (g - _mean(g, slope))


def secant_share(half: float) -> Rule:
    """The secant rule with another share for the scores."""

    def rule(scores: Tensor, allowed: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
        rows = secant_rows(scores, allowed, half)
        return rows.value, rows.address(g)

    return rule


def _attention(scores: Tensor, allowed: Tensor) -> Tensor:
    return torch.where(allowed, scores, -torch.inf).softmax(-1).nan_to_num(0.0)


def _mean(g: Tensor, weights: Tensor) -> Tensor:
    return (weights * g).sum(-1, keepdim=True) / weights.sum(-1, keepdim=True).clamp_min(1e-30)


@dataclass(frozen=True, slots=True)
class RuleScores:
    """The columns of a trace by some rule, each [T]: `direct` and `total` unsigned, `score` signed.

    `edge` is `direct` with an edge's two channels added up before the size is taken.
    """

    direct: Scores
    total: Scores
    score: Scores
    edge: Scores


def by_rule(case: Case, rule: Rule) -> RuleScores:
    """Explain a case by a rule: one forward and one backward pass. (Value and key biases are counted with the edges.)"""
    attributor = case.attributor
    length = case.length
    direct, total, edge = np.zeros(length), np.zeros(length), np.zeros(length)

    def collect(value: Tensor, key: Tensor) -> None:
        size = value.abs() + key.abs()
        direct[:] += size[:, case.pos].sum(0).double().cpu().numpy()
        total[:] += size.sum((0, 1)).double().cpu().numpy()
        edge[:] += (value + key)[:, case.pos].abs().sum(0).double().cpu().numpy()

    def attention(query: Tensor, key: Tensor, value: Tensor, pattern: Pattern, _layer: int, _state: AttentionState) -> Tensor:
        out: Tensor = _RuleAttention.apply(query, key, value, pattern, rule, collect)
        return out

    layer_of = {id(m): i for i, block in enumerate(attributor.layout.blocks) for m in block.layer.modules()}
    state = AttentionState(layer_of=layer_of, method="secant", attention=attention)
    start: list[Tensor] = []
    finals: list[Tensor] = []

    def enter(module: Any, args: Any, kwargs: Any) -> Any:
        x, put = hidden_argument(module, args, kwargs)
        start.append(x.detach().requires_grad_(True))
        return put(start[0])

    with frozen(attributor.model, attributor.layout, attributor.norms, state), torch.enable_grad():
        first = attributor.layout.blocks[0].layer.register_forward_pre_hook(enter, with_kwargs=True)
        last = attributor.layout.final_norm.register_forward_hook(lambda _m, _a, out: finals.append(out))
        try:
            attributor.model.base_model(input_ids=case.ids, use_cache=False)
            row = finals[-1][0, case.pos]
            vector, _ = attributor.reader.direction("centred", case.token_id, None, row)
            (found,) = torch.autograd.grad(row, start[0], vector.to(row.dtype))
        finally:
            first.remove()
            last.remove()
    return RuleScores(direct, total, as_scores((found * start[0]).sum(-1)[0]), edge)


class _RuleAttention(torch.autograd.Function):
    """Attention whose backward pass follows a rule; one batch row."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, pattern: Pattern, rule: Rule, collect: Any) -> Tensor:
        """Compute the output [1, T, H, D]."""
        ctx.save_for_backward(query, key, value)
        ctx.pattern, ctx.rule, ctx.collect = pattern, rule, collect
        return attend(pattern, query, key, value)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Give dq, dk, dv by the rule and hand over |VALUE| and |KEY|."""
        query, key, value = (tensor[0] for tensor in ctx.saved_tensors)
        repeats = query.shape[0] // key.shape[0]
        keys, values = key.repeat_interleave(repeats, 0), value.repeat_interleave(repeats, 0)
        gz = grads[0][0].transpose(0, 1)  # [H, T, D]
        scores = tile_scores(ctx.pattern, query, key, torch.arange(query.shape[1], device=query.device), 0)
        g = torch.matmul(gz, values.transpose(1, 2))
        total, allowed = scores.total, scores.open.expand_as(g) > 0
        if scores.sink is not None:
            sink = scores.sink.to(g.dtype).view(-1, 1, 1).expand(*g.shape[:2], 1)
            total, allowed = torch.cat([total, sink], -1), torch.cat([allowed, allowed.new_ones(*g.shape[:2], 1)], -1)
            weight, ds = (part[..., :-1] for part in ctx.rule(total, allowed, torch.nn.functional.pad(g, (0, 1))))
        else:
            weight, ds = ctx.rule(total, allowed, g)
        factor = HALF * ds if scores.ratio is None else HALF * ds * scores.ratio
        ctx.collect(weight * g, factor * scores.raw)
        dq = torch.matmul(factor, keys) * ctx.pattern.scaling
        dk = torch.matmul(factor.transpose(1, 2), query) * ctx.pattern.scaling
        dv = torch.matmul(weight.transpose(1, 2), gz)
        grouped = (key.shape[0], repeats, *key.shape[1:])
        dk, dv = dk.view(grouped).sum(1), dv.view(key.shape[0], repeats, *value.shape[1:]).sum(1)
        return dq[None], dk[None], dv[None], None, None, None
