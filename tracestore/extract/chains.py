"""Chains of thought: what every step of an answer took from every other span of the text, directly and through earlier steps.

1. Every token belongs to one span, the shortest around it (of two equally long ones the kind that comes first in `_KINDS`), or to none.
2. Targets are the step spans, and the answer span. A target's tokens are those that belong to it; an answer that is cut into steps
   throughout has all of its tokens. Its Outputs are those that explain tokens of it (one by one, or summed over a stretch).
3. Score: the scores of its Outputs, summed by the span to which the source belongs. With the sources in the target itself (`own`),
   those in no span (`unassigned`) and the biases they add up to what is explained: exact, signed.
4. Direct, by which the sources are ranked: `direct` of its Outputs, unsigned, summed in the same way with attention sinks left out.
   A signed sum is no ranking, for contributions cancel; and what lies on a sink says nothing about the span that happens to hold it.
5. Total: the mass of the score, but what lies on a generated token that was itself explained is passed on to the tokens that drove
   *it*, in proportion to their `share`, until it rests on tokens that were not generated (or not explained). Nothing is lost on the
   way: what rests adds up to the score. A span's total is the mass that enters it from outside, counted once on its way back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa

from tracestore import schema
from tracestore.extract.attribution import Bools, Floats, Ints
from tracestore.extract.spans import TokenSpan

_KINDS: Final = ("step", "evidence", "document", "tool_result", "tool_call", "role", "turn", "answer")
_TARGETS: Final = ("step", "answer")


@dataclass(frozen=True, slots=True)
class Unit:
    """An Output that explains the tokens `first` to `last` of the text, and what it got from the tokens before `last`."""

    first: int
    last: int
    explained: float
    bias: float
    score: Floats  # [last]
    share: Floats  # [last] not negative, 0 on attention sinks
    direct: Floats  # [last] the Output's `direct`, not negative, 0 on attention sinks


@dataclass(frozen=True, slots=True)
class Chain:
    """Properties of the explained spans by their index, and the table of SUPPORTS."""

    spans: Mapping[int, Mapping[str, float]]
    supports: pa.Table


def owners(spans: Sequence[TokenSpan], length: int) -> Ints:
    """Give the index of the span that every token belongs to [T], -1 for none."""
    order = sorted(range(len(spans)), key=lambda i: (spans[i].last_pos - spans[i].first_pos, _KINDS.index(spans[i].kind), i))
    out = np.full(length, -1, dtype=np.int64)
    for index in reversed(order):
        out[spans[index].first_pos : spans[index].last_pos + 1] = index
    return out


def trace_chain(spans: Sequence[TokenSpan], units: Sequence[Unit], length: int, first_span_local: int) -> Chain:
    """Find what supports every explained step and answer in a text of `length` tokens."""
    owner = owners(spans, length)
    found: dict[int, tuple[Bools, list[Unit]]] = {}
    for index, span in enumerate(spans):
        if span.kind in _TARGETS:
            inside = owner == index
            if span.kind == "answer" and not inside.any():
                inside = (np.arange(length) >= span.first_pos) & (np.arange(length) <= span.last_pos)
            mine = [unit for unit in units if inside[unit.first : unit.last + 1].all()]
            if mine:
                found[index] = inside, mine
    mass, unsigned = np.zeros((2, len(found), length))
    for row, (_, mine) in enumerate(found.values()):
        for unit in mine:
            mass[row, : len(unit.score)] += unit.score
            unsigned[row, : len(unit.direct)] += unit.direct
    insides = np.stack([inside for inside, _ in found.values()]) if found else np.zeros((0, length), dtype=bool)
    scores = _by_owner(np.where(insides, 0.0, mass), owner, len(spans))
    direct = _by_owner(np.where(insides, 0.0, unsigned), owner, len(spans))
    entered = scores[:, 1:] + _followed(mass, insides, units, owner, len(spans))
    properties: dict[int, Mapping[str, float]] = {}
    columns: dict[str, list[Any]] = {name: [] for name in ("src", "dst", "score", "direct", "total", "rank")}
    for row, (index, (inside, mine)) in enumerate(found.items()):
        properties[index] = {
            "explained": sum(unit.explained for unit in mine),
            "bias": sum(unit.bias for unit in mine),
            "own": float(mass[row, inside].sum()),
            "unassigned": float(scores[row, 0]),
        }
        score, weight, total = scores[row, 1:], direct[row, 1:], entered[row]
        within = {i for i, span in enumerate(spans) if inside[span.first_pos : span.last_pos + 1].all()}
        sources = [i for i in np.flatnonzero((score != 0) | (weight != 0) | (total != 0)).tolist() if i not in within]
        sources.sort(key=lambda i: (-weight[i], -abs(score[i]), -abs(total[i]), i))
        columns["src"] += [first_span_local + i for i in sources]
        columns["dst"] += [first_span_local + index] * len(sources)
        columns["score"] += score[sources].tolist()
        columns["direct"] += weight[sources].tolist()
        columns["total"] += total[sources].tolist()
        columns["rank"] += range(1, len(sources) + 1)
    wanted = schema.arrow_schema(schema.edge_table("SUPPORTS", "Span", "Span"))
    return Chain(properties, pa.table({field.name: pa.array(columns[field.name], field.type) for field in wanted}, schema=wanted))


def _by_owner(mass: Floats, owner: Ints, n_spans: int) -> Floats:
    """Sum mass [B, T] by the span that tokens belong to: [B, 1 + spans], column 0 for tokens in none."""
    out = np.zeros((mass.shape[0], n_spans + 1))
    for row in range(mass.shape[0]):
        out[row] = np.bincount(owner[: mass.shape[1]] + 1, weights=mass[row], minlength=n_spans + 1)
    return out


def _followed(mass: Floats, insides: Bools, units: Sequence[Unit], owner: Ints, n_spans: int) -> Floats:
    """Pass mass [B, T] on through explained tokens, last first; give what enters each span from others on the way [B, spans].

    `insides` [B, T] are the targets' own tokens: what leaves them enters other spans for the first time.
    """
    mass = mass.copy()
    entered = np.zeros((mass.shape[0], n_spans))
    for unit in sorted(units, key=lambda unit: -unit.last):
        share = unit.share[: unit.first]
        weight = share.sum()
        here = mass[:, unit.first : unit.last + 1]
        if weight <= 0 or not here.any():
            continue
        passed = here.sum(1)
        share = share / weight
        mass[:, unit.first : unit.last + 1] = 0.0
        mass[:, : unit.first] += passed[:, None] * share
        origin = owner[unit.first]
        arriving = np.bincount(owner[: unit.first] + 1, weights=share, minlength=n_spans + 1)[1:]
        if origin >= 0:
            arriving[origin] = 0.0
        entered += passed[:, None] * arriving
    return entered
