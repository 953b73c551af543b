"""Patch a model for one forward pass so that its gradient is the exact decomposition, and put everything back.

While `frozen(...)` is entered
1. norms compute their closed form with the scale held fixed (`norms`);
2. activations pass a gradient as if their slope were the value they took: phi(s)/s for a plain MLP, none for a gate (`secant`: phi(s)/s
   everywhere, and half of a product to each factor, see `secant_mlp`);
3. attention runs through `attention` by the method's rule;
4. weights stay in their own number format, but are raised to float32 where they meet an activation, one layer at a time;
5. parameters ask for no gradient.
On exit, also by an exception, every module, hook and option is as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from transformers.pytorch_utils import Conv1D

from tracestore.extract import attention
from tracestore.extract.attention import AttentionState, Rule
from tracestore.extract.families import MlpKind, private
from tracestore.extract.layout import GENERIC, ModelLayout
from tracestore.extract.norms import FrozenNorm
from tracestore.extract.secant_mlp import secant_activation

HALF = (torch.bfloat16, torch.float16)


class _RaisedLinear(torch.autograd.Function):
    """x W' with W kept in its own number format: raised when used, forwards and backwards, never stored raised."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        """Multiply `x` [..., in] by `weight` [out, in]."""
        ctx.weight = weight
        return functional.linear(x, weight.to(x.dtype))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        """Give the gradient of x."""
        return torch.matmul(grads[0], ctx.weight.to(grads[0].dtype)), None


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Apply a linear layer in the number format of `x` [..., in]; `weight` [out, in]."""
    if weight.dtype == x.dtype:
        return functional.linear(x, weight, bias)
    out: Tensor = _RaisedLinear.apply(x, weight)
    return out if bias is None else out + bias.to(out.dtype)


def weight_and_bias(module: nn.Module) -> tuple[Tensor, Tensor | None] | None:
    """Give weight [out, in] and bias of a linear module, or None for another module."""
    if isinstance(module, Conv1D):
        return module.weight.T, module.bias
    if isinstance(module, nn.Linear):
        return module.weight, module.bias
    return None


@contextmanager
def replaced_forward(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """Let `module` compute `forward` for a while."""
    had = module.__dict__.get("forward")
    module.__dict__["forward"] = forward
    try:
        yield
    finally:
        if had is None:
            del module.__dict__["forward"]
        else:
            module.__dict__["forward"] = had


def frozen_gate(forward: Callable[..., Any]) -> Callable[..., Any]:
    """Freeze an activation whose output multiplies another branch: no gradient goes through it."""

    def gate(*args: Any, **kwargs: Any) -> Any:
        with torch.no_grad():
            return forward(*args, **kwargs).detach()

    return gate


def frozen_ratio(forward: Callable[..., Any]) -> Callable[..., Any]:
    """Freeze an activation in a plain MLP: phi(s) = s * (phi(s)/s), the ratio a constant; phi'(0) at 0."""

    def ratio(s: Tensor) -> Tensor:
        with torch.no_grad():
            value = forward(s)
            slope = torch.where(s == 0, torch.zeros_like(s), value / torch.where(s == 0, torch.ones_like(s), s))
            if bool((s == 0).any()):
                step = torch.full_like(s, 1e-4)
                slope = torch.where(s == 0, (forward(step) - forward(-step)) / (2 * step), slope)
                slope = torch.where((s == 0) & (value != 0), torch.zeros_like(s), slope)
        return s * slope

    return ratio


def _raise_embedding(module: nn.Module) -> Callable[..., Any]:
    forward = module.forward
    return lambda *args, **kwargs: forward(*args, **kwargs).to(torch.float32)


def _raised(module: nn.Module) -> Callable[[Tensor], Tensor]:
    if isinstance(module, Conv1D):
        return lambda x: linear(x, module.weight.T, module.bias)
    return lambda x: linear(x, module.weight, module.bias)  # type: ignore[arg-type]


_FIXED = frozenset(
    {
        *(torch.sigmoid, functional.sigmoid, Tensor.sigmoid, Tensor.sigmoid_),
        *(torch.tanh, functional.tanh, Tensor.tanh, functional.softplus),
        *(torch.softmax, functional.softmax, Tensor.softmax),
    }
)
_ACTIVATIONS = frozenset(
    {functional.silu, functional.gelu, functional.relu, torch.relu, Tensor.relu, functional.relu6, functional.leaky_relu, functional.elu}
)
_MIXING = frozenset({torch.matmul, Tensor.matmul, Tensor.__matmul__, torch.bmm, Tensor.bmm, functional.layer_norm, torch.addmm})


