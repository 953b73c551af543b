"""How the heads and MLPs of a model are wired to its residual stream, found by watching one forward pass and proven on it.

Per layer, with D the frozen input norm and P the frozen post-norm where there is one (else the identity):

    values       v(t) = W_V D x(t) + bias            rows of one linear layer inside attention, found by address
    head write   c P( W_O^h z_h(t) )                 the linear layer that reads the heads' outputs; its bias is a writer of its own
    MLP write    c P( m(t) )                         m: what the MLP writes, its biases included

1. Watch a short prompt: what every linear layer and every norm reads and writes.
2. Follow the addresses; c is the gradient of ones, which must be constant.
3. Prove: the values, and x after = x before + everything that was written. What is not so is refused by name: such a model has traces,
   but neither compositions nor paths.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from tracestore.errors import UnsupportedModelError
from tracestore.extract.capture import Capture, hidden_argument
from tracestore.extract.freeze import weight_and_bias
from tracestore.extract.layout import BlockLayout, FeedForward
from tracestore.extract.norms import FrozenNorm

if TYPE_CHECKING:
    from tracestore.extract.attribute import Attributor

PROBE_TOKENS = 8


@dataclass(frozen=True, slots=True)
class Write:
    """What is done to a vector before it is added to the residual stream: a frozen post-norm, then a constant factor."""

    post: FrozenNorm | None
    factor: float

    def apply(self, v: Tensor, scale: Tensor | None) -> Tensor:
        """Give c P v for `v` [..., d]; `scale` [..., 1] is that of the post-norm where there is one."""
        if self.post is not None and scale is not None:
            v = self.post.linear(v, scale)
        return v if self.factor == 1.0 else v * self.factor

    def transposed(self, g: Tensor, scale: Tensor | None) -> Tensor:
        """Give c P' g for gradients `g` [..., d]."""
        if self.factor != 1.0:
            g = g * self.factor
        return g if self.post is None or scale is None else self.post.transposed(g, scale)

    def scale(self, y: Tensor) -> Tensor | None:
        """Give the post-norm's scale where the whole written vector is `y` [..., d]: [..., 1]."""
        return None if self.post is None else self.post.scale(y)

    def bias(self, like: Tensor) -> Tensor | None:
        """Give what the post-norm's own bias adds [d]."""
        return None if self.post is None or self.post.bias is None else self.post.bias.to(like.dtype) * self.factor


@dataclass(frozen=True, slots=True)
class MlpCall:
    """How the layer calls a part of its MLP, to call it again on other rows. `refused` says why that cannot be."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    refused: str | None = None

    def __call__(self, part: FeedForward, u: Tensor) -> Tensor:
        """Run `part` on rows `u` [1, n, d]; give what it writes, before a residual stream that some add inside."""
        written: list[Tensor] = []
        handle = part.writer.register_forward_hook(lambda _m, _a, out: written.append(out[0] if isinstance(out, tuple) else out))
        hidden, put = hidden_argument(part.reader, self.args, dict(self.kwargs))
        args, kwargs = put(u)
        zero = torch.zeros_like(u)

        def fit(given: Any) -> Any:
            return zero if isinstance(given, Tensor) and given is not u and given.shape == hidden.shape else given

        try:
            part.reader(*map(fit, args), **{name: fit(given) for name, given in kwargs.items()})
        finally:
            handle.remove()
        return written[0]


@dataclass(frozen=True, slots=True)
class LayerWiring:
    """One layer. `value` [Hkv, D, d] and `output` [H, D, d] are matrices in the weights' own number format."""

    value: Tensor
    output: Tensor
    output_bias: Tensor | None  # [d]
    projection: nn.Module  # the linear layer that `output` is
    attention_norm: FrozenNorm | None
    attention_write: Write
    mlp_norm: FrozenNorm | None
    mlp_writes: tuple[Write, ...]  # one for each part of the MLP
    calls: tuple[MlpCall, ...]  # likewise

    def reading(self, dtype: torch.dtype) -> Tensor:
        """Give W_V with the input norm at scale one folded in, [Hkv, D, d]: the gradient at x(t) is scale(t) times that of the values."""
        value = self.value.to(dtype)
        return value if self.attention_norm is None else self.attention_norm.transposed(value, value.new_ones(1))

    def writing(self, dtype: torch.dtype) -> Tensor:
        """Give W_O with the post-norm at scale one and the factor folded in, [H, D, d]."""
        output = self.output.to(dtype)
        return self.attention_write.apply(output, output.new_ones(1))


