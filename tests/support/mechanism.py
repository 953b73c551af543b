"""The mechanism tables (State, Head, Mlp and their edges) of one pruned random flow."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from tests.support.flows import Array, Flow, Kept
from tracestore import schema


def build_table(name: str, columns: dict[str, Any]) -> pa.Table:
    """Make a table of the schema from columns; one that is not given is null, a scalar fills its column."""
    fields = schema.arrow_schema(name)
    size = next((len(value) for value in columns.values() if isinstance(value, np.ndarray | list)), 1)
    unknown = set(columns) - set(fields.names)
    if unknown:
        raise KeyError(f"{name} has no {sorted(unknown)}")
    arrays = []
    for field in fields:
        value = columns.get(field.name)
        if not isinstance(value, np.ndarray | list):
            value = [value] * size
        arrays.append(pa.array(value, type=field.type))
    return pa.Table.from_arrays(arrays, schema=fields)


class Locals:
    """Numbers for the nodes of one trace, counted over all labels."""

    def __init__(self) -> None:
        self.next = 0

    def take(self, count: int) -> Array:
        first, self.next = self.next, self.next + count
        return np.arange(first, self.next, dtype=np.int64)

    def number(self, mask: Array) -> Array:
        """Number the true cells of a mask in row-major order; -1 elsewhere."""
        numbers = np.full(mask.shape, -1, dtype=np.int64)
        numbers[mask] = self.take(int(mask.sum()))
        return numbers


def mechanism_tables(flow: Flow, kept: Kept, output: int, tokens: Array, numbers: Locals) -> dict[str, pa.Table]:
    """Build the tables; `output` is the Output's local number, `tokens` those of the positions up to its own."""
    pre, head, mlp = numbers.number(kept.pre), numbers.number(kept.head), numbers.number(kept.mlp)
    mid = np.full(kept.mid.shape, -1, dtype=np.int64) if flow.parallel else numbers.number(kept.mid)
    tables = _nodes(flow, kept, output, (pre, mid, head, mlp))
    tables.update(_edges(flow, kept, output, tokens, (pre, mid, head, mlp)))
    return tables


def _nodes(flow: Flow, kept: Kept, output: int, numbers: tuple[Array, Array, Array, Array]) -> dict[str, pa.Table]:
    pre, mid, head, mlp = numbers
    n_layers = len(kept.mid)
    lost_value, lost_head = np.where(kept.value, 0, flow.value), np.where(kept.head, 0, flow.head_relevance)
    lost_skip = np.where(kept.mid, 0, flow.skip_attention)
    lost_reads = np.where(kept.mlp, 0, flow.reads) if flow.parallel else np.zeros_like(flow.reads)
    zero = np.zeros((1, flow.pos + 1))
    pre_bias = np.concatenate([zero, flow.pre_bias])
    pre_bias[n_layers, flow.pos] += flow.final_bias
    pre_in = [
        np.concatenate([zero, part]) if flow.parallel else np.zeros(pre.shape) for part in (lost_head.sum(1), np.abs(lost_head).sum(1))
    ]
    pre_out = [
        np.concatenate([lost_value.sum((1, 2)) + lost_skip + lost_reads, zero]),
        np.concatenate([np.abs(lost_value).sum((1, 2)) + np.abs(lost_skip) + np.abs(lost_reads), zero]),
    ]
    states = [_flow_columns(pre, flow.pre, pre_bias, pre_in, pre_out, ("layer", "pos"))]
    states[0]["site"] = np.full(len(states[0]["local"]), "pre")
    if not flow.parallel:
        none = [np.zeros(mid.shape)] * 2
        states.append(_flow_columns(mid, flow.mid, flow.mid_bias, [lost_head.sum(1), np.abs(lost_head).sum(1)], none, ("layer", "pos")))
        states[1]["site"] = np.full(len(states[1]["local"]), "mid")
    heads = _flow_columns(
        head,
        flow.head_relevance,
        flow.head_bias,
        [lost_value.sum(-1), np.abs(lost_value).sum(-1)],
        [np.zeros(head.shape)] * 2,
        ("layer", "head", "pos"),
    )
    mlps = _flow_columns(mlp, flow.mlp, flow.mlp_bias, [np.zeros(mlp.shape)] * 2, [np.zeros(mlp.shape)] * 2, ("layer", "pos"))
    joined = {name: np.concatenate([part[name] for part in states]) for name in states[0]}
    joined["site"] = joined["site"].tolist()
    return {
        label: build_table(label, {"output_uid": np.full(len(columns["local"]), output), **columns})
        for label, columns in (("State", joined), ("Head", heads), ("Mlp", mlps))
    }


