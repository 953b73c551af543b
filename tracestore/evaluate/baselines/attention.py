"""Baselines made from attention maps, at the row of the explained position.

raw_attention          mean probability over layers and heads
rollout                product over layers of (mean over heads + identity) / 2                        (Abnar and Zuidema, 2020)
attention_norm         | sum over heads of a W_O v |, mean over layers                                 (Kobayashi et al., 2020)
direct_logit           what each source's values add to the logit without passing another layer        (direct logit attribution)
alti, ifr              how near what a source brings is to what the block writes, in L1, rolled out    (Ferrando et al., 2022, 2024)
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tracestore.evaluate.attention_maps import AttentionMaps, LayerAttention, attention_maps
from tracestore.evaluate.case import Case, Scores, as_scores


def raw_attention(case: Case) -> Scores:
    """Mean over layers and heads of the attention that the explained position pays."""
    maps = attention_maps(case.attributor, case.ids)
    return as_scores(torch.stack([layer.a[:, case.pos].mean(0) for layer in maps.layers]).mean(0))


def rollout(case: Case) -> Scores:
    """Attention rollout."""
    maps = attention_maps(case.attributor, case.ids)
    return _rolled([layer.a.mean(0) / 2 for layer in maps.layers], [0.5] * len(maps.layers), case.pos)


def attention_norm(case: Case) -> Scores:
    """Norm of what each source brings to the explained position, mean over layers of its share."""
    maps = attention_maps(case.attributor, case.ids)
    shares = []
    for layer in maps.layers:
        brought = layer.added(torch.einsum("hj,hjd->jd", layer.a[:, case.pos], layer.moved), case.pos).norm(dim=-1)
        shares.append(brought / brought.sum().clamp_min(1e-30))
    return as_scores(torch.stack(shares).mean(0))


def direct_logit(case: Case) -> Scores:
    """Direct logit attribution of every source, signed: through the frozen final norm to the token's centred logit."""
    maps = attention_maps(case.attributor, case.ids)
    direction = _readout(case, maps)
    total = sum(layer.added(torch.einsum("hj,hjd->jd", layer.a[:, case.pos], layer.moved), case.pos) @ direction for layer in maps.layers)
    assert isinstance(total, Tensor)
    total[case.pos] += maps.layers[0].entered[case.pos] @ direction
    return as_scores(total)


def _readout(case: Case, maps: AttentionMaps) -> Tensor:
    """Gradient [d] of the centred logit with respect to the final residual stream, the norm's scale held fixed."""
    attributor = case.attributor
    state = maps.final[case.pos].clone().requires_grad_(True)
    vector, _ = attributor.reader.direction("centred", case.token_id, None, state)
    (gradient,) = torch.autograd.grad(attributor.norms[attributor.layout.final_norm](state[None])[0], state, vector.to(state.dtype))
    return gradient


def alti(case: Case) -> Scores:
    """ALTI: proximity of what all heads together bring from a source to what the attention block gives, rolled out."""
    return _proximity(case, by_head=False)


def ifr(case: Case) -> Scores:
    """Information flow routes: the same head by head, each head's share of a source counted on its own."""
    return _proximity(case, by_head=True)


def _proximity(case: Case, *, by_head: bool) -> Scores:
    maps = attention_maps(case.attributor, case.ids)
    mixes, residuals = [], []
    for layer in maps.layers:
        mix, residual = _shares(layer, by_head=by_head)
        mixes.append(mix)
        residuals.append(residual)
    return _rolled(mixes, residuals, case.pos)


def _shares(layer: LayerAttention, *, by_head: bool) -> tuple[Tensor, Tensor]:
    """Give each source's share [T, T] and the residual stream's own share [T] of what stands after the attention block."""
    moved, entered = layer.moved, layer.entered
    length = entered.shape[0]
    shares, own = torch.zeros(length, length, dtype=entered.dtype), torch.zeros(length, dtype=entered.dtype)
    for i in range(length):
        parts = layer.added(layer.a[:, i, : i + 1, None] * moved[:, : i + 1], i)  # [H, J, d]
        whole = entered[i] + parts.sum((0, 1))
        size = whole.abs().sum()
        if not by_head:
            parts = parts.sum(0, keepdim=True)
        near = (size - (whole - parts).abs().sum(-1)).clamp_min(0).sum(0)
        kept = (size - (whole - entered[i]).abs().sum()).clamp_min(0)
        total = (near.sum() + kept).clamp_min(1e-30)
        shares[i, : i + 1], own[i] = near / total, kept / total
    return shares, own


def _rolled(mixes: list[Tensor], residuals: Sequence[float | Tensor], pos: int) -> Scores:
    """Carry importance from the explained position down through all layers."""
    row = torch.zeros(mixes[0].shape[0], dtype=mixes[0].dtype)
    row[pos] = 1.0
    for mix, residual in zip(reversed(mixes), reversed(residuals), strict=True):
        row = row @ mix + row * residual
    return as_scores(row)
