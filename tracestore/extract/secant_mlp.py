"""Activations and products of the method `secant`.

An activation passes on the ratio phi(s)/s as its slope (the identity rule); the product of an activation with another branch gives half
of its gradient to each. Where the product is written is the model's own affair: an activation's output is a tensor that knows what it is
and recognises its product when it meets one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from tracestore.extract.secant import HALF


class _Ratio(torch.autograd.Function):
    """phi(s) = s * (phi(s)/s), the ratio held fixed; phi'(0) at 0."""

    @staticmethod
    def forward(ctx: Any, s: Tensor, forward: Callable[..., Tensor]) -> Tensor:
        """Compute phi(s)."""
        value = forward(s)
        ctx.save_for_backward(s, value)
        ctx.forward = forward
        return value

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        """Give the gradient of s."""
        s, value = ctx.saved_tensors
        return grads[0] * ratio(s, value, ctx.forward), None


def ratio(s: Tensor, value: Tensor, forward: Callable[..., Tensor]) -> Tensor:
    """Give phi(s)/s for `value` = phi(s); phi'(0) at 0, and 0 where phi(0) is not 0 (nothing of that comes from s)."""
    slope = value / s
    if not math.isfinite(float(slope.sum())):
        step = torch.full_like(s, 1e-4)
        at_zero = (forward(step) - forward(-step)) / (2 * step)
        slope = torch.where(s == 0, torch.where(value == 0, at_zero, 0.0), slope)
    return slope


class _HalfProduct(torch.autograd.Function):
    """a * b that gives half of its relevance to each factor."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        """Multiply."""
        ctx.save_for_backward(a, b)
        return a * b

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        """Give the gradients of both factors."""
        a, b = ctx.saved_tensors
        g = HALF * grads[0]
        ga, gb = g * b, g.mul_(a)
        return ga if ga.shape == a.shape else ga.sum_to_size(a.shape), gb if gb.shape == b.shape else gb.sum_to_size(b.shape)


class _GatedProduct(torch.autograd.Function):
    """phi(s) * b, half to each: the same as both rules one after the other, but phi(s) is computed again instead of kept."""

    @staticmethod
    def forward(ctx: Any, s: Tensor, b: Tensor, value: Tensor, forward: Callable[..., Tensor]) -> Tensor:
        """Multiply `value` = phi(s) by `b`, of the same shape."""
        ctx.save_for_backward(s, b)
        ctx.forward = forward
        return value * b

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Give the gradients of s and b."""
        s, b = ctx.saved_tensors
        value = ctx.forward(s)
        g = HALF * grads[0]
        gs = (g * b).mul_(ratio(s, value, ctx.forward))
        return gs, g.mul_(value), None, None


_PRODUCTS = frozenset({torch.mul, torch.multiply, Tensor.mul, Tensor.multiply, Tensor.__mul__, Tensor.__rmul__})
_SAME = frozenset({functional.dropout, Tensor.to, Tensor.contiguous, Tensor.view, Tensor.reshape, Tensor.type_as, Tensor.float})


class Activated(Tensor):
    """An activation's output: its product with a tensor that depends on the input gives half to each."""

    source: tuple[Tensor, Callable[..., Tensor]] | None = None  # s and phi, where it is phi(s) itself

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call `func` on ordinary tensors; a product of two that depend on the input is a half product."""
        sources = [(at, a.source) for at, a in enumerate(args) if isinstance(a, Activated) and a.source is not None]
        args = tuple(_plain(a) if isinstance(a, Tensor) else a for a in args)
        if func in _PRODUCTS and all(isinstance(a, Tensor) and a.requires_grad for a in args):
            if len(sources) == 1 and args[0].shape == args[1].shape:
                at, (s, forward) = sources[0]
                return _GatedProduct.apply(s, args[1 - at], args[at].detach(), forward)
            return _HalfProduct.apply(*args)
        with torch._C.DisableTorchFunctionSubclass():
            out = func(*args, **(kwargs or {}))
        return out.as_subclass(cls) if func in _SAME else out


def _plain(x: Tensor) -> Tensor:
    with torch._C.DisableTorchFunctionSubclass():
        return x.as_subclass(Tensor)


def secant_activation(forward: Callable[..., Any]) -> Callable[..., Any]:
    """Let an activation pass on its ratio and mark what it gives."""

    def activate(s: Tensor) -> Tensor:
        out: Tensor = _Ratio.apply(s, forward)
        marked = out.as_subclass(Activated)
        marked.source = (s, forward)
        return marked

    return activate
