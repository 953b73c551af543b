"""Attention whose gradient is a decomposition, as an attention function that transformers calls by name.

1. Forward: the model's own attention (SDPA where it can, tiles where there is a softcap or a sink); nothing T x T is kept.
2. Backward of `frozen`, per layer: recompute the probabilities `a` in tiles of query rows, give the values their gradient
   dv_j = sum_i a_ij gz_i, and in the same tile hand a_ij <gz_i, v_j> to the collector of the target that is being explained. Queries and
   keys get no gradient: that is what frozen means. Rows without gradient are skipped: they have neither edges nor a share in dv.
   (The backward of `secant` is in `secant_attention`.)

Both the attention function and its mask function must be registered: without the latter transformers hands over no mask and the model
silently sees the future.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask
from transformers.modeling_utils import AttentionInterface

from tracestore.errors import UnsupportedModelError
from tracestore.extract.norms import NormScales
from tracestore.model import Method

Rule: TypeAlias = Method | Literal["gradient"]
"""How gradients pass: by a method, or as they are (for sensitivities)."""

NAME: Final = "tracestore_frozen"
TILE_ROWS: Final = 256

_HARMLESS: Final = frozenset(
    {
        *("position_ids", "cache_position", "position_embeddings", "attention_mask", "layer_head_mask", "head_mask", "token_type_ids"),
        *("cu_seq_lens_q", "cu_seq_lens_k", "max_length_q", "max_length_k", "logits_to_keep", "num_items_in_batch", "target_dtype"),
    }
)


@dataclass(slots=True)
class HeadGradients:
    """The gradients of one target at every query head's own values [H, T, D], and (`secant`) keys and queries [H, T, Dk], by layer."""

    value: dict[int, Tensor] = field(default_factory=dict)
    key: dict[int, Tensor] = field(default_factory=dict)
    query: dict[int, Tensor] = field(default_factory=dict)


class EdgeSink(Protocol):
    """What receives the edges of one target while its gradient runs backwards."""

    batch: int
    head_gradients: HeadGradients | None  # filled where it is asked for

    def take(self, layer: int, rows: Tensor, attention: Tensor, weight: Tensor) -> None:
        """Take one tile: `rows` [R] query positions, `attention` and `weight` [H, R, J]."""

    def take_removals(self, rows: Tensor, attention: Tensor, g: Tensor, relevance: Tensor) -> None:
        """Take what hiding keys from the `rows` [R] would do: `attention` and `g` = < gz, v > [H, R, J], `relevance` = < gz, z > [H, R].

        `g` and `relevance` may both leave out < gz, b > of a bias b that all values share.
        """

    def take_keys(self, layer: int, rows: Tensor, attention: Tensor, weight: Tensor) -> None:
        """Take the KEY edges of one tile, shaped as in `take` (`secant` alone has them)."""

    def take_heads(self, layer: int, relevance: Tensor, bias: Tensor | None, value_out: Tensor) -> None:
        """Take <gz, z> [H, T], the bias part of the heads [H, T] and the signed sum of VALUE edges per source [T]."""

    def take_queries(self, layer: int, query: Tensor, key_out: Tensor) -> None:
        """Take the QUERY edges [H, T] and the signed sum of KEY edges per source [T] (`secant` alone has them)."""


class InputsRecordedError(Exception):
    """Raised inside the attention function to stop a run that only asks for queries, keys and values."""


