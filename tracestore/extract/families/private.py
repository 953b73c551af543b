"""Families that write their attention themselves instead of calling transformers' attention interface, or their gate with constants.

For each class name a short adapter says what to replace while the frozen pass runs, so that the same queries, keys and values go through
the frozen attention function. It computes what the class computes and nothing else: identity I0 compares the two on every model.
`WRITERS` names parts that add the residual stream inside: there the module that writes is the last linear layer.
`CONSTANTS` is where an adapter leaves the part of an MLP's output that its biases make: no linear module carries them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, TypeAlias

import torch
from torch import Tensor, nn

from tracestore.errors import UnsupportedModelError
from tracestore.extract.attention import Rule, frozen_attention
from tracestore.extract.secant import HALF

Replacement: TypeAlias = tuple[str, Callable[..., Any]]
"""The attribute that is replaced, and what by."""

WRITERS: Final[Mapping[str, str]] = {
    "BloomMLP": "dense_4h_to_h",
    "MptMLP": "down_proj",
    "FalconMLP": "dense_4h_to_h",
    "BloomAttention": "dense",
}
CONSTANTS: Final = "_tracestore_constant"


def _inner(scaling: Callable[[Any], float]) -> Callable[[Any], Replacement]:
    """Adapt a class whose `_attn` only attends: query, key and value [B, H, T, D], an additive mask or None."""

    def adapt(module: Any) -> Replacement:
        def attend(query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None = None, **_: Any) -> tuple[Tensor, None]:
            query, key = query.to(value.dtype), key.to(value.dtype)
            out, _weights = frozen_attention(module, query, key, value, _windowed(module, attention_mask, query), scaling=scaling(module))
            return out.transpose(1, 2), None

        return "_attn", attend

    return adapt


def _windowed(module: Any, mask: Tensor | None, query: Tensor) -> Tensor | None:
    """Add the buffer of allowed positions that GPT-Neo keeps (its local layers see a window) to the mask."""
    allowed = getattr(module, "bias", None)
    if not isinstance(allowed, Tensor) or allowed.dim() != 4:
        return mask
    length = query.shape[2]
    kept = torch.zeros((), dtype=query.dtype, device=query.device) if mask is None else mask.to(query.dtype)
    return torch.where(allowed[:, :, :length, :length].bool(), kept, torch.finfo(query.dtype).min)


def _bloom(module: Any) -> Replacement:
    def forward(hidden_states: Tensor, residual: Tensor, alibi: Tensor, attention_mask: Tensor | None, **_: Any) -> tuple[Tensor, None]:
        query, key, value = module._reshape(module.query_key_value(hidden_states))
        batch, heads, length, _width = query.shape
        bias = alibi.view(batch, heads, 1, -1)[..., :length]
        out, _weights = frozen_attention(
            module, query, key, value, attention_mask, scaling=module.beta * module.inv_norm_factor, position_bias=bias
        )
        return module.dense(out.reshape(batch, length, -1)) + residual, None

    return "forward", forward


def _mpt(module: Any) -> Replacement:
    def forward(hidden_states: Tensor, position_bias: Tensor | None, attention_mask: Tensor | None = None, **_: Any) -> tuple[Tensor, None]:
        batch, length = hidden_states.shape[:2]
        mixed = module.Wqkv(hidden_states)
        if module.clip_qkv:
            mixed = mixed.clamp(min=-module.clip_qkv, max=module.clip_qkv)
        query, key, value = (x.reshape(batch, length, module.n_heads, module.head_dim).transpose(1, 2) for x in mixed.chunk(3, dim=2))
        allowed = None if attention_mask is None else ~attention_mask.bool()  # its own mask says what is hidden
        bias = None if position_bias is None else position_bias[None, :, -length:, -length:].to(query.dtype)
        out, _weights = frozen_attention(module, query, key, value, allowed, scaling=module.softmax_scale, position_bias=bias)
        return module.out_proj(out.reshape(batch, length, -1)), None

    return "forward", forward


def _falcon(module: Any) -> Replacement:
    rotate = sys.modules[type(module).__module__].apply_rotary_pos_emb

    def forward(
        hidden_states: Tensor, alibi: Tensor | None, attention_mask: Tensor | None, position_embeddings: Any = None, **_: Any
    ) -> tuple[Tensor, None]:
        query, key, value = (x.transpose(1, 2) for x in module._split_heads(module.query_key_value(hidden_states)))
        if alibi is None:  # otherwise the mask holds it already
            query, key = rotate(query, key, *position_embeddings)
        out, _weights = frozen_attention(module, query, key, value, attention_mask, scaling=module.inv_norm_factor)
        return module.dense(out.reshape(*hidden_states.shape[:2], -1)), None

    return "forward", forward


def _falcon_mlp(module: Any) -> Replacement:
    """Falcon adds the attention's output to the MLP's in place: what the MLP wrote must stay as it was."""
    forward = module.forward
    return "forward", lambda x: forward(x).clone()


def _xglm(module: Any) -> Replacement:
    def forward(
        hidden_states: Tensor, key_value_states: Tensor | None = None, attention_mask: Tensor | None = None, **_: Any
    ) -> tuple[Tensor, None]:
        if key_value_states is not None:
            raise UnsupportedModelError(f"{type(module).__name__} attends to an encoder: it cannot be traced")

        def split(x: Tensor) -> Tensor:
            return x.view(*hidden_states.shape[:2], module.num_heads, module.head_dim).transpose(1, 2)

        query, key, value = (split(part(hidden_states)) for part in (module.q_proj, module.k_proj, module.v_proj))
        out, _weights = frozen_attention(module, query, key, value, attention_mask, scaling=module.scaling)
        return module.out_proj(out.reshape(*hidden_states.shape[:2], -1)), None

    return "forward", forward


def _gpt_oss_experts(module: Any, half: float = 0.0) -> Replacement:
    """Experts of (up + 1) * glu(gate): glu is the frozen gate, its product with 1 and every expert bias are constants.

    `half` is the share of the product that goes to the gate, as glu = gate * (glu/gate) with the ratio and up + 1 held fixed.
    """

    def forward(hidden_states: Tensor, router_indices: Tensor, routing_weights: Tensor) -> Tensor:
        states, weights = hidden_states.reshape(-1, hidden_states.shape[-1]), routing_weights.detach()
        out, constant = torch.zeros_like(states), torch.zeros_like(states)
        for expert in range(module.num_experts):
            token, choice = torch.where(router_indices == expert)
            share = weights[token, choice, None]
            fused, bias = module.gate_up_proj[expert].to(states.dtype), module.gate_up_proj_bias[expert].to(states.dtype)
            down, down_bias = module.down_proj[expert].to(states.dtype), module.down_proj_bias[expert].to(states.dtype)
            up, gated = states[token] @ fused[:, 1::2], states[token] @ fused[:, ::2]
            with torch.no_grad():
                gate = (gated + bias[::2]).clamp(max=module.limit)
                glu = gate * torch.sigmoid(gate * module.alpha)
                inside = (up + bias[1::2]).abs() <= module.limit
                beyond = torch.where(inside, bias[1::2], (up + bias[1::2]).clamp(-module.limit, module.limit))
                kept = (gate / (gated + bias[::2])).nan_to_num_(nan=1.0)  # what the clamp left
                slope = (torch.where(inside, up, 0.0) + beyond + 1) * torch.sigmoid(gate * module.alpha) * kept
                fixed = (((1 - half) * (beyond + 1) * glu + half * slope * bias[::2]) @ down + down_bias) * share
            moving = (1 - half) * torch.where(inside, up, 0.0) * glu
            if half:
                moving = moving + half * slope * gated
            out = out.index_add(0, token, moving @ down * share + fixed)
            constant.index_add_(0, token, fixed)
        module.__dict__[CONSTANTS] = constant
        return out.reshape(hidden_states.shape)

    return "forward", forward


ADAPTERS: Final[Mapping[str, Callable[[Any], Replacement]]] = {
    "GPTJAttention": _inner(lambda module: 1.0 / float(module.scale_attn)),
    "CodeGenAttention": _inner(lambda module: 1.0 / float(module.scale_attn)),
    "GPTNeoSelfAttention": _inner(lambda _: 1.0),
    "GPTNeoXJapaneseAttention": _inner(lambda module: 1.0 / float(module.norm_factor)),
    "BloomAttention": _bloom,
    "MptAttention": _mpt,
    "FalconAttention": _falcon,
    "FalconMLP": _falcon_mlp,
    "XGLMAttention": _xglm,
}

EXPERTS: Final[Mapping[Rule, Mapping[str, Callable[[Any], Replacement]]]] = {
    "frozen": {"GptOssExperts": _gpt_oss_experts},
    "secant": {"GptOssExperts": lambda module: _gpt_oss_experts(module, HALF)},
    "gradient": {},
}
"""What is replaced by each rule in its own way."""


def writer_of(module: nn.Module) -> nn.Module:
    """Give the module whose output is what `module` (an attention or an MLP) adds to the residual stream."""
    last = WRITERS.get(type(module).__name__)
    return module if last is None else module.get_submodule(last)


def attends_privately(model: nn.Module) -> bool:
    """Tell whether a model has attention that only an adapter reaches: its masks are then asked for as in eager mode."""
    names = {type(module).__name__ for module in model.modules()}
    return any("Attention" in name for name in names & set(ADAPTERS))


@contextmanager
def adapted(model: nn.Module, method: Rule) -> Iterator[None]:
    """Replace what the adapters name, for a while; a mixture's experts by the rule of `method`."""
    changed: list[tuple[nn.Module, str, Any]] = []
    try:
        for module in model.modules():
            name = type(module).__name__
            adapter = EXPERTS[method].get(name) if name in EXPERTS["frozen"] else ADAPTERS.get(name)
            if adapter is not None:
                attribute, function = adapter(module)
                changed.append((module, attribute, module.__dict__.get(attribute)))
                module.__dict__[attribute] = function
        yield
    finally:
        for module, name, before in reversed(changed):
            if before is None:
                del module.__dict__[name]
            else:
                module.__dict__[name] = before
            module.__dict__.pop(CONSTANTS, None)
