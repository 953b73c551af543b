"""What every attention layer of the real model did on a prompt, layer by layer, in float32 and whole: for short prompts.

One forward pass of the model as it is; the attention function notes queries, keys and values and attends as usual.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from tracestore.errors import UnsupportedModelError
from tracestore.evaluate.attention_written import Written
from tracestore.extract.attention import AttentionState, Pattern, attend, probabilities
from tracestore.extract.attribute import Attributor
from tracestore.extract.capture import hidden_argument
from tracestore.extract.families.private import writer_of
from tracestore.extract.freeze import quieten, use_attention, weight_and_bias
from tracestore.extract.norms import FrozenNorm


@dataclass(frozen=True, slots=True)
class LayerAttention:
    """One layer: probabilities `a` [H, T, T], `value` [H, T, D] (repeated for grouped heads), `entered` the residual stream [T, d].

    `norm` is the norm between the heads and the residual stream, with its scales [T, 1], where the family has one there.
    """

    a: Tensor
    value: Tensor
    entered: Tensor
    output_weight: Tensor  # [H, D, d]: what a head writes is z W
    norm: tuple[FrozenNorm, Tensor] | None
    refused: str | None  # why what heads write is not known, though what they attend to is

    @property
    def moved(self) -> Tensor:
        """What each head would write for each source [H, T, d], before the probability is applied.

        Raises UnsupportedModelError where what heads write so is not what the residual stream receives.
        """
        if self.refused is not None:
            raise UnsupportedModelError(self.refused)
        return torch.matmul(self.value, self.output_weight)

    def added(self, parts: Tensor, pos: int) -> Tensor:
        """Give what the residual stream at `pos` receives of `parts` [..., d] that heads write there: a norm's scale is held fixed."""
        return parts if self.norm is None else self.norm[0].linear(parts, self.norm[1][pos])


@dataclass(frozen=True, slots=True)
class AttentionMaps:
    """All layers, and the final residual stream [T, d] before the last norm."""

    layers: tuple[LayerAttention, ...]
    final: Tensor


def attention_maps(attributor: Attributor, ids: Tensor) -> AttentionMaps:
    """Run the model on `ids` [1, T] and note what its attention did. Raises UnsupportedModelError where heads write through no matrix."""
    seen: dict[int, tuple[Tensor, Tensor]] = {}
    entered: dict[int, Tensor] = {}
    written = Written(attributor)

    def note(layer: int, pattern: Pattern, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        rows = torch.arange(query.shape[2], device=query.device)
        seen[layer] = (probabilities(pattern, query[0], key[0], rows, 0), value[0])
        return attend(pattern, query, key, value)

    layout = attributor.layout
    with watched(attributor, note) as stack, torch.no_grad():
        for index, module in enumerate([*(block.layer for block in layout.blocks), layout.final_norm]):
            stack.callback(module.register_forward_pre_hook(_enter(entered, index), with_kwargs=True).remove)
        written.watch(stack)
        attributor.model.base_model(input_ids=ids, use_cache=False)
    layers = []
    for index, block in enumerate(layout.blocks):
        a, value = seen[index]
        heads = a.shape[0]
        value = value.repeat_interleave(heads // value.shape[0], 0)
        matrix, bias = _output_matrix(block.attention, layout.width, heads * value.shape[-1])
        layer = LayerAttention(a, value, entered[index], matrix.T.reshape(heads, value.shape[-1], -1), written.norm(index), None)
        sums = torch.einsum("hij,hjd->id", a, layer.moved)
        layers.append(replace(layer, refused=written.missed(index, sums if bias is None else sums + bias, layer.entered)))
    return AttentionMaps(tuple(layers), entered[len(layout.blocks)])


@contextmanager
def watched(attributor: Attributor, instead: Callable[[int, Pattern, Tensor, Tensor, Tensor], Tensor]) -> Iterator[ExitStack]:
    """Let the real model attend through `instead(layer, pattern, query, key, value)`; hooks may be left on the stack."""
    layer_of = {id(m): i for i, block in enumerate(attributor.layout.blocks) for m in block.layer.modules()}
    state = AttentionState(layer_of=layer_of, instead=instead)
    with ExitStack() as stack:
        quieten(attributor.model, stack)
        use_attention(attributor.model, stack, state)
        yield stack


def _enter(entered: dict[int, Tensor], index: int) -> Callable[..., None]:
    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        entered[index] = hidden_argument(module, args, kwargs)[0][0].detach()

    return hook


def _output_matrix(attention: nn.Module, width: int, inner: int) -> tuple[Tensor, Tensor | None]:
    """Find the matrix [d, H D] that all heads write through, and its bias [d]: the last linear layer of `inner` inputs, `width` outputs."""
    linears = [found for module in writer_of(attention).modules() if (found := weight_and_bias(module)) is not None]
    fitting = [(weight, bias) for weight, bias in linears if weight.shape == (width, inner)]
    if not fitting:
        raise UnsupportedModelError(f"no output projection was found in {type(attention).__name__}: this baseline needs one")
    weight, bias = fitting[-1]
    return weight.detach(), None if bias is None else bias.detach()
