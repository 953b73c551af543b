"""The scores of attention, computed again from queries and keys: for whole rows of a layer, or for single heads at single positions.

s = cap(r) + b with r = scale < q, k >, b what is added (ALiBi); a sink is one more key of value zero.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from tracestore.extract.attention import Pattern, seen_keys
from tracestore.extract.secant import SecantRows, prepare_rows


@dataclass(frozen=True, slots=True)
class Scores:
    """The scores of a tile [H, R, J]: `raw` before a softcap, `ratio` cap(r)/r or None, `added` or None, `total`; `open` 1 where allowed.

    `sink` [H] is the logit of a sink or None.
    """

    raw: Tensor
    ratio: Tensor | None
    added: Tensor | None
    total: Tensor
    open: Tensor  # [1 or H, R, J]
    sink: Tensor | None

    def _sinks(self) -> Tensor:
        assert self.sink is not None
        return self.sink.to(self.total.dtype).view(-1, 1, 1).expand(*self.total.shape[:2], 1)

    def rows(self) -> SecantRows:
        """Prepare the secant rule; with a sink its column is the last."""
        if self.sink is None:
            return prepare_rows(self.total, self.open)
        ones = self.open.new_ones(*self.open.shape[:2], 1)
        return prepare_rows(torch.cat([self.total, self._sinks()], -1), torch.cat([self.open, ones], -1))

    def attention(self) -> Tensor:
        """Give the probabilities [H, R, J]; rows that may see nothing are zero."""
        total = self.total.masked_fill(self.open == 0, -torch.inf)
        if self.sink is not None:
            total = torch.cat([total, self._sinks()], -1)
        return total.softmax(-1).nan_to_num(nan=0.0)[..., : self.total.shape[-1]]


def tile_scores(pattern: Pattern, query: Tensor, key: Tensor, rows: Tensor, batch: int) -> Scores:
    """Recompute the scores of query `rows` [R], ascending, over the first J keys, J = last row + 1 when causal.

    `query` [H, R, D] holds those rows alone, `key` [Hkv, T, D].
    """
    heads, count, width = query.shape
    seen = int(rows[-1]) + 1 if pattern.causal else key.shape[1]
    raw = torch.matmul(query.reshape(key.shape[0], -1, width), key[:, :seen].transpose(1, 2)).view(heads, count, seen).mul_(pattern.scaling)
    mask = None if pattern.mask is None else pattern.mask[batch if pattern.mask.shape[0] > 1 else 0][:, rows, :seen]
    return _scores(pattern, raw, rows[None], mask, pattern.sinks)


def pair_scores(pattern: Pattern, query: Tensor, key: Tensor, heads: Tensor, positions: Tensor, batch: int) -> Scores:
    """Recompute the scores of `heads` [n] at query `positions` [n] over all keys: [n, 1, T]. `query` [H, T, D], `key` [Hkv, T, D]."""
    mask = None
    if pattern.mask is not None:
        whole = pattern.mask[batch if pattern.mask.shape[0] > 1 else 0]
        mask = whole[heads if whole.shape[0] > 1 else torch.zeros_like(heads), positions][:, None]
    groups = groups_of(heads // (query.shape[0] // key.shape[0]))
    raw = by_group(query[heads, positions], key.transpose(1, 2), groups)[:, None].mul_(pattern.scaling)
    return _scores(pattern, raw, positions[:, None], mask, None if pattern.sinks is None else pattern.sinks[heads])


Groups: TypeAlias = list[tuple[int, Tensor | slice]]


def groups_of(numbers: Tensor) -> Groups:
    """Give every number in `numbers` [n] once, with where it stands. (There are few of them: torch's own functions take longer.)"""
    places = defaultdict[int, list[int]](list)
    for place, number in enumerate(numbers.tolist()):
        places[number].append(place)
    if len(places) == 1:
        return [(number, slice(None)) for number in places]
    return [(number, torch.tensor(where, device=numbers.device)) for number, where in places.items()]


def by_group(x: Tensor, matrices: Tensor, groups: Groups) -> Tensor:
    """Multiply every row of `x` [n, a] by the matrix of its group, `matrices` [G, a, b]: [n, b]."""
    if len(groups) == 1 and x.shape[0]:
        return x @ matrices[groups[0][0]]
    out = x.new_empty(x.shape[0], matrices.shape[2])
    for group, mine in groups:
        out[mine] = x[mine] @ matrices[group]
    return out


def _scores(pattern: Pattern, raw: Tensor, rows: Tensor, mask: Tensor | None, sinks: Tensor | None) -> Scores:
    """Cap, add and hide: `raw` [H, R, J] of query positions `rows` [1 or H, R]; `mask` [1 or H, R, J]."""
    seen = raw.shape[-1]
    ratio, added, total = None, None, raw
    if pattern.softcap is not None:
        total = torch.tanh(raw / pattern.softcap) * pattern.softcap
        ratio = (total.detach() / raw.detach()).nan_to_num_(nan=1.0)
    if pattern.causal:
        open_ = (torch.arange(seen, device=rows.device) <= rows[..., None]).to(raw.dtype)
    else:
        open_ = raw.new_ones(1, raw.shape[1], seen)
    if mask is not None:
        visible = seen_keys(mask)
        open_ = visible.to(raw.dtype) * open_
        if mask.dtype != torch.bool:
            terms = torch.where(visible, mask, 0.0).to(raw.dtype)
            if bool(terms.any()):
                added, total = terms, total + terms
    return Scores(raw, ratio, added, total, open_, sinks)
