"""A traced chain of thought beside a person's proof: which earlier sentences did each step take from?

1. The item's chain is replayed as a given answer; every sentence of the prompt and every step is a span (p1, p2, ..., s1, s2, ...).
2. One backward pass a step explains the sum over its tokens; SUPPORTS says what it took from every earlier span.
3. For each step the earlier spans are ranked, by SUPPORTS (`direct`, unsigned, attention sinks left out), by the signed score's |value|,
   and by two orders that see nothing (the nearest first, at random). Each is compared with the proof's edges: is the first one right
   (top1), and the area under the precision-recall curve (auprc).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from tracestore import schema
from tracestore.evaluate.annotated import Annotated
from tracestore.evaluate.measures.ranking import average_precision
from tracestore.evaluate.runner import Row
from tracestore.extract.loading import LoadedModel
from tracestore.extract.trace import trace
from tracestore.ids import content_hash
from tracestore.model import Item, Method, PruningOptions, SpanRequest, Trace, TraceOptions

ORDERS: Final = ("supports", "signed score", "nearest first", "random")
"""Orders of the earlier spans that are compared with a proof."""

_SENTENCE: Final = re.compile(r"[^.!?]+[.!?]?\s*")
_KEPT: Final = PruningOptions(max_edges=200)  # the comparison needs token scores alone, which are complete at any pruning


@dataclass(frozen=True, slots=True)
class StepGraph:
    """What each step took from earlier spans, `direct[step][source]` and the signed `score`, logits; and what a person says (`proof`)."""

    annotated: Annotated
    nodes: Mapping[str, str]  # name -> text, in order of the text
    direct: Mapping[str, Mapping[str, float]]
    score: Mapping[str, Mapping[str, float]]
    trace: Trace

    @property
    def proof(self) -> set[tuple[str, str]]:
        """The person's edges."""
        return set(self.annotated.proof)


def chain_item(annotated: Annotated) -> Item:
    """Make the item that replays a chain: its steps the given answer, sentences and steps as spans."""
    prompt = annotated.item.prompt or ""
    completion = "".join(" " + step for step in annotated.steps)
    spans = [
        SpanRequest("evidence", m.start(), m.start() + len(m.group().rstrip()), f"p{n}")
        for n, m in enumerate(_SENTENCE.finditer(prompt), start=1)
    ]
    at = len(prompt)
    for number, step in enumerate(annotated.steps, start=1):
        spans.append(SpanRequest("step", at + 1, at + 1 + len(step), f"s{number}"))
        at += 1 + len(step)
    return replace(annotated.item, completion=completion, evidence=(), spans=tuple(spans), targets="span:step", max_new_tokens=None)


def step_graph(loaded: LoadedModel, annotated: Annotated, method: Method) -> StepGraph:
    """Trace the chain of an item and read its step graph."""
    found = trace(loaded, chain_item(annotated), TraceOptions(method=method, pruning=_KEPT))
    spans: dict[int, dict[str, Any]] = {row["local"]: row for row in found.table("Span").to_pylist() if row["ref"]}
    names = {local: str(row["ref"]) for local, row in sorted(spans.items(), key=lambda pair: pair[1]["first_pos"])}
    direct: dict[str, dict[str, float]] = {name: {} for name in names.values() if name.startswith("s")}
    score: dict[str, dict[str, float]] = {name: {} for name in direct}
    for edge in found.table(schema.edge_table("SUPPORTS", "Span", "Span")).to_pylist():
        if edge["src"] in names and edge["dst"] in names:
            direct[names[edge["dst"]]][names[edge["src"]]] = float(edge["direct"])
            score[names[edge["dst"]]][names[edge["src"]]] = float(edge["score"])
    return StepGraph(annotated, {name: str(spans[local]["text"]).strip() for local, name in names.items()}, direct, score, found)


def agreement(graph: StepGraph) -> list[Row]:
    """Compare a step graph with the proof: one row per order of sources, averaged over the steps that the proof explains."""
    names = list(graph.nodes)
    rng = np.random.default_rng(int(content_hash(["step graph", graph.annotated.id])[:12], 16))
    orders: dict[str, list[tuple[float, float]]] = {name: [] for name in ORDERS}
    for step in graph.direct:
        earlier = names[: names.index(step)]
        right = {earlier.index(source) for source, end in graph.proof if end == step and source in earlier}
        if not right or len(right) == len(earlier):
            continue
        by_direct, by_score = (_largest_first(weights[step], earlier) for weights in (graph.direct, graph.score))
        nearest, chance = list(range(len(earlier)))[::-1], rng.permutation(len(earlier)).tolist()
        for name, ranked in zip(ORDERS, (by_direct, by_score, nearest, chance), strict=True):
            orders[name].append((float(ranked[0] in right), average_precision(ranked, right)))
    return [
        {
            "id": graph.annotated.id,
            "task": graph.annotated.task,
            "order": name,
            "top1": float(np.mean([top for top, _ in found])),
            "auprc": float(np.mean([area for _, area in found])),
            "steps": len(found),
        }
        for name, found in orders.items()
        if found
    ]


def _largest_first(weights: Mapping[str, float], sources: Sequence[str]) -> list[int]:
    """Order the indices of sources by |weight|; equal ones stay in the order of the text."""
    return sorted(range(len(sources)), key=lambda i: -abs(weights.get(sources[i], 0.0)))


def summary(rows: Sequence[Row], order: str, measure: str) -> list[float]:
    """Give one measure of one order, item by item."""
    return [row[measure] for row in rows if row["order"] == order]
