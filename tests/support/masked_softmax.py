"""Knockouts done another way: the model's own eager code, with keys taken out where it calls softmax on its scores."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

_SOFTMAX = {torch.softmax, functional.softmax, Tensor.softmax}


class MaskedSoftmax(TorchFunctionMode):
    """Take keys out of every softmax over scores [B, H, T, T or T + 1 (a sink)], counting them as layers."""

    def __init__(self, length: int, columns: Sequence[int] = (), edges: Sequence[tuple[int, int, int, int]] = ()) -> None:
        super().__init__()
        self.length, self.columns, self.edges = length, columns, edges
        self.layer = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call `func`; a softmax over attention scores without what is taken out."""
        scores = args[0] if args and isinstance(args[0], Tensor) else None
        if func not in _SOFTMAX or scores is None or scores.dim() < 3 or scores.shape[-2] != self.length:
            return func(*args, **(kwargs or {}))
        if scores.shape[-1] not in (self.length, self.length + 1):
            return func(*args, **(kwargs or {}))
        scores = scores.clone()
        by_head = scores.view(-1, self.length, scores.shape[-1])  # batch of one
        for at in self.columns:
            by_head[:, at + 1 :, at] = -torch.inf
        for layer, head, query, key in self.edges:
            if layer == self.layer:
                by_head[head, query, key] = -torch.inf
        self.layer += 1
        return func(scores, *args[1:], **(kwargs or {}))


@contextmanager
def eager(model: Any) -> Iterator[None]:
    """Let a model attend with its own eager code."""
    configs = {id(c): c for m in model.modules() if (c := getattr(m, "config", None)) is not None}.values()
    before = [(config, config._attn_implementation_internal) for config in configs]
    for config, _ in before:
        config._attn_implementation_internal = "eager"
    try:
        yield
    finally:
        for config, name in before:
            config._attn_implementation_internal = name


def last_logits(
    model: Any, ids: Tensor, *, layers: int, columns: Sequence[int] = (), edges: Sequence[tuple[int, int, int, int]] = ()
) -> Tensor:
    """Give the logits [V] at the last position of `ids` [1, T] with keys taken out; asserts that every layer was reached."""
    mode = MaskedSoftmax(ids.shape[1], columns, edges)
    with eager(model), mode, torch.no_grad():
        logits: Tensor = model(input_ids=ids, use_cache=False).logits[0, -1]
    assert mode.layer == layers, f"{mode.layer} softmaxes were seen in {layers} layers"
    return logits
