"""Watch one frozen forward pass, and turn each backward pass through it into node relevances.

Forward: hooks note the very tensors that carry the residual stream (x_pre, x_mid), what each MLP reads and writes, and every output
that had a bias added. Backward: a hook on each of these tensors reduces its gradient at once to numbers per position, so that no
gradient is stored. All of them are of the form <gradient, tensor>; biases are <gradient, bias>, each computed on its own and never as
what is missing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any
from weakref import ref

import torch
from torch import Tensor, nn

from tracestore.errors import UnsupportedModelError
from tracestore.extract.address_wiring import AddressReading, Turn
from tracestore.extract.attention import AttentionState, HeadGradients
from tracestore.extract.families.private import CONSTANTS, writer_of
from tracestore.extract.freeze import weight_and_bias
from tracestore.extract.layout import BlockLayout, FeedForward, ModelLayout
from tracestore.extract.norms import FrozenNorm


@dataclass(slots=True)
class NodeSums:
    """What one backward pass found, tensors [L, T] (`pre*` [L+1, T])."""

    pre: Tensor
    pre_bias: Tensor
    mid: Tensor
    mid_bias: Tensor
    residual_in: Tensor
    residual_out: Tensor
    mlp: Tensor
    mlp_bias: Tensor
    reads: Tensor

    @staticmethod
    def zeros(layers: int, length: int, like: Tensor) -> NodeSums:
        """Start from nothing."""
        return NodeSums(*(like.new_zeros(layers + (name in ("pre", "pre_bias")), length) for name in NodeSums.__slots__))


@dataclass(slots=True)
class ReaderGradients:
    """What one backward pass leaves for the compositions: the gradients at every head's inputs, and per layer the one at what the MLP reads
    [T, d]."""

    heads: HeadGradients = field(default_factory=HeadGradients)
    mlp: dict[int, Tensor] = field(default_factory=dict)

    def add_mlp(self, layer: int, g: Tensor) -> None:
        """Add the gradient [T, d] of one part of a layer's MLP."""
        self.mlp[layer] = g if layer not in self.mlp else self.mlp[layer] + g