@dataclass(slots=True)
class _Watched:
    """What linear layers and norms read and wrote, in order of calling; tensors are held so that no address is used twice."""

    read: dict[nn.Module, Tensor] = field(default_factory=dict)
    wrote: dict[nn.Module, Tensor] = field(default_factory=dict)
    calls: dict[nn.Module, MlpCall] = field(default_factory=dict)  # readers of MLPs
    attended: set[nn.Module] = field(default_factory=set)  # linear layers that were called after their layer had attended

    def norm_of(self, y: Tensor, norms: dict[nn.Module, FrozenNorm]) -> nn.Module | None:
        """Find the norm that reads the very tensor `y`."""
        return next((m for m, x in self.read.items() if m in norms and _same(x, y)), None)


def _same(a: Tensor, b: Tensor) -> bool:
    return a.data_ptr() == b.data_ptr() and a.numel() == b.numel()


def find_wiring(attributor: Attributor) -> tuple[LayerWiring, ...]:
    """Find and prove the wiring of `attributor`'s model. Raises UnsupportedModelError with the reason when it has another form."""
    name = type(attributor.model).__name__
    layout, watched = attributor.layout, _Watched()
    with ExitStack() as stack:
        for layer, block in enumerate(layout.blocks):
            for module in block.layer.modules():
                if module in attributor.norms or weight_and_bias(module) is not None:
                    stack.callback(module.register_forward_hook(_note(watched, attributor, layer)).remove)
            for part in block.feed_forward:
                stack.callback(part.reader.register_forward_pre_hook(_note_call(watched, part), with_kwargs=True).remove)
        watched_run = attributor.forward(attributor.short_prompt(PROBE_TOKENS), {}, "frozen", keep=True)
    try:
        return tuple(_Layer(name, attributor, watched_run, watched, i, block).find() for i, block in enumerate(layout.blocks))
    finally:
        watched_run.state.kept.clear()


def _note(watched: _Watched, attributor: Attributor, layer: int) -> Any:
    def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if module in watched.read or not args or not isinstance(output, Tensor):
            return
        watched.read[module], watched.wrote[module] = args[0], output
        state = attributor.running
        if state is not None and layer in state.called:
            watched.attended.add(module)

    return hook


def _note_call(watched: _Watched, part: FeedForward) -> Any:
    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given = [a for a in (*args, *kwargs.values()) if isinstance(a, Tensor)]
        refused = None
        if part.writer not in set(part.reader.modules()):
            refused = "the MLP is no module of its own"
        elif any(a.shape != given[0].shape for a in given):
            refused = "the MLP reads more than the residual stream"
        watched.calls[module] = MlpCall(tuple(map(_detached, args)), {name: _detached(a) for name, a in kwargs.items()}, refused)

    return hook


def _detached(given: Any) -> Any:
    return given.detach() if isinstance(given, Tensor) else given


