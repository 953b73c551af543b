"""Steps backwards through MLPs, for many paths of one layer at once.

The MLP is the model's own module under the method's patch, run again on the rows in question, so whatever the patch makes of activations,
gates and experts holds here too; that it writes again what it wrote in the forward pass is checked every time it runs.

Most MLPs are linear layers that read u, products and activations coordinate by coordinate, and a linear layer that writes. Held fixed, the
middle is one factor for each coordinate of each reader:

    gradient at u  =  sum over readers of W_r' ( c_r * W_w' g )

1. Where an MLP runs for the first time its linear layers say whether it looks like that; a random gradient, taken back by hand and by
   autograd, proves it.
2. Then the factors of a position are all that is kept, and no step there runs the module again. They do not depend on the target.
3. An MLP of another form (experts) runs again at every step.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from tracestore.errors import ConservationError
from tracestore.extract.attention import AttentionState
from tracestore.extract.capture import bias_of
from tracestore.extract.families.private import CONSTANTS
from tracestore.extract.freeze import frozen, weight_and_bias
from tracestore.extract.writers import Writers

if TYPE_CHECKING:
    from tracestore.extract.attribute import Attributor

RERUN_TOLERANCE = 1e-4


class Rows:
    """Vectors of one width that grow in number."""

    def __init__(self) -> None:
        self.count, self._rows = 0, torch.empty(0, 0)

    def add(self, vectors: Tensor) -> None:
        """Append `vectors` [n, width]."""
        needed = self.count + len(vectors)
        if needed > len(self._rows):
            grown = vectors.new_empty(max(2 * len(self._rows), needed, 64), vectors.shape[1])
            if self.count:
                grown[: self.count] = self._rows[: self.count]
            self._rows = grown
        self._rows[self.count : needed] = vectors
        self.count = needed

    def take(self, rows: Tensor) -> Tensor:
        """Give some, [n, width]."""
        return self._rows[rows]


@dataclass(frozen=True, slots=True)
class _Call:
    """One linear layer's turn in a running MLP."""

    module: nn.Module
    read: Tensor
    wrote: Tensor


@dataclass(slots=True)
class _Factors:
    """What is known of one part of a layer's MLP: which linear layers read and write, and the factors at the positions met."""

    readers: tuple[nn.Module, ...]
    writer: nn.Module
    row_of: dict[int, int] = field(default_factory=dict)  # position -> row of `factors`
    factors: list[Rows] = field(default_factory=list)  # of each reader