@dataclass(slots=True, weakref_slot=True, eq=False)
class Capture:
    """The tensors of one forward pass, and where the running backward pass adds its numbers.

    Gradient hooks refer to it weakly: a hook that held its own tensor would keep the whole graph alive for ever.
    """

    layout: ModelLayout
    norms: dict[nn.Module, FrozenNorm]
    state: AttentionState
    x0: Tensor | None = None
    pre: list[Tensor] = field(default_factory=list)
    mid: dict[int, Tensor] = field(default_factory=dict)
    final: Tensor | None = None  # output of the final norm [B, T, d]
    sums: NodeSums | None = None
    readers: ReaderGradients | None = None  # filled by the running backward pass where compositions are asked for
    batch: int = 0
    watched: list[Tensor] = field(default_factory=list)
    written: dict[int, list[Tensor]] = field(default_factory=dict)  # layer -> what its MLPs write
    attended: dict[int, Tensor] = field(default_factory=dict)  # layer -> output of its attention module
    readings: Sequence[tuple[AddressReading, AddressReading]] = ()  # of every layer's queries and keys, where `turns` are asked for
    turns: dict[int, tuple[Turn, Turn]] = field(default_factory=dict)  # layer -> of its queries, of its keys
    _projected: dict[nn.Module, Tensor] = field(default_factory=dict)  # what the linear layers of `readings` gave, until it is used

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Install the hooks for a forward pass."""
        with ExitStack() as stack:

            def add(handle: Any) -> None:
                stack.callback(handle.remove)

            for layer, block in enumerate(self.layout.blocks):
                add(block.layer.register_forward_pre_hook(self._enter(layer), with_kwargs=True))
                if block.mid_reader is not None:
                    add(block.mid_reader.register_forward_pre_hook(self._read_mid(layer), with_kwargs=True))
                for part in block.feed_forward:
                    add(part.reader.register_forward_pre_hook(self._read_mlp(layer, block), with_kwargs=True))
                    add(part.writer.register_forward_hook(self._write_mlp(layer, part)))
                if self.state.keep:
                    add(writer_of(block.attention).register_forward_hook(self._attend(layer)))
                self._watch_biases(layer, block, add)
            for module in {reading.module for pair in self.readings for reading in pair}:
                add(module.register_forward_hook(self._project))
            if self.readings:
                me = ref(self)  # the state is known to the graph, which may not know its own tensors
                self.state.turning = lambda layer, query, key: _turn(me(), layer, query, key)
            add(self.layout.final_norm.register_forward_pre_hook(self._enter(len(self.layout.blocks)), with_kwargs=True))
            add(self.layout.final_norm.register_forward_hook(self._finish))
            yield

    # what the hooks do ------------------------------------------------------------------------------------------------------------

    def _enter(self, layer: int) -> Callable[..., Any]:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            x, put = hidden_argument(module, args, kwargs)
            changed = None
            if layer == 0:
                x = x.detach().requires_grad_(True)
                self.x0, changed = x, put(x)
            if layer == len(self.layout.blocks) and len(self.pre) < layer:
                return None  # the final norm also serves elsewhere, earlier
            if len(self.pre) != layer:
                raise UnsupportedModelError(f"{type(module).__name__} runs out of order or twice: layers must run once each, in order")
            self.pre.append(x)
            if layer > 0:
                self._on_gradient(x, lambda capture, g, x: capture._reached_pre(layer, g, x))
            return changed

        return hook

    def _reached_pre(self, layer: int, g: Tensor, x: Tensor) -> None:
        sums = self._sums()
        sums.pre[layer] = self._dot(g, x)
        sums.residual_out[layer - 1] = self._dot(g, self.mid.get(layer - 1, self.pre[layer - 1]))

    def _read_mid(self, layer: int) -> Callable[..., Any]:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            x, _ = hidden_argument(module, args, kwargs)
            if layer in self.mid:
                raise UnsupportedModelError(f"{type(module).__name__} runs twice in layer {layer}")
            self.mid[layer] = x
            self._on_gradient(x, lambda capture, g, x: capture._reached_mid(layer, g, x))

        return hook

    def _reached_mid(self, layer: int, g: Tensor, x: Tensor) -> None:
        sums = self._sums()
        sums.mid[layer] = self._dot(g, x)
        sums.residual_in[layer] = self._dot(g, self.pre[layer])

    def _read_mlp(self, layer: int, block: BlockLayout) -> Callable[..., Any]:
        norm = self.norms.get(block.feed_forward_norm) if block.feed_forward_norm is not None else None
        bias = None if norm is None else norm.bias

        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            x, put = hidden_argument(module, args, kwargs)
            u = x.view_as(x)  # a node of its own: an attention that reads the same tensor stays apart
            self._on_gradient(u, lambda capture, g, u: capture._reached_mlp(layer, bias, g, u))
            return put(u)

        return hook

    def _reached_mlp(self, layer: int, bias: Tensor | None, g: Tensor, u: Tensor) -> None:
        sums = self._sums()
        if self.readers is not None:
            self.readers.add_mlp(layer, self._row(g))
        read = self._dot(g, u)
        if bias is not None:
            shift = self._along(g, bias)
            read = read - shift
            sums.mlp_bias[layer] += shift
        sums.reads[layer] += read

    def _write_mlp(self, layer: int, part: FeedForward) -> Callable[..., Any]:
        def hook(_: nn.Module, __: tuple[Any, ...], output: Any) -> None:
            written = output[0] if isinstance(output, tuple) else output
            self.written.setdefault(layer, []).append(written)
            self._on_gradient(written, lambda capture, g, x: capture._add("mlp", layer, capture._dot(g, x)))
            for module in part.modules:
                constant = module.__dict__.get(CONSTANTS)
                if constant is not None:
                    self._on_gradient(written, _constant_part(layer, constant))

        return hook

    def _attend(self, layer: int) -> Callable[..., Any]:
        def hook(_: nn.Module, __: tuple[Any, ...], output: Any) -> None:
            self.attended[layer] = output[0] if isinstance(output, tuple) else output

        return hook

    def _watch_biases(self, layer: int, block: BlockLayout, add: Callable[[Any], None]) -> None:
        inside = {module for part in block.feed_forward for module in part.modules}
        readers = {block.attention_norm, block.feed_forward_norm}
        attention = set(block.attention.modules())
        for module in block.layer.modules():
            bias = bias_of(module, self.norms)
            if bias is None or module in readers:
                continue
            place = "mlp" if module in inside else "attention" if module in attention else "block"
            add(module.register_forward_hook(self._biased(layer, bias, place)))

    def _biased(self, layer: int, bias: Tensor, place: str) -> Callable[..., Any]:
        def hook(module: nn.Module, _: tuple[Any, ...], output: Tensor) -> None:
            if place == "attention" and (layer not in self.state.called or self.state.record is not None):
                return  # a bias of queries, keys or values: inside the pattern, or in the heads' own bias
            after_mlp = place == "block" and layer in self.mid and module is not self.layout.blocks[layer].mid_reader
            shape = self.pre[layer].shape[:2]
            if output.shape[:-1] != shape and output.shape[0] != shape[0] * shape[1]:
                raise UnsupportedModelError(f"{type(module).__name__} in layer {layer} adds a bias to some of the tokens only")

            kind, where = "mid_bias", layer
            if place == "mlp":
                kind = "mlp_bias"
            elif after_mlp or self.layout.parallel:
                kind, where = "pre_bias", layer + 1
            self._on_gradient(output, lambda capture, g, _: capture._add(kind, where, capture._along(g, bias)))

        return hook

    def _add(self, kind: str, layer: int, numbers: Tensor) -> None:
        getattr(self._sums(), kind)[layer] += numbers

    def _on_gradient(self, x: Tensor, arrived: Callable[[Capture, Tensor, Tensor], None]) -> None:
        """Let `arrived(capture, gradient, x)` run whenever a gradient reaches `x`."""
        if not x.requires_grad:
            return
        number, me = len(self.watched), ref(self)
        self.watched.append(x)

        def hook(g: Tensor) -> None:
            capture = me()
            if capture is not None and capture.sums is not None:
                arrived(capture, g, capture.watched[number])

        x.register_hook(hook)  # type: ignore[no-untyped-call]

    def _project(self, module: nn.Module, _: tuple[Any, ...], output: Tensor) -> None:
        if self.state.record is None:
            self._projected[module] = output

    def _finish(self, _: nn.Module, __: tuple[Any, ...], output: Tensor) -> None:
        self.final = output

    def _row(self, x: Tensor) -> Tensor:
        """Give the positions [T, width] of the batch row that is explained; some modules flatten batch and positions."""
        batch, length = self.pre[0].shape[:2]
        return x.detach().reshape(batch, length, -1)[self.batch]

    def _dot(self, g: Tensor, x: Tensor) -> Tensor:
        """<g, x> at every position: [T]."""
        return (self._row(g) * self._row(x)).sum(-1)

    def _along(self, g: Tensor, bias: Tensor) -> Tensor:
        return torch.mv(self._row(g), bias.to(g.dtype))

    def _sums(self) -> NodeSums:
        if self.sums is None:
            raise RuntimeError("a backward pass runs outside `attribute`")
        return self.sums


def _turn(capture: Capture | None, layer: int, query: Tensor, key: Tensor) -> None:
    """Note what became of a layer's queries and keys behind the linear layers that made them."""
    assert capture is not None
    made = zip(capture.readings[layer], (query, key), strict=True)
    first, second = (reading.turn(x, capture._projected[reading.module]) for reading, x in made)
    capture.turns[layer] = (first, second)
    for reading in capture.readings[layer]:
        capture._projected.pop(reading.module, None)


def bias_of(module: nn.Module, norms: Mapping[nn.Module, FrozenNorm]) -> Tensor | None:
    """Give the bias of a norm or a linear layer, or None."""
    if module in norms:
        return norms[module].bias
    found = weight_and_bias(module)
    return None if found is None else found[1]


def _constant_part(layer: int, constant: Tensor) -> Callable[[Capture, Tensor, Tensor], None]:
    """Count what biases made of an MLP's output [T, d] as bias of the layer's MLP."""

    def arrived(capture: Capture, g: Tensor, _: Tensor) -> None:
        capture._add("mlp_bias", layer, capture._dot(g, constant))

    return arrived


def hidden_argument(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Tensor, Callable[[Tensor], Any]]:
    """Find the hidden states among a module's arguments, and how to hand over others in their place."""
    if args and isinstance(args[0], Tensor):
        return args[0], lambda x: ((x, *args[1:]), kwargs)
    for name in ("hidden_states", "x", "hidden_state", "inputs"):
        if isinstance(kwargs.get(name), Tensor):
            return kwargs[name], lambda x, name=name: (args, {**kwargs, name: x})
    raise UnsupportedModelError(f"the hidden states were not found among the arguments of {type(module).__name__}")