@dataclass(frozen=True, slots=True)
class _Layer:
    name: str
    attributor: Attributor
    capture: Capture
    watched: _Watched
    layer: int
    block: BlockLayout

    def refuse(self, what: str) -> UnsupportedModelError:
        return UnsupportedModelError(f"{self.name} has no compositions and paths: {what} in layer {self.layer}")

    def find(self) -> LayerWiring:
        """Put the layer together, and prove it."""
        norms, block = self.attributor.norms, self.block
        attention_norm = None if block.attention_norm is None else norms.get(block.attention_norm)
        mlp_norm = None if block.feed_forward_norm is None else norms.get(block.feed_forward_norm)
        projection, output, output_bias = self._projection()
        before = self.capture.pre[self.layer]
        middle = self.capture.mid.get(self.layer)
        after = self.capture.pre[self.layer + 1]
        written = self.watched.wrote[projection]
        attention_write = self._write(written, after if middle is None else middle)
        parts = self.capture.written.get(self.layer, [])
        wiring = LayerWiring(
            value=self._value(before, attention_norm),
            output=output,
            output_bias=output_bias,
            projection=projection,
            attention_norm=attention_norm,
            attention_write=attention_write,
            mlp_norm=mlp_norm,
            mlp_writes=tuple(self._write(part, after) for part in parts),
            calls=tuple(self.watched.calls[part.reader] for part in self.block.feed_forward),
        )
        heads = self._heads_written(wiring, written)
        mlps = sum((_written(write, part) for write, part in zip(wiring.mlp_writes, parts, strict=True)), torch.zeros_like(after))
        if middle is None:
            self._prove(before + heads + mlps, after, "the residual stream is not the sum of what is written to it")
        else:
            self._prove(before + heads, middle, "the residual stream is not the sum of what attention writes to it")
            self._prove(middle + mlps, after, "the residual stream is not the sum of what the MLP writes to it")
        return wiring

    def _prove(self, found: Tensor, wanted: Tensor, what: str) -> None:
        if not _agree(found.detach(), wanted.detach()):
            raise self.refuse(what)

    def _value(self, before: Tensor, norm: FrozenNorm | None) -> Tensor:
        value = self.capture.state.kept[self.layer].value  # [B, Hkv, T, D]
        groups, width = value.shape[1], value.shape[3]
        for module in self.block.attention.modules():
            found, out = weight_and_bias(module), self.watched.wrote.get(module)
            if found is None or out is None:
                continue
            columns = _columns(value, out)
            if columns is None:
                continue
            first, last = int(columns[0]), int(columns[-1])
            if found[0].shape[1] != before.shape[-1]:
                raise self.refuse("values are not made of the normed residual stream")
            straight = last - first + 1 == len(columns) and bool((columns.diff() == 1).all())
            matrix = found[0][first : last + 1] if straight else found[0][columns.to(found[0].device)]
            read = before.detach() if norm is None else norm.linear(before.detach(), norm.scale(before.detach()))
            made = torch.matmul(read, matrix.to(read.dtype).T).view(*read.shape[:2], groups, width).transpose(1, 2)
            bias = self.capture.state.value_bias.get(self.layer)
            self._prove(made if bias is None else made + bias[None, :, None], value, "values are not linear in the normed residual stream")
            return matrix.detach().reshape(groups, width, -1)
        raise self.refuse("values are no slice of one linear layer's output")

    def _projection(self) -> tuple[nn.Module, Tensor, Tensor | None]:
        out = self.capture.state.kept[self.layer].out  # [B, T, H, D]
        inside = set(self.block.attention.modules())
        after = [m for m in self.watched.read if m in inside and m in self.watched.attended and weight_and_bias(m) is not None]
        if not after:
            raise self.refuse("no linear layer reads what the heads put out")
        if len(after) > 1 or not _same(self.watched.read[after[0]], out):
            raise self.refuse("something stands between the heads and their output projection")
        found = weight_and_bias(after[0])
        assert found is not None
        heads, width = out.shape[2], out.shape[3]
        return after[0], found[0].detach().T.reshape(heads, width, -1), None if found[1] is None else found[1].detach()

    def _write(self, y: Tensor, after: Tensor) -> Write:
        """Find what happens to `y` [B, T, d] until it is part of `after`."""
        norms = self.attributor.norms
        module = self.watched.norm_of(y, norms)
        if module in (self.block.attention_norm, self.block.feed_forward_norm, self.attributor.layout.final_norm):
            module = None
        end = y if module is None else self.watched.wrote[module]
        if not end.requires_grad:
            raise self.refuse("a written vector does not depend on the prompt")
        (slope,) = torch.autograd.grad(after, end, torch.ones_like(after), retain_graph=True, allow_unused=True)
        if slope is None:
            raise self.refuse("a written vector does not reach the residual stream")
        factor = float(slope.mean())
        if not float((slope - factor).abs().max()) <= 1e-6 * abs(factor):
            raise self.refuse("a written vector is changed before it is added to the residual stream")
        return Write(None if module is None else norms[module], 1.0 if abs(factor - 1.0) < 1e-6 else factor)

    def _heads_written(self, wiring: LayerWiring, written: Tensor) -> Tensor:
        out = self.capture.state.kept[self.layer].out.detach()
        heads = torch.einsum("bthk,hkd->btd", out, wiring.output.to(out.dtype))
        scale = wiring.attention_write.scale(written.detach().view_as(heads))
        total = wiring.attention_write.apply(heads, scale)
        if wiring.output_bias is not None:
            total = total + wiring.attention_write.apply(wiring.output_bias.to(total.dtype).expand_as(total), scale)
        bias = wiring.attention_write.bias(total)
        return total if bias is None else total + bias


def _agree(found: Tensor, wanted: Tensor) -> bool:
    tolerance = 1e-9 if wanted.dtype == torch.float64 else 1e-4
    return float((found - wanted).abs().max()) <= tolerance * float(wanted.abs().max().clamp_min(1e-6))


def _written(write: Write, part: Tensor) -> Tensor:
    part = part.detach()
    total, bias = write.apply(part, write.scale(part)), write.bias(part)
    return total if bias is None else total + bias


def _columns(value: Tensor, out: Tensor) -> Tensor | None:
    """Find which columns of a linear layer's output `out` [B, T, F] the values [B, Hkv, T, D] are, [Hkv * D], by address."""
    if value.untyped_storage().data_ptr() != out.untyped_storage().data_ptr() or not out.is_contiguous():
        return None
    features = out.shape[-1]
    if value.stride(2) != features or value.dtype != out.dtype:
        return None
    first = int(value.storage_offset() - out.storage_offset())
    groups, width = torch.arange(value.shape[1]), torch.arange(value.shape[3])
    columns: Tensor = (first + groups[:, None] * value.stride(1) + width[None, :] * value.stride(3)).reshape(-1)
    return columns if int(columns.min()) >= 0 and int(columns.max()) < features else None
