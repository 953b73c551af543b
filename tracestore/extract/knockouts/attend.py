"""Attention with something removed, another thing in every row of the batch.

What the model allows and adds (causality, windows, padding, ALiBi, softcap, sinks) arrives as a `Pattern`; a removal takes keys away from
it before the softmax, so that what is left is renormalised as the model itself would do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from tracestore.errors import BadInputError
from tracestore.extract.attention import Pattern, attend
from tracestore.extract.knockouts.removal import Removal


@dataclass(slots=True)
class RemovingAttention:
    """The attention of one run over a batch: row b leaves out `removals[b]`."""

    removals: Sequence[Removal]
    heads: int = 0  # query heads of a layer, as seen
    _columns: dict[int, tuple[Pattern, Pattern]] = field(default_factory=dict)  # id of a mask -> (kept alive, the same without the columns)

    def __call__(self, layer: int, pattern: Pattern, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Attend: output [B, T, H, D] of `query` [B, H, T, Dk], `key` and `value` [B, Hkv, T, Dk or D]."""
        self.heads = query.shape[1]
        changed = self._without_columns(pattern, query)
        changed = self._without_edges(layer, changed, query)
        out = attend(changed, query, key, value)
        for row, removal in enumerate(self.removals):
            gone = [head for at, head in removal.heads if at == layer]
            if gone:
                out[row, :, gone] = 0.0
        return out

    def _without_columns(self, pattern: Pattern, query: Tensor) -> Pattern:
        """Take the columns away; made once for all the layers that share a mask."""
        if not any(removal.columns for removal in self.removals):
            return pattern
        known = self._columns.get(id(pattern.mask))
        if known is None:
            length = query.shape[2]
            gone = torch.zeros(len(self.removals), 1, length, length, dtype=torch.bool, device=query.device)
            for row, removal in enumerate(self.removals):
                for at in removal.columns:
                    gone[row, 0, at + 1 :, at] = True
            known = self._columns[id(pattern.mask)] = (pattern, _without(pattern, gone))
        return replace(known[1], scaling=pattern.scaling, softcap=pattern.softcap, sinks=pattern.sinks)

    def _without_edges(self, layer: int, pattern: Pattern, query: Tensor) -> Pattern:
        found = [(row, *edge[1:]) for row, removal in enumerate(self.removals) for edge in removal.edges if edge[0] == layer]
        if not found:
            return pattern
        length = query.shape[2]
        gone = torch.zeros(len(self.removals), self.heads, length, length, dtype=torch.bool, device=query.device)
        index = torch.tensor(found, device=query.device).T
        gone[tuple(index)] = True
        allowed = _allowed(pattern, length, query.device).expand(gone.shape)
        for row, head, q, k in found:
            if not allowed[row, head, q, k]:
                raise BadInputError(f"L{layer}.H{head} has no attention edge from position {k} to {q}: it lies outside its window")
            if pattern.sinks is None and not (allowed[row, head, q] & ~gone[row, head, q]).any():
                raise BadInputError(f"the edge from position {k} to {q} is all that L{layer}.H{head} can read there: it cannot be removed")
        return _without(pattern, gone)


def _allowed(pattern: Pattern, length: int, device: torch.device) -> Tensor:
    """Tell which keys a query may read, bool [B or 1, H or 1, T, T]."""
    if pattern.mask is None:
        return torch.ones(1, 1, length, length, dtype=torch.bool, device=device).tril()
    return pattern.mask if pattern.mask.dtype == torch.bool else pattern.mask > torch.finfo(pattern.mask.dtype).min / 2


def _without(pattern: Pattern, gone: Tensor) -> Pattern:
    """Take keys away from a pattern; `gone` bool [B, 1 or H, T, T]."""
    if pattern.mask is not None and pattern.mask.dtype != torch.bool:
        return replace(pattern, mask=pattern.mask.masked_fill(gone, torch.finfo(pattern.mask.dtype).min))
    return replace(pattern, causal=False, mask=_allowed(pattern, gone.shape[-1], gone.device) & ~gone)
