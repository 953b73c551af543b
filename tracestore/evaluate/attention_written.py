"""What the residual stream receives of what heads write: through which norm, and whether that is all.

Some families put a norm between the heads and the residual stream, others a factor. A norm is found by what it reads; anything that
is neither nothing nor a norm is told, so that no baseline counts what never arrived.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, Final

import torch
from torch import Tensor, nn

from tracestore.extract.attribute import Attributor
from tracestore.extract.capture import hidden_argument
from tracestore.extract.families.private import writer_of
from tracestore.extract.freeze import HALF
from tracestore.extract.layout import BlockLayout
from tracestore.extract.norms import FrozenNorm

_MISSED: Final = 1e-3
"""Of what is received, in float32 or better; rounding of the stream itself is allowed for as `_ROUNDED` of its size."""
_ROUNDED: Final = 1e-5
_HALF: Final = 3e-2
"""Both, for weights in bfloat16 or float16."""


class Written:
    """What attention blocks write, what norms read, and the residual stream behind attention, each [T, d], during one pass."""

    def __init__(self, attributor: Attributor) -> None:
        self._attributor = attributor
        self._written: dict[int, Tensor] = {}
        self._read: dict[nn.Module, Tensor] = {}
        self._behind: dict[int, Tensor] = {}

    def watch(self, stack: ExitStack) -> None:
        """Watch the model while `stack` is open."""

        def write(index: int) -> Callable[..., None]:
            def hook(_module: nn.Module, _args: Any, out: Any) -> None:
                self._written[index] = (out[0] if isinstance(out, tuple) else out)[0].detach()

            return hook

        def read(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            self._read[module] = hidden_argument(module, args, kwargs)[0][0].detach()

        def behind(index: int) -> Callable[..., None]:
            def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
                self._behind[index] = hidden_argument(module, args, kwargs)[0][0].detach()

            return hook

        for index, block in enumerate(self._attributor.layout.blocks):
            stack.callback(writer_of(block.attention).register_forward_hook(write(index)).remove)
            if block.mid_reader is not None:
                stack.callback(block.mid_reader.register_forward_pre_hook(behind(index), with_kwargs=True).remove)
            for module in self._norms(block):
                stack.callback(module.register_forward_pre_hook(read, with_kwargs=True).remove)

    def norm(self, index: int) -> tuple[FrozenNorm, Tensor] | None:
        """Give the norm that reads exactly what the attention of layer `index` wrote, with its scales [T, 1]."""
        for module in self._norms(self._attributor.layout.blocks[index]):
            if module in self._read and torch.equal(self._read[module], self._written[index]):
                form = self._attributor.norms[module]
                return form, form.scale(self._written[index])
        return None

    def missed(self, index: int, heads: Tensor, entered: Tensor) -> str | None:
        """Say why what the heads and their bias write [T, d], into a stream `entered` [T, d], is not what it received; or None."""
        block, found = self._attributor.layout.blocks[index], self.norm(index)
        ours = heads if found is None else found[0].scaled(heads, found[1])[0]
        real = self._written[index] if block.mid_reader is None else self._behind[index] - entered
        part, rounded = (_HALF, _HALF) if real.dtype in HALF else (_MISSED, _ROUNDED)
        gap = (ours - real).abs().amax(-1)
        if bool((gap <= part * real.abs().amax(-1) + rounded * entered.abs().amax(-1)).all()):
            return None
        return f"what the heads of {type(block.attention).__name__} write is not what the residual stream receives"

    def _norms(self, block: BlockLayout) -> list[nn.Module]:
        inside = set(block.attention.modules())
        return [module for module in block.layer.modules() if module in self._attributor.norms and module not in inside]