@dataclass(slots=True)
class AttentionState:
    """What the attention function needs to know during one forward pass and its backward passes."""

    layer_of: dict[int, int]  # id of a module inside a decoder layer -> the layer
    method: Rule = "frozen"
    attention: Callable[..., Tensor] = lambda *given: attend_frozen(*given)  # the method's own, called as `attend_frozen` is
    value_bias: dict[int, Tensor] = field(default_factory=dict)  # layer -> [Hkv, D], the part of the values that biases make
    address_bias: dict[int, AddressBias] = field(default_factory=dict)  # layer -> what biases make of queries and keys (`secant`)
    norm_scales: NormScales = field(default_factory=NormScales)  # of the norms inside attention (`secant`)
    sink: EdgeSink | None = None
    called: dict[int, int] = field(default_factory=dict)  # layer -> calls in this forward
    heads: int = 0
    modules: dict[int, torch.nn.Module] = field(default_factory=dict)  # layer -> the module that called
    keep: bool = False  # for the identities: keep every layer's part in `kept`
    kept: dict[int, KeptAttention] = field(default_factory=dict)
    record: list[tuple[Tensor, Tensor, Tensor]] | None = None  # when set, query, key and value go here and the run stops
    tap: bool = False  # for compositions and paths: keep every layer's part, detached, in `tapped`
    tapped: dict[int, KeptAttention] = field(default_factory=dict)
    turning: Callable[[int, Tensor, Tensor], None] | None = None  # (layer, query, key), called where `tap` is set
    instead: Callable[[int, Pattern, Tensor, Tensor, Tensor], Tensor] | None = None  # knockouts: (layer, pattern, q, k, v) -> output


@dataclass(frozen=True, slots=True)
class AddressBias:
    """The part of one layer's queries [B, H, T, D] and keys [B, Hkv, T, D] that biases make, turned by position as they are."""

    query: Tensor
    key: Tensor


@dataclass(frozen=True, slots=True)
class KeptAttention:
    """One layer's attention: `query` [B, H, T, Dk], `key` and `value` [B, Hkv, T, D], `out` [B, T, H, D]."""

    query: Tensor
    key: Tensor
    value: Tensor
    out: Tensor
    pattern: Pattern


_active: list[AttentionState] = []