class FrozenFunctions(TorchFunctionMode):
    """Freeze what an architecture without a table calls as functions: gates and router weights; activations by the MLP's kind.

    A linear map of half-precision weights is raised as `linear` does.
    """

    def __init__(self, freeze: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
        super().__init__()
        self._freeze = freeze

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call `func` frozen when it is a gate or an activation."""
        kwargs = kwargs or {}
        if func in _FIXED:
            return frozen_gate(func)(*args, **kwargs)
        if func in _ACTIVATIONS:
            return self._freeze(lambda x: func(x, *args[1:], **kwargs))(args[0])
        if func is functional.linear and args[0].dtype != args[1].dtype:
            return linear(*args, *([None] if len(args) + len(kwargs) < 3 else []), **kwargs)
        if func in _MIXING:
            args = _raise_half(args)
        return func(*args, **kwargs)


def _raise_half(args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Raise half-precision tensors that meet float32 ones; others are left alone."""
    kinds = {a.dtype for a in args if isinstance(a, Tensor)}
    if torch.float32 not in kinds or not kinds & set(HALF):
        return args
    return tuple(a.to(torch.float32) if isinstance(a, Tensor) and a.dtype in HALF else a for a in args)


@contextmanager
def frozen(model: Any, layout: ModelLayout, norms: dict[nn.Module, FrozenNorm], state: AttentionState) -> Iterator[None]:
    """Hold every non-linearity of `model` fixed while a forward pass runs; `norms` are the closed forms of its norm modules.

    By the rule `gradient` nothing is held fixed; the number formats and the attention function are as for the methods.
    """
    with ExitStack() as stack:
        quieten(model, stack)
        inside = {m for block in layout.blocks for m in block.attention.modules()} if state.method == "secant" else set()
        plain = state.method == "gradient"
        for module, form in norms.items():
            scaled = form.moving if plain else state.norm_scales.remembering(form) if module in inside else form
            stack.enter_context(replaced_forward(module, lambda x, *_, form=scaled, **__: form(x)))
        for block in layout.blocks if not plain else ():
            for activation in block.activations:
                stack.enter_context(replaced_forward(activation, _freezer(block.mlp, state.method)(activation.forward)))
        if next(model.parameters()).dtype in HALF:
            for module in model.modules():
                if isinstance(module, nn.Embedding):
                    stack.enter_context(replaced_forward(module, _raise_embedding(module)))
                elif type(module).forward in (nn.Linear.forward, Conv1D.forward):
                    stack.enter_context(replaced_forward(module, _raised(module)))
        use_attention(model, stack, state)
        if layout.family == GENERIC and not plain:
            stack.enter_context(FrozenFunctions(_freezer(layout.blocks[0].mlp, state.method)))
        yield


def _freezer(kind: MlpKind, method: Rule) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Choose how activations are held fixed."""
    if method == "secant":
        return secant_activation
    return frozen_gate if kind == "gated" else frozen_ratio


def quieten(model: Any, stack: ExitStack) -> None:
    """No dropout, no gradients of parameters."""
    for module in model.modules():
        if module.training:
            stack.callback(setattr, module, "training", True)
            module.training = False
    for parameter in model.parameters():
        if parameter.requires_grad:
            stack.callback(parameter.requires_grad_, True)
            parameter.requires_grad_(False)


def use_attention(model: Any, stack: ExitStack, state: AttentionState) -> None:
    """Let every attention of `model` run through `attention`, until `stack` is closed."""
    name = "eager" if private.attends_privately(model) else attention.NAME
    for config in _configs(model):
        if hasattr(config, "_attn_implementation"):
            stack.callback(setattr, config, "_attn_implementation_internal", config._attn_implementation_internal)
            config._attn_implementation_internal = name
    stack.enter_context(private.adapted(model, state.method))
    use_plain_experts(model, stack)
    attention.activate(state)
    stack.callback(attention.deactivate, state)


def use_plain_experts(model: Any, stack: ExitStack) -> None:
    """Let mixtures of experts run as plain loops, until `stack` is closed: the grouped kernels know neither float64 nor our gradient."""
    for config in _configs(model):
        if getattr(config, "_experts_implementation_internal", None) is not None:
            stack.callback(setattr, config, "_experts_implementation_internal", config._experts_implementation_internal)
            config._experts_implementation_internal = "eager"


def _configs(model: Any) -> list[Any]:
    return list({id(config): config for m in model.modules() if (config := getattr(m, "config", None)) is not None}.values())
