"""One step backwards along a path, for many paths of one layer at once: exact, with every path's own gradient vector.

    through head (l,h) at i:  gz = W_O^h' c P' g(i)        its edges a_ij < gz, v_j > and the part of its values that biases make
    ... V to j:               g(j) = a_ij D_j' W_V' gz
    through the MLP at i:     g(i) = D' ( gradient of the MLP itself, run again on the rows in question )

The MLP is the model's own module under the frozen patch, so whatever the patch makes of activations, gates and experts holds here too;
that it writes again what it wrote in the forward pass is checked every time.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from tracestore.errors import ConservationError
from tracestore.extract.attention import AttentionState, probabilities
from tracestore.extract.capture import bias_of
from tracestore.extract.families.private import CONSTANTS
from tracestore.extract.freeze import frozen
from tracestore.extract.writers import Writers

if TYPE_CHECKING:
    from tracestore.extract.attribute import Attributor

ALL_POSITIONS = 128
"""Up to so many tokens, what every writer wrote is computed for all positions at once; beyond, for positions when they are met."""

RERUN_TOLERANCE = 1e-4


@dataclass(frozen=True, slots=True)
class HeadStep:
    """`gz` [n, D] gradients at the heads' outputs, `attention` and edge weights [n, T], weights of the values' biases [n]."""

    gz: Tensor
    attention: Tensor
    edges: Tensor
    bias: Tensor


class PathSteps:
    """The steps of one prompt's paths; shared by all its outputs."""

    def __init__(self, attributor: Attributor, writers: Writers) -> None:
        self.attributor, self.writers = attributor, writers
        self.length = int(writers.residual(0).shape[0])
        self._written: dict[int, Tensor] = {}  # position -> [A, d]
        self._biases: dict[int, Tensor] = {}  # position -> [2 L + 1, d]
        self._outputs: list[tuple[Tensor, Tensor]] = []  # of modules with biases, in the running MLP: output, bias

    @contextmanager
    def running(self) -> Iterator[None]:
        """Hold the model fixed while MLPs are run again."""
        attributor = self.attributor
        with ExitStack() as stack:
            state = AttentionState(layer_of={}, method=self.writers.capture.state.method)
            stack.enter_context(frozen(attributor.model, attributor.layout, attributor.norms, state))
            for block in attributor.layout.blocks:
                for part in block.feed_forward:
                    for module in part.modules:
                        bias = bias_of(module, attributor.norms)
                        if bias is not None:
                            stack.callback(module.register_forward_hook(self._note(bias)).remove)
            yield

    def _note(self, bias: Tensor) -> Any:
        def hook(_: nn.Module, __: tuple[Any, ...], output: Tensor) -> None:
            self._outputs.append((output, bias))

        return hook

    def children(self, site: int, positions: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
        """Give the weights of all writers [n, A] and of the biases [n] that `site` sees, for gradients `g` [n, d] at `positions` [n]."""
        seen = self.writers.seen(site)
        weight, bias = g.new_zeros(len(g), self.writers.count), g.new_zeros(len(g))
        found, which = torch.unique(positions, return_inverse=True)
        self._meet(found)
        for index, position in enumerate(found.tolist()):
            mine = torch.nonzero(which == index).squeeze(1)
            weight[mine, :seen] = g[mine] @ self._written[position][:seen].T
            if self.writers.has_bias:
                bias[mine] = g[mine] @ self._biases[position][site]
        return weight, bias

    def _meet(self, positions: Tensor) -> None:
        if self.length <= ALL_POSITIONS and not self._written:
            positions = torch.arange(self.length, device=positions.device)
        new = positions[[int(p) not in self._written for p in positions]]
        if len(new) == 0:
            return
        written, biases = self.writers.written(new).transpose(0, 1).contiguous(), self.writers.biases(new)
        for index, position in enumerate(new.tolist()):
            self._written[position] = written[index]
            if biases is not None:
                self._biases[position] = biases[:, index]

    def heads(self, layer: int, heads: Tensor, positions: Tensor, g: Tensor) -> HeadStep:
        """Go through heads [n] of a layer at query `positions` [n] with gradients `g` [n, d] at the residual stream after them."""
        writers, wiring = self.writers, self.writers.wiring[layer]
        kept = writers.capture.state.tapped[layer]
        query, key, value = kept.query[writers.batch], kept.key[writers.batch], kept.value[writers.batch]
        rows, which = torch.unique(positions, return_inverse=True)
        scale = writers.attention_scale(layer, rows)
        g = wiring.attention_write.transposed(g, None if scale is None else scale[which])
        output = wiring.output.to(g.dtype)
        n = torch.arange(len(g), device=g.device)
        gz = (g @ output.flatten(0, 1).T).view(len(g), output.shape[0], -1)[n, heads]
        a = probabilities(kept.pattern, query[:, rows], key, rows, writers.batch)[heads, which]  # [n, J]
        groups = heads // (output.shape[0] // value.shape[0])
        shift = writers.capture.state.value_bias.get(layer)
        linear = value if shift is None else value - shift[:, None].to(value.dtype)
        seen = a.shape[-1]
        edges, attention = g.new_zeros(len(g), self.length), g.new_zeros(len(g), self.length)
        attention[:, :seen] = a
        for group in torch.unique(groups).tolist():
            mine = torch.nonzero(groups == group).squeeze(1)
            edges[mine, :seen] = (gz[mine] @ linear[group, :seen].T) * a[mine]
        bias = g.new_zeros(len(g))
        if shift is not None:
            bias = (gz * shift[groups].to(gz.dtype)).sum(-1) * a.sum(-1)
        return HeadStep(gz, attention, edges, bias)

    def values(self, layer: int, heads: Tensor, positions: Tensor, gz: Tensor, attention: Tensor) -> Tensor:
        """Give the gradients [n, d] at the States that edges come from: source `positions`, `gz` [n, D] and `attention` [n] of each."""
        writers, wiring = self.writers, self.writers.wiring[layer]
        reading = wiring.reading(gz.dtype)
        groups = heads // (wiring.output.shape[0] // reading.shape[0])
        gz = gz * attention[:, None]
        if wiring.attention_norm is not None:
            gz = gz * wiring.attention_norm.scale(writers.residual(2 * layer)[positions])
        out = gz.new_empty(len(gz), reading.shape[-1])
        for group in torch.unique(groups).tolist():
            mine = torch.nonzero(groups == group).squeeze(1)
            out[mine] = gz[mine] @ reading[group]
        return out

    def mlp(self, layer: int, positions: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
        """Go through a layer's MLP at `positions` [n]: gradients [n, d] at what it reads, and what its biases contribute [n]."""
        writers, wiring = self.writers, self.writers.wiring[layer]
        block, norm = self.attributor.layout.blocks[layer], wiring.mlp_norm
        x = writers.residual(2 * layer + 1)[positions]
        bias, into = g.new_zeros(len(g)), torch.zeros_like(g)
        written = writers.mlp_parts(layer, positions)
        for part, write, call, before in zip(block.feed_forward, wiring.mlp_writes, wiring.calls, written, strict=True):
            gm = write.transposed(g, write.scale(before))
            with torch.enable_grad():
                u = (x if norm is None else norm(x))[None].requires_grad_(True)
                self._outputs.clear()
                again = call(part, u)
            self._check(layer, again.detach().reshape(before.shape), before)
            outputs = [pair for pair in self._outputs if pair[0].requires_grad]
            grads = torch.autograd.grad(again, [u, *(y for y, _ in outputs)], gm.view_as(again), allow_unused=True)
            assert grads[0] is not None
            into += grads[0][0]
            for (_, shift), gradient in zip(outputs, grads[1:], strict=True):
                if gradient is not None:
                    bias += gradient.reshape(len(g), -1) @ shift.to(g.dtype)
            for module in part.modules:
                constant = module.__dict__.get(CONSTANTS)
                if constant is not None:
                    bias += (gm * constant.reshape(gm.shape)).sum(-1)
        if norm is not None:
            if norm.bias is not None:
                bias += into @ norm.bias.to(g.dtype)
            into = norm.transposed(into, norm.scale(x))
        return into, bias

    def _check(self, layer: int, again: Tensor, before: Tensor) -> None:
        tolerance = 1e-9 if before.dtype == torch.float64 else RERUN_TOLERANCE
        if not float((again - before).abs().max()) <= tolerance * float(before.abs().max().clamp_min(1e-6)):
            raise ConservationError(f"the MLP of layer {layer} writes something else when it is run again on some of the tokens")
