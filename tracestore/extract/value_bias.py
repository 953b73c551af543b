"""The part of every layer's values that biases make, found by running its attention on the bias of its input norm alone.

A value is W_V (D x + b_n) + b_V: an edge carries W_V D x only, and W_V b_n + b_V belongs to the head's own bias. Running the attention
module on b_n gives the latter whatever projections it holds (fused, grouped); the run stops where the values reach the attention
function.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from tracestore.extract.attention import AttentionState, InputsRecordedError
from tracestore.extract.capture import hidden_argument
from tracestore.extract.layout import ModelLayout
from tracestore.extract.norms import FrozenNorm


def find_value_bias(
    model: Any,
    layout: ModelLayout,
    norms: Mapping[nn.Module, FrozenNorm],
    state: AttentionState,
    given: Mapping[str, Tensor],
) -> dict[int, Tensor]:
    """Give the bias part of the values [Hkv, D] of every layer that has one; `model` is frozen and `given` its input."""
    found: dict[int, Tensor] = {}
    handles = []
    for layer, block in enumerate(layout.blocks):
        form = norms.get(block.attention_norm) if block.attention_norm is not None else None
        shift = None if form is None else form.bias
        inside = [m for m in block.attention.modules() if getattr(m, "bias", None) is not None]
        if shift is None and not inside:
            continue
        handles.append(block.attention.register_forward_pre_hook(_probe(layer, block.attention, shift, state, found), with_kwargs=True))
    if handles:
        try:
            with torch.no_grad():
                model.base_model(use_cache=False, **given)
        finally:
            for handle in handles:
                handle.remove()
            state.called.clear()
            state.kept.clear()
    return found


def _probe(layer: int, attention: Any, shift: Tensor | None, state: AttentionState, found: dict[int, Tensor]) -> Any:
    """Make a hook that runs `attention` on the norm's bias alone and notes the values it makes, [Hkv, D]."""

    def hook(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if state.record is not None:
            return
        x, put = hidden_argument(attention, args, kwargs)
        alone = torch.zeros_like(x) if shift is None else shift.to(x.dtype).expand_as(x).contiguous()
        changed_args, changed_kwargs = put(alone)
        state.record = []
        try:
            attention(*changed_args, **changed_kwargs)
        except InputsRecordedError:
            value = state.record[0][2][0, :, 0].detach().clone()
            if bool(value.any()):
                found[layer] = value
        finally:
            state.record = None

    return hook
