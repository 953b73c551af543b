"""Do edge weights say what an intervention on that very edge does? One edge of one head at a time, on the real model, channel by channel.

VALUE   what the head copies from j is taken out of its output at i: z_i loses a_ij v_j, the pattern stays as it is.
KEY     the score s_ij becomes the mean of the row's scores, the softmax is taken again: the head no longer prefers or shuns j.

Everything after the head runs as the model does. The measure is Spearman's rank correlation of |weight| with |change of the explained
logit|, over the largest edges and as many drawn at random.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import torch
from torch import Tensor

from tracestore.evaluate.attention_maps import watched
from tracestore.evaluate.case import Case
from tracestore.extract.attention import Pattern, attend, probabilities
from tracestore.extract.attribution import KEY, VALUE, AttentionEdges, TargetSpec
from tracestore.extract.scores import tile_scores
from tracestore.ids import content_hash
from tracestore.model import Method, PruningOptions

EACH: Final = 16
_BATCH_TOKENS: Final = 1024
_ALL: Final = PruningOptions(keep=1.0, max_edges=1_000_000)
Channel = Literal["VALUE", "KEY"]
_KINDS: Final[dict[Channel, int]] = {"VALUE": VALUE, "KEY": KEY}


@dataclass(frozen=True, slots=True)
class Edge:
    """One attention edge and its weight in a trace, logits."""

    layer: int
    head: int
    query: int
    key: int
    weight: float


def chosen_edges(case: Case, method: Method | Literal["sensitivity"], channel: Channel) -> list[Edge]:
    """Give the largest edges of a channel and as many random others of a trace, the same ones whenever it is asked.

    `sensitivity`: the edges of the method secant, weighed by the plain gradient.
    """
    plain = method == "sensitivity"
    run = case.attributor.run(torch.tensor(case.token_ids), method="secant" if method == "sensitivity" else method)
    found = run.attribute(TargetSpec(case.pos, case.token_id), _ALL, last=True, sensitivity=plain)
    edges: AttentionEdges = found.graph.edges
    weights = found.graph.sensitivity if plain else edges.weight
    assert weights is not None
    mine = np.flatnonzero((edges.kind == _KINDS[channel]) & (edges.query > 0))
    mine = mine[np.argsort(-np.abs(weights[mine]), kind="stable")]
    rng = np.random.default_rng(int(content_hash(["edges", case.id, channel])[:12], 16))
    rest = mine[EACH:]
    drawn = rng.choice(rest, min(EACH, len(rest)), replace=False) if len(rest) else rest
    return [
        Edge(int(edges.layer[i]), int(edges.head[i]), int(edges.query[i]), int(edges.key[i]), float(weights[i]))
        for i in [*mine[:EACH].tolist(), *drawn.tolist()]
    ]


def edge_effects(case: Case, edges: Sequence[Edge], channel: Channel) -> list[float]:
    """Intervene on each edge by itself; give how much the explained logit falls, logits."""
    rows = max(1, _BATCH_TOKENS // case.length)
    whole = _explained(case, [None], channel)[0]
    found: list[float] = []
    for start in range(0, len(edges), rows):
        found += [whole - value for value in _explained(case, edges[start : start + rows], channel)]
    return found


def _explained(case: Case, edges: Sequence[Edge | None], channel: Channel) -> list[float]:
    attributor = case.attributor

    def instead(layer: int, pattern: Pattern, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        out = attend(pattern, query, key, value)
        for row, edge in enumerate(edges):
            if edge is not None and edge.layer == layer:
                _intervene(out, edge, channel, pattern, query, key, value, row)
        return out

    finals: list[Tensor] = []
    with watched(attributor, instead) as stack, torch.no_grad():
        _keep_final(stack, attributor, finals)
        attributor.model.base_model(input_ids=case.ids.expand(len(edges), -1), use_cache=False)
    states = finals[-1][:, case.pos]
    vector, bias = attributor.reader.direction("centred", case.token_id, None, states)
    values: list[float] = (states.double() @ vector.double() + bias).tolist()
    return values


def _keep_final(stack: ExitStack, attributor: Any, finals: list[Tensor]) -> None:
    hook = attributor.layout.final_norm.register_forward_hook(lambda _m, _a, out: finals.append(out))
    stack.callback(hook.remove)


def _intervene(out: Tensor, edge: Edge, channel: Channel, pattern: Pattern, query: Tensor, key: Tensor, value: Tensor, row: int) -> None:
    """Change what one head writes at one position: `out` [B, T, H, D], in place."""
    at = torch.tensor([edge.query], device=query.device)
    a = probabilities(pattern, query[row][:, at], key[row], at, row)[edge.head, 0]  # [J]
    repeats = query.shape[1] // key.shape[1]
    values = value[row, edge.head // repeats, : len(a)]
    if channel == "VALUE":
        out[row, edge.query, edge.head] -= a[edge.key] * values[edge.key]
        return
    scores = tile_scores(pattern, query[row][:, at], key[row], at, row)
    total, open_ = scores.total[edge.head, 0], scores.open.expand_as(scores.total)[edge.head, 0]
    mean = (total * open_).sum() / open_.sum()
    change = torch.exp(mean - total[edge.key])
    changed = a.clone()
    changed[edge.key] *= change
    out[row, edge.query, edge.head] = (changed / (1 + a[edge.key] * (change - 1))) @ values


def rank_correlation(a: Sequence[float], b: Sequence[float]) -> float:
    """Spearman's rank correlation; NaN for fewer than three values or a constant."""
    if len(a) < 3:
        return float("nan")
    ranks = [_ranks(np.asarray(values, dtype=np.float64)) for values in (a, b)]
    if any(rank.std() == 0 for rank in ranks):
        return float("nan")
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


def _ranks(values: np.typing.NDArray[np.float64]) -> np.typing.NDArray[np.float64]:
    """Rank from 1, the mean rank among equals."""
    order = np.argsort(values, kind="stable")
    ranks = np.empty(len(values))
    ranks[order] = np.arange(1, len(values) + 1)
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    out: np.typing.NDArray[np.float64] = (np.bincount(inverse, weights=ranks) / counts)[inverse]
    return out


def edge_rows(case: Case, methods: Sequence[tuple[Method | Literal["sensitivity"], Channel]]) -> list[dict[str, Any]]:
    """Measure each method and channel on one case."""
    rows = []
    for method, channel in methods:
        edges = chosen_edges(case, method, channel)
        effects = edge_effects(case, edges, channel)
        sizes, changes = [abs(edge.weight) for edge in edges], [abs(effect) for effect in effects]
        top, drawn = slice(0, EACH), slice(EACH, None)
        rows.append(
            {
                "id": case.id,
                "task": case.task,
                "method": f"{method} {channel}",
                "rho": rank_correlation(sizes, changes),
                "rho_top": rank_correlation(sizes[top], changes[top]),
                "rho_random": rank_correlation(sizes[drawn], changes[drawn]),
                "sign": float(np.mean([edge.weight * effect > 0 for edge, effect in zip(edges[top], effects[top], strict=True)])),
            }
        )
    return rows