def activate(state: AttentionState) -> None:
    """Make `state` the one that the attention function uses; `deactivate` undoes it."""
    AttentionInterface.register(NAME, frozen_attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    _active.append(state)


def deactivate(state: AttentionState) -> None:
    """Undo `activate`."""
    _active.remove(state)


@dataclass(frozen=True, slots=True)
class Pattern:
    """Everything that turns queries and keys into probabilities. `mask` is bool or additive, [B, 1 or H, T, T]."""

    scaling: float
    causal: bool
    mask: Tensor | None
    softcap: float | None
    sinks: Tensor | None  # [H] logits of a sink that is one more key of value zero

    @property
    def plain(self) -> bool:
        """Can SDPA compute it?"""
        return self.softcap is None and self.sinks is None


def probabilities(pattern: Pattern, query: Tensor, key: Tensor, rows: Tensor, batch: int) -> Tensor:
    """Attention probabilities [H, R, J] of query `rows` [R] over the first J keys, J = last row + 1 when causal.

    `query` [H, R, D] holds those rows alone, `key` [Hkv, T, D]. Rows that may see nothing are zero.
    """
    groups = key.shape[0]
    heads, n_rows, width = query.shape
    seen = int(rows[-1]) + 1 if pattern.causal else key.shape[1]
    scores = torch.matmul(query.reshape(groups, -1, width), key[:, :seen].transpose(1, 2))
    scores = scores.mul_(pattern.scaling).view(heads, n_rows, seen)
    if pattern.softcap is not None:
        scores = scores.div_(pattern.softcap).tanh_().mul_(pattern.softcap)
    if pattern.causal:
        first = int(rows[0])
        future = torch.arange(first, seen, device=rows.device)[None, :] > rows[:, None]
        scores[:, :, first:].masked_fill_(future, -torch.inf)
    blind = None
    if pattern.mask is not None:
        mask = pattern.mask[batch if pattern.mask.shape[0] > 1 else 0][:, rows, :seen]
        if mask.dtype == torch.bool:
            scores.masked_fill_(~mask, -torch.inf)
            blind = ~mask.any(-1, keepdim=True)
        else:
            scores.add_(mask.to(scores.dtype))
    if pattern.sinks is not None:
        sinks = pattern.sinks.to(scores.dtype).view(heads, 1, 1).expand(heads, n_rows, 1)
        return torch.cat([scores, sinks], -1).softmax(-1)[:, :, :seen]
    out = torch.softmax(scores, -1, out=scores) if not scores.requires_grad else scores.softmax(-1)
    return out if blind is None else out.masked_fill_(blind, 0.0)


def attend(pattern: Pattern, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention output [B, T, H, D] of `query` [B, H, T, Dk], `key` and `value` [B, Hkv, T, Dk or D]."""
    if pattern.plain:
        grouped = query.shape[1] != key.shape[1]
        if grouped and pattern.mask is not None:  # the fast kernels take either a mask or grouped heads
            repeats = query.shape[1] // key.shape[1]
            key, value, grouped = key.repeat_interleave(repeats, 1), value.repeat_interleave(repeats, 1), False
        mask = pattern.mask if pattern.mask is None or pattern.mask.dtype == torch.bool else pattern.mask.to(query.dtype)
        out = functional.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, scale=pattern.scaling, is_causal=pattern.causal, enable_gqa=grouped
        )
        return out.transpose(1, 2).contiguous()
    batch, heads, length, _ = query.shape
    out = query.new_zeros(batch, length, heads, value.shape[-1])
    for b in range(batch):
        for start in range(0, length, TILE_ROWS):
            rows = torch.arange(start, min(start + TILE_ROWS, length), device=query.device)
            a = probabilities(pattern, query[b][:, rows], key[b], rows, b)
            a = a.view(key.shape[1], -1, a.shape[-1])
            out[b, rows] = torch.matmul(a, value[b, :, : a.shape[-1]]).view(heads, len(rows), -1).transpose(0, 1)
    return out


class RuledAttention(torch.autograd.Function):
    """Attention as the model computes it; its backward pass is the method's rule, which a subclass says."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, pattern: Pattern, layer: int, state: AttentionState) -> Tensor:
        """Compute the output [B, T, H, D] from `query` [B, H, T, Dk], `key` and `value` [B, Hkv, T, Dk or D]."""
        out = attend(pattern, query, key, value)
        ctx.save_for_backward(query, key, value, out)
        ctx.pattern, ctx.layer, ctx.state = pattern, layer, state
        return out


class FrozenAttention(RuledAttention):
    """Attention that is linear in the values: its pattern is a constant."""

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Give dv, and the edges to the state's sink."""
        query, key, value, out = ctx.saved_tensors
        dv = torch.zeros_like(value)
        sink = ctx.state.sink
        for b in range(value.shape[0]):
            chosen = sink if sink is not None and sink.batch == b else None
            _backward_one(ctx.pattern, ctx.layer, ctx.state, chosen, (query[b], key[b], value[b], out[b], grads[0][b], dv[b]), b)
        return None, None, dv, None, None, None


def attend_frozen(query: Tensor, key: Tensor, value: Tensor, pattern: Pattern, layer: int, state: AttentionState) -> Tensor:
    """Attend with a frozen pattern: output [B, T, H, D], of which the values alone have a gradient."""
    out: Tensor = FrozenAttention.apply(query.detach(), key.detach(), value, pattern, layer, state)
    return out


def _backward_one(
    pattern: Pattern, layer: int, state: AttentionState, sink: EdgeSink | None, tensors: tuple[Tensor, ...], batch: int
) -> None:
    query, key, value, out, gz, dv = tensors  # [H,T,Dk] [Hkv,T,Dk] [Hkv,T,D] [T,H,D] [T,H,D] [Hkv,T,D]
    heads, groups = query.shape[0], key.shape[0]
    alive = torch.nonzero(gz.abs().amax((1, 2)) > 0).squeeze(1)
    linear = value
    bias = state.value_bias.get(layer)
    if bias is not None:
        linear = value - bias[:, None].to(value.dtype)
    row_mass = gz.new_zeros(heads, gz.shape[0])
    per_head = None
    relevance = (gz * out).sum(-1).T
    shift = None  # what a row's gradient makes of the bias part of the values [H, T]
    if bias is not None:
        shift = (gz * bias.to(gz.dtype).repeat_interleave(heads // groups, 0)).sum(-1).T
    held = relevance if shift is None else relevance - shift
    if sink is not None and sink.head_gradients is not None:
        per_head = sink.head_gradients.value[layer] = value.new_zeros(heads, *value.shape[1:])
    for rows in torch.split(alive, TILE_ROWS) if len(alive) else ():
        whole = int(rows[-1]) - int(rows[0]) + 1 == len(rows)
        span = slice(int(rows[0]), int(rows[-1]) + 1) if whole else rows
        a = probabilities(pattern, query[:, span], key, rows, batch)
        seen = a.shape[-1]
        gradient = gz[span].transpose(0, 1).reshape(groups, -1, gz.shape[-1])
        grouped = a.view(groups, -1, seen)
        if per_head is None:
            dv[:, :seen].baddbmm_(grouped.transpose(1, 2), gradient)
        else:
            per_head[:, :seen].baddbmm_(a.transpose(1, 2), gradient.view(heads, len(rows), -1))
        if sink is not None:
            g = torch.matmul(gradient, linear[:, :seen].transpose(1, 2)).view_as(a)
            sink.take_removals(rows, a, g, held[:, rows])
            sink.take(layer, rows, a, g.mul_(a))
            if bias is not None:
                row_mass[:, rows] = a.sum(-1)
    if per_head is not None:
        dv.copy_(per_head.view(groups, -1, *per_head.shape[1:]).sum(1))
    if sink is not None:
        sink.take_heads(layer, relevance, None if shift is None else shift * row_mass, (dv * linear).sum((0, 2)))


def frozen_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    position_bias: Tensor | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attend by the state's method (the signature is transformers' attention interface)."""
    state = _active[-1]
    layer = state.layer_of.get(id(module))
    if layer is None:
        raise UnsupportedModelError(f"{type(module).__name__} attends outside the decoder layers; this architecture is not supported")
    strange = [name for name, given in kwargs.items() if isinstance(given, Tensor) and name not in _HARMLESS]
    if strange:
        raise UnsupportedModelError(f"{type(module).__name__} passes {', '.join(strange)} to its attention, which is not understood")
    if state.record is not None:
        state.record.append((query, key, value))
        raise InputsRecordedError
    state.called[layer] = state.called.get(layer, 0) + 1
    state.heads = query.shape[1]
    state.modules[layer] = module
    causal = kwargs.get("is_causal")
    causal = getattr(module, "is_causal", True) if causal is None else causal
    if attention_mask is not None and attention_mask.shape[-1] > key.shape[2]:
        attention_mask = attention_mask[..., : key.shape[2]]
    pattern = Pattern(
        scaling=query.shape[-1] ** -0.5 if scaling is None else float(scaling),
        causal=bool(causal) and attention_mask is None,
        mask=attention_mask,
        softcap=softcap,
        sinks=s_aux,
    )
    if position_bias is not None:
        pattern = _with_bias(pattern, position_bias)
    if query.shape[2] != key.shape[2] or (not pattern.causal and _sees_future(pattern.mask, query.shape[2])):
        raise UnsupportedModelError(f"{type(module).__name__} sees later tokens: only causal language models can be traced")
    if state.instead is not None:
        return state.instead(layer, pattern, query, key, value), None
    out = state.attention(query, key, value, pattern, layer, state)
    if state.keep:
        state.kept[layer] = KeptAttention(query, key, value, out, pattern)
    if state.tap:
        state.tapped[layer] = KeptAttention(query.detach(), key.detach(), value.detach(), out.detach(), pattern)
        if state.turning is not None:
            state.turning(layer, query, key)
    return out, None


def _with_bias(pattern: Pattern, bias: Tensor) -> Pattern:
    """Fold a term that is added to the scores, and causality or the mask, into one additive mask."""
    length = bias.shape[-1]
    if pattern.mask is None:
        allowed = torch.ones(length, length, dtype=torch.bool, device=bias.device)
        allowed = allowed.tril()[None, None] if pattern.causal else allowed[None, None]
    else:
        allowed = seen_keys(pattern.mask)
        bias = bias if pattern.mask.dtype == torch.bool else bias + pattern.mask
    return Pattern(pattern.scaling, False, torch.where(allowed, bias, torch.finfo(bias.dtype).min), pattern.softcap, pattern.sinks)


def seen_keys(mask: Tensor) -> Tensor:
    """Tell which keys a mask, bool or additive, lets a row see; terms that an additive mask adds to the scores are above the limit."""
    return mask if mask.dtype == torch.bool else mask > -1e4


def _sees_future(mask: Tensor | None, length: int) -> bool:
    if length == 1:
        return False
    return True if mask is None else bool(seen_keys(mask).triu(1).any())