class MlpSteps:
    """The steps through the MLPs of one prompt."""

    def __init__(self, attributor: Attributor, writers: Writers) -> None:
        self.attributor, self.writers = attributor, writers
        self._known: dict[tuple[int, int], _Factors] = {}  # by layer and part
        self._calls: list[_Call] = []  # of the running MLP
        self._stack: ExitStack | None = None
        self._held = False

    @contextmanager
    def running(self) -> Iterator[None]:
        """Let MLPs be run again, with the model held fixed from the first that is."""
        with ExitStack() as self._stack:
            try:
                yield
            finally:
                self._held = False

    def _hold(self) -> None:
        """Hold the model fixed until `running` is left."""
        if self._held:
            return
        assert self._stack is not None
        attributor, self._held = self.attributor, True
        state = AttentionState(layer_of={}, method=self.writers.capture.state.method)
        self._stack.enter_context(frozen(attributor.model, attributor.layout, attributor.norms, state))
        for block in attributor.layout.blocks:
            for part in block.feed_forward:
                for module in part.modules:
                    if weight_and_bias(module) is not None or bias_of(module, attributor.norms) is not None:
                        self._stack.callback(module.register_forward_hook(self._note).remove)

    def _note(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if isinstance(output, Tensor):  # some routers are linear layers that give scores and logits, both held fixed
            self._calls.append(_Call(module, args[0], output))

    def step(self, layer: int, positions: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
        """Go through a layer's MLP at `positions` [n] with gradients `g` [n, d] at the residual stream after it.

        Give the gradients [n, d] at what it reads and what its biases contribute [n].
        """
        writers, wiring = self.writers, self.writers.wiring[layer]
        norm, x = wiring.mlp_norm, writers.residual(2 * layer + 1)[positions]
        bias, into = g.new_zeros(g.shape[0]), torch.zeros_like(g)
        for number, write in enumerate(wiring.mlp_writes):
            scale = None if write.post is None else write.scale(writers.mlp_part(layer, number, positions))
            gm = write.transposed(g, scale)
            known = self._factors(layer, number, positions)
            found, added = self._again(layer, number, positions, gm) if known is None else _by_hand(known, positions, gm)
            into += found
            bias += added
        if norm is not None:
            if norm.bias is not None:
                bias += into @ norm.bias.to(g.dtype)
            into = norm.transposed(into, norm.scale(x))
        return into, bias

    def _run(self, layer: int, number: int, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Run a part of a layer's MLP again at `positions` [n]: what it read [1, n, d] and what it wrote, with its graph."""
        self._hold()
        wiring, norm = self.writers.wiring[layer], self.writers.wiring[layer].mlp_norm
        part, x = self.attributor.layout.blocks[layer].feed_forward[number], self.writers.residual(2 * layer + 1)[positions]
        with torch.enable_grad():
            u = (x if norm is None else norm(x))[None].requires_grad_(True)
            self._calls.clear()
            again = wiring.calls[number](part, u)
        before = self.writers.mlp_part(layer, number, positions)
        tolerance = 1e-9 if before.dtype == torch.float64 else RERUN_TOLERANCE
        if not float((again.detach().reshape(before.shape) - before).abs().max()) <= tolerance * float(before.abs().max().clamp_min(1e-6)):
            raise ConservationError(f"the MLP of layer {layer} writes something else when it is run again on some of the tokens")
        return u, again

    def _again(self, layer: int, number: int, positions: Tensor, gm: Tensor) -> tuple[Tensor, Tensor]:
        """Step through one part by running it again; `gm` [n, d] at what it writes."""
        part, bias = self.attributor.layout.blocks[layer].feed_forward[number], gm.new_zeros(gm.shape[0])
        u, again = self._run(layer, number, positions)
        shifts = [(call.wrote, bias_of(call.module, self.attributor.norms)) for call in self._calls if call.wrote.requires_grad]
        biased = [(y, shift) for y, shift in shifts if shift is not None]
        grads = torch.autograd.grad(again, [u, *(y for y, _ in biased)], gm.view_as(again), allow_unused=True)
        assert grads[0] is not None
        for (_, shift), gradient in zip(biased, grads[1:], strict=True):
            if gradient is not None:
                bias += gradient.reshape(gm.shape[0], -1) @ shift.to(gm.dtype)
        for module in part.modules:
            constant = module.__dict__.get(CONSTANTS)
            if constant is not None:
                bias += (gm * constant.reshape(gm.shape)).sum(-1)
        return grads[0][0], bias

    # MLPs that are factors between linear layers -------------------------------------------------------------------------------------

    def _factors(self, layer: int, number: int, positions: Tensor) -> _Factors | None:
        """Give what is known of a part, with the factors of all `positions`, or None where it has another form."""
        verdicts = self.attributor.plain_mlps
        key = (self.writers.capture.state.method, layer, number)
        if verdicts.get(key) is False:
            return None
        known = self._known.get((layer, number))
        met = {} if known is None else known.row_of
        new = [position for position in dict.fromkeys(positions.tolist()) if position not in met]
        if not new:
            return known
        u, again = self._run(layer, number, torch.tensor(new, device=positions.device))
        form = self._form(layer, number, u, again)
        found = None if form is None else _middle(form, self._calls)
        if form is None or found is None or (key not in verdicts and not _proven(form, found, u, again)):
            verdicts[key] = False
            return None
        verdicts[key] = True
        if known is None:
            known = self._known[layer, number] = form
            known.factors += [Rows() for _ in form.readers]
        known.row_of |= {position: len(known.row_of) + row for row, position in enumerate(new)}
        for rows, factor in zip(known.factors, found, strict=True):
            rows.add(factor)
        return known

    def _form(self, layer: int, number: int, u: Tensor, again: Tensor) -> _Factors | None:
        """Look whether the part that has just run is linear layers around a middle."""
        part = self.attributor.layout.blocks[layer].feed_forward[number]
        if any(CONSTANTS in module.__dict__ for module in part.modules):
            return None
        calls = [call for call in self._calls if call.wrote.requires_grad]
        readers = tuple(call.module for call in calls if call.read.data_ptr() == u.data_ptr())
        writers = [call.module for call in calls if call.wrote.data_ptr() == again.data_ptr()]
        others = {call.module for call in calls} - {*readers, *writers}
        if others or len(writers) != 1 or len(calls) != len(readers) + 1 or any(weight_and_bias(call.module) is None for call in calls):
            return None
        return _Factors(readers, writers[0])


def _middle(form: _Factors, calls: Sequence[_Call]) -> list[Tensor] | None:
    """Give the factors [n, width] of each reader's coordinates; a reader may be several times as wide as the middle (gate and up)."""
    by_module = {call.module: call for call in calls}
    middle = by_module[form.writer].read
    outputs = [by_module[module].wrote for module in form.readers]
    if not middle.requires_grad or any(y.shape[-1] % middle.shape[-1] for y in outputs):
        return None
    found = torch.autograd.grad(middle, outputs, torch.ones_like(middle), retain_graph=True, allow_unused=True)
    rows = middle.numel() // middle.shape[-1]
    return [y.new_zeros(rows, 0) if factor is None else factor.reshape(rows, -1) for y, factor in zip(outputs, found, strict=True)]


def _linear(module: nn.Module, dtype: torch.dtype) -> tuple[Tensor, Tensor | None]:
    found = weight_and_bias(module)
    assert found is not None
    return found[0].to(dtype), None if found[1] is None else found[1].to(dtype)


def _back(form: _Factors, factors: Sequence[Tensor], gm: Tensor) -> tuple[Tensor, Tensor]:
    """Take `gm` [n, d] back: the gradient at what is read [n, d], and what biases contribute [n]."""
    weight, shift = _linear(form.writer, gm.dtype)
    bias = gm.new_zeros(gm.shape[0]) if shift is None else gm @ shift
    middle, into = gm @ weight, torch.zeros_like(gm)
    for module, factor in zip(form.readers, factors, strict=True):
        if factor.shape[1] == 0:
            continue  # a gate that is held fixed
        weight, shift = _linear(module, gm.dtype)
        g = factor * (middle if factor.shape == middle.shape else middle.repeat(1, factor.shape[1] // middle.shape[1]))
        into = torch.addmm(into, g, weight)
        if shift is not None:
            bias = bias + g @ shift
    return into, bias


def _by_hand(known: _Factors, positions: Tensor, gm: Tensor) -> tuple[Tensor, Tensor]:
    rows = torch.tensor([known.row_of[position] for position in positions.tolist()], device=gm.device)
    return _back(known, [factor.take(rows) for factor in known.factors], gm)


def _proven(form: _Factors, factors: Sequence[Tensor], u: Tensor, again: Tensor) -> bool:
    """Compare a random gradient taken back by hand with autograd's."""
    gm = torch.randn(again.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(again)
    (wanted,) = torch.autograd.grad(again, u, gm)
    found, _ = _back(form, factors, gm.reshape(u.shape[1], -1))
    tolerance = 1e-9 if u.dtype == torch.float64 else 1e-4
    return float((found - wanted[0]).abs().max()) <= tolerance * float(wanted.abs().max())
