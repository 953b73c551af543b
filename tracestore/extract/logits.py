"""Read logits from final states: rows of the unembedding, their mean, scale constants and a final softcap.

What happens between lm_head and the logits is found by comparing the two on a real forward pass: nothing, a constant factor, or a
softcap of a factor. Anything else is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tracestore.errors import UnsupportedModelError
from tracestore.extract.freeze import HALF, linear, weight_and_bias


@dataclass(frozen=True, slots=True)
class LogitReader:
    """The unembedding: `weight` [V, d], `bias` [V] or None; logits = cap * tanh(scale * (W h + b) / cap)."""

    weight: Tensor
    bias: Tensor | None
    scale: float
    cap: float | None
    mean_weight: Tensor  # [d]
    mean_bias: float

    def row(self, h: Tensor) -> Tensor:
        """Give the logits [V] of one final state `h` [d], before a softcap."""
        out = linear(h.detach()[None], self.weight, self.bias)[0]
        return out * self.scale if self.scale != 1.0 else out

    def capped(self, row: Tensor) -> Tensor:
        """Give the logits as the model reports them."""
        return row if self.cap is None else self.cap * torch.tanh(row / self.cap)

    def direction(self, gauge: str, token: int, foil: int | None, like: Tensor) -> tuple[Tensor, float]:
        """Give the vector [d] and the bias whose < vector, h > + bias is the explained quantity."""
        vector, bias = self.weight[token].to(like.dtype), self._bias(token)
        if gauge == "centred":
            vector, bias = vector - self.mean_weight.to(like.dtype), bias - self.mean_bias
        elif gauge == "foil" and foil is not None:
            vector, bias = vector - self.weight[foil].to(like.dtype), bias - self._bias(foil)
        return vector * self.scale, bias * self.scale

    def _bias(self, token: int) -> float:
        return 0.0 if self.bias is None else float(self.bias[token])


def logit_reader(model: Any, head: nn.Module, input_ids: Tensor) -> LogitReader:
    """Find how `model` makes logits, by one forward pass on `input_ids` [1, T].

    Raises UnsupportedModelError when the logits are neither lm_head's output nor that scaled and capped.
    """
    found = weight_and_bias(head)
    if found is None:
        raise UnsupportedModelError(f"the output head of {type(model).__name__} is a {type(head).__name__}, not a linear layer")
    seen: list[Tensor] = []
    handle = head.register_forward_hook(lambda _m, _a, out: seen.append(out))
    try:
        with torch.no_grad():
            logits = model(input_ids=input_ids, use_cache=False).logits[0, -1].float()
    finally:
        handle.remove()
    if len(seen) != 1:
        raise UnsupportedModelError(f"{type(model).__name__} does not make its logits with its output embeddings once")
    raw = seen[0].reshape(-1, seen[0].shape[-1])[-1].float()
    scale, cap = _scale_and_cap(model, raw, logits)
    weight, bias = found[0].detach(), None if found[1] is None else found[1].detach()
    precise = torch.float64
    mean = weight.to(precise).mean(0) if weight.numel() < 1 << 24 else _blockwise_mean(weight)
    mean_bias = 0.0 if bias is None else float(bias.to(precise).mean())
    return LogitReader(weight, bias, scale, cap, mean, mean_bias)


def _blockwise_mean(weight: Tensor) -> Tensor:
    total = torch.zeros(weight.shape[1], dtype=torch.float64, device=weight.device)
    for rows in torch.split(weight, 8192):
        total += rows.sum(0, dtype=torch.float64)
    return total / weight.shape[0]


def _scale_and_cap(model: Any, raw: Tensor, logits: Tensor) -> tuple[float, float | None]:
    if raw.shape != logits.shape or not bool(torch.isfinite(raw).all()):
        if raw.shape == logits.shape:
            return 1.0, None  # broken weights: reported where logits are read
        raise UnsupportedModelError(f"the logits of {type(model).__name__} have another shape than its output head gives")
    config = model.config.get_text_config() if hasattr(model.config, "get_text_config") else model.config
    cap = getattr(config, "final_logit_softcapping", None)
    linear_part = logits if not cap else cap * torch.atanh((logits / cap).clamp(-0.999999, 0.999999))
    scale = float((linear_part * raw).sum() / raw.square().sum().clamp_min(1e-30))
    for named in (1.0, *_named_scales(config)):
        if abs(scale - named) < 1e-3 * abs(named):
            scale = named
            break
    expected = raw * scale if not cap else cap * torch.tanh(raw * scale / cap)
    gap = float((expected - logits).abs().max() / logits.abs().max().clamp_min(1e-6))
    half = next(model.parameters()).dtype in HALF
    if gap > (3e-2 if half else 1e-4):
        raise UnsupportedModelError(f"{type(model).__name__} does something to its logits after the output head that is not understood")
    return scale, cap or None


def _named_scales(config: Any) -> list[float]:
    named = []
    for name, power in (("logit_scale", 1), ("logits_scaling", -1), ("lm_head_multiplier", 1), ("output_multiplier_scale", 1)):
        value = getattr(config, name, None)
        if isinstance(value, float | int) and value:
            named.append(float(value) ** power)
    return named