def _flow_columns(
    numbers: Array, relevance: Array, bias: Array, lost_in: list[Array], lost_out: list[Array], axes: tuple[str, ...]
) -> dict[str, Any]:
    mask = numbers >= 0
    cells = dict(zip(axes, np.nonzero(mask), strict=True))
    flows = {
        "relevance": relevance,
        "bias": bias,
        "dropped_in": lost_in[0],
        "dropped_in_abs": lost_in[1],
        "dropped_out": lost_out[0],
        "dropped_out_abs": lost_out[1],
    }
    return {"local": numbers[mask], **cells, **{name: array[mask].astype(np.float32) for name, array in flows.items()}}


def _edges(flow: Flow, kept: Kept, output: int, tokens: Array, numbers: tuple[Array, Array, Array, Array]) -> dict[str, pa.Table]:
    pre, mid, head, mlp = numbers
    into_skip, skip_from = (pre[1:], pre[:-1]) if flow.parallel else (mid, pre[:-1])
    block_out = pre[1:]  # where the MLP writes
    head_out = pre[1:] if flow.parallel else mid
    layer, h, i, j = np.nonzero(kept.value)
    head_layer, _, head_i = np.nonzero(kept.head)
    at = kept.mid
    parts: list[tuple[str, Array, Array, Array]] = [
        ("VALUE.State.Head", pre[layer, j], head[layer, h, i], flow.value[kept.value]),
        ("WRITES.Head.State", head[kept.head], head_out[head_layer, head_i], flow.head_relevance[kept.head]),
        ("WRITES.Mlp.State", mlp[kept.mlp], block_out[kept.mlp], flow.mlp[kept.mlp]),
        ("READS.State.Mlp", (pre[:-1] if flow.parallel else mid)[kept.mlp], mlp[kept.mlp], flow.reads[kept.mlp]),
        ("RESIDUAL.State.State", skip_from[at], into_skip[at], flow.skip_attention[at]),
        ("EMBEDS.Token.State", tokens[kept.pre[0]], pre[0][kept.pre[0]], flow.pre[0][kept.pre[0]]),
        ("UNEMBEDS.State.Output", pre[-1, flow.pos :], np.array([output]), np.array([flow.explained])),
    ]
    if not flow.parallel:
        parts.append(("RESIDUAL.State.State", mid[at], pre[1:][at], flow.skip_mlp[at]))
    ranks = _ranks(np.concatenate([p[2] for p in parts]), np.concatenate([p[3] for p in parts]))
    tables: dict[str, list[pa.Table]] = {}
    start = 0
    for name, src, dst, weight in parts:
        rank = ranks[start : start + len(dst)]
        start += len(dst)
        columns: dict[str, Any] = {"src": src, "dst": dst, "weight": weight.astype(np.float32), "rank": rank}
        if name.startswith("VALUE"):
            columns["attention"] = flow.attention[kept.value].astype(np.float32)
        tables.setdefault(name, []).append(build_table(name, columns))
    return {name: pa.concat_tables(found) for name, found in tables.items()}


def _ranks(dst: Array, weight: Array) -> Array:
    """Rank edges by |weight| among those that enter the same node, from 1."""
    order = np.lexsort((-np.abs(weight), dst))
    ordered = dst[order]
    first = np.searchsorted(ordered, ordered, side="left")
    ranks = np.empty(len(dst), dtype=np.int64)
    ranks[order] = np.arange(len(dst)) - first + 1
    return ranks
