"""Recognise a normalisation layer by what it computes, never by its name alone.

1. Run the real module on random inputs, one of ordinary size and one so small that epsilon shows.
2. Compare with the closed forms  w x / sqrt(mean x^2 + eps) + b  and  w (x - mean x) / sqrt(var x + eps) + b,  with w the weight,
   1 + the weight, or ones.
3. The form that reproduces both is the frozen layer: the same product with the scale held fixed. None does: the model is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tracestore.errors import UnsupportedModelError
from tracestore.extract.layout import ModelLayout


@dataclass(frozen=True, slots=True)
class FrozenNorm:
    """A closed form of a normalisation layer: `weight` [width] or None for ones, `bias` [width] or None."""

    centred: bool
    eps: float
    weight: Tensor | None
    bias: Tensor | None

    def __call__(self, x: Tensor) -> Tensor:
        """Normalise `x` [..., width] in its own number format; the scale carries no gradient."""
        return self.scaled(x, None)[0]

    def moving(self, x: Tensor) -> Tensor:
        """Normalise `x` [..., width] with a scale that carries its gradient."""
        centred = x - x.mean(-1, keepdim=True) if self.centred else x
        return self.scaled(x, torch.rsqrt(centred.square().mean(-1, keepdim=True) + self.eps))[0]

    def scaled(self, x: Tensor, scale: Tensor | None) -> tuple[Tensor, Tensor]:
        """Normalise `x` with a given scale [..., 1], or its own; give that as well."""
        if self.centred:
            x = x - x.mean(-1, keepdim=True)
        if scale is None:
            with torch.no_grad():
                scale = torch.rsqrt(x.square().mean(-1, keepdim=True).add_(self.eps))
        out = x * scale
        if self.weight is not None:
            out = out * self.weight.to(x.dtype)
        if self.bias is not None:
            out = out + self.bias.to(x.dtype)
        return out, scale

    def scale(self, x: Tensor) -> Tensor:
        """Give the scale that is held fixed at `x` [..., width]: [..., 1]."""
        if self.centred:
            x = x - x.mean(-1, keepdim=True)
        return torch.rsqrt(x.square().mean(-1, keepdim=True) + self.eps)

    def linear(self, v: Tensor, scale: Tensor) -> Tensor:
        """Give D v for vectors `v` [..., width] where the scale is `scale` [..., 1]: the norm without its bias."""
        if self.centred:
            v = v - v.mean(-1, keepdim=True)
        v = v * scale
        return v if self.weight is None else v * self.weight.to(v.dtype)

    def transposed(self, g: Tensor, scale: Tensor) -> Tensor:
        """Give D' g for gradients `g` [..., width]."""
        g = g * scale
        if self.weight is not None:
            g = g * self.weight.to(g.dtype)
        return g - g.mean(-1, keepdim=True) if self.centred else g


class NormScales:
    """Remembers at which scales norms ran, so that they can run again at the same: in `replay`, in order of their calls."""

    def __init__(self) -> None:
        self.replay = False
        self._noted: list[list[Tensor]] = []

    def remembering(self, form: FrozenNorm) -> Callable[[Tensor], Tensor]:
        """Wrap a norm."""
        noted: list[Tensor] = []
        self._noted.append(noted)

        def norm(x: Tensor) -> Tensor:
            out, scale = form.scaled(x, noted.pop(0) if self.replay else None)
            if not self.replay:
                noted.append(scale)
            return out

        return norm

    def forget(self) -> None:
        """Drop what was noted."""
        for noted in self._noted:
            noted.clear()


def looks_like_norm(module: nn.Module) -> bool:
    """Tell whether a module claims to be a normalisation layer (then `recognise` must prove it)."""
    return isinstance(module, nn.LayerNorm | nn.RMSNorm) or "norm" in type(module).__name__.lower()


def _epsilon(module: nn.Module) -> float:
    for name in ("variance_epsilon", "eps", "epsilon", "norm_eps", "layer_norm_eps"):
        value = getattr(module, name, None)
        if isinstance(value, float | int):
            return float(value)
    return 0.0


def _shapes(module: nn.Module, width: int) -> tuple[tuple[int, ...], ...]:
    weight = getattr(module, "weight", None)
    if isinstance(weight, Tensor) and weight.dim() > 1:  # one gain per head
        return ((2, 3, *weight.shape), (2, *weight.shape[:-1], 3, weight.shape[-1]))
    return ((2, 3, width),)


def _candidates(module: nn.Module) -> list[FrozenNorm]:
    weight, bias = getattr(module, "weight", None), getattr(module, "bias", None)
    shift = bias.detach() if isinstance(bias, Tensor) else None
    gains: list[Tensor | None] = [None]
    if isinstance(weight, Tensor):
        gains = [weight.detach(), 1 + weight.detach().to(torch.promote_types(weight.dtype, torch.float32)), None]
    eps = _epsilon(module)
    return [
        FrozenNorm(centred, e, gain, shift) for gain in gains for centred in (False, True) for e in dict.fromkeys((eps, 0.0, 1e-5, 1e-6))
    ]


def recognise(module: nn.Module, width: int) -> FrozenNorm | None:
    """Find the closed form of `module` over vectors of `width`, or None when none reproduces it."""
    parameter = next(module.parameters(), None)
    dtype = torch.float32 if parameter is None else parameter.dtype
    device = torch.device("cpu") if parameter is None else parameter.device
    weight = getattr(module, "weight", None)
    if isinstance(weight, Tensor) and weight.numel() > 0:
        width = weight.shape[-1]
    generator = torch.Generator().manual_seed(0)
    half = dtype in (torch.bfloat16, torch.float16)
    for shape in _shapes(module, width):
        base = torch.randn(shape, generator=generator).to(device)
        probes = [(base + 0.3).to(dtype), (base * 1e-3).to(dtype)]
        try:
            with torch.no_grad():
                wanted = [module(probe) for probe in probes]
        except (RuntimeError, TypeError, ValueError, IndexError):
            continue
        for form in _candidates(module):
            if all(_agree(form, probe, want, 3e-2 if half else 2e-5) for probe, want in zip(probes, wanted, strict=True)):
                return form
    return None


def _agree(form: FrozenNorm, probe: Tensor, wanted: object, tolerance: float) -> bool:
    if not isinstance(wanted, Tensor) or wanted.shape != probe.shape:
        return False
    try:
        found = form(probe.to(torch.promote_types(probe.dtype, torch.float32)))
    except RuntimeError:
        return False
    scale = float(wanted.abs().max().clamp_min(1e-9))
    return float((found - wanted.to(found.dtype)).abs().max()) <= tolerance * scale


def recognise_all(layout: ModelLayout) -> dict[nn.Module, FrozenNorm]:
    """Prove every norm of the decoder layers and the final one. Those inside attention may be left as they are (queries and keys)."""
    forms: dict[nn.Module, FrozenNorm] = {}
    inside = {m for block in layout.blocks for m in block.attention.modules()}
    modules = [m for block in layout.blocks for m in block.layer.modules()] + [layout.final_norm]
    for module in modules:
        if module is not layout.final_norm and not (looks_like_norm(module) and not any(module.children())):
            continue
        form = recognise(module, layout.width)
        if form is not None:
            forms[module] = form
        elif module not in inside:
            raise UnsupportedModelError(
                f"{type(module).__name__} is neither an RMSNorm nor a LayerNorm in any known form, so it cannot be held fixed exactly"
            )
    return forms
