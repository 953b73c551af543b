"""Turn one attribution into the tables of its Output: nodes, then edges, without a loop over edges.

Locals are handed out in this order from `first_local`: the Output, its HeadSummary, Composition and Path rows, State (pre, then mid), Head,
Mlp.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tracestore import schema
from tracestore.extract.attribution import KEY, QUERY, VALUE, Bools, Floats, Ints, OutputAttribution
from tracestore.extract.mechanism_tables import COMPOSITIONS, composition_columns, path_columns

if TYPE_CHECKING:
    import pyarrow as pa

HEAD_SUMMARIES = 64


@dataclass(frozen=True, slots=True)
class OutputNames:
    """What the tables of an Output say beside numbers. Texts are None when text is not kept."""

    output_id: str
    model_id: str
    text: str | None = None
    foil_text: str | None = None
    correct: bool | None = None
    shown_token_id: int | None = None  # what stands in `token_id` (a keyed hash when text is not kept)
    shown_foil_token_id: int | None = None


@dataclass(frozen=True, slots=True)
class OutputTables:
    """Tables by name, the Output's own local number and the next free one."""

    tables: dict[str, pa.Table]
    local: int
    next_local: int


def output_tables(
    found: OutputAttribution,
    names: OutputNames,
    *,
    first_local: int,
    token_locals: Ints,
    token_ids: Ints,
    most: int = COMPOSITIONS,
) -> OutputTables:
    """Build the tables Output, HeadSummary, State, Head, Mlp and the edges between Token, these and Output.

    `token_locals` [T] are the locals of the trace's Token nodes in order of position (at least as many as there are positions in the
    attribution), `token_ids` [T] the real vocabulary ids.
    """
    length = len(found.scores)
    output = int(first_local)
    local = output + 1
    tables, rest = dict[str, "pa.Table"](), dict[str, float]()
    summary = _head_summary(found, names, output, np.asarray(token_ids))
    count = len(summary["layer"])
    tables["HeadSummary"] = _table("HeadSummary", local=np.arange(local, local + count), **summary)
    local += count
    for label, columns, left in _mechanism(found, most, output, names.model_id):
        tables[label] = _table(label, local=np.arange(local, local + len(columns["weight"])), **columns)
        local += len(columns["weight"])
        rest |= left
    tables["Output"] = _table("Output", local=np.array([output]), **_output_row(found, names, rest))
    places = _Places(found, local)
    tables |= _nodes(found, places, output)
    tables |= _edges(found, places, np.asarray(token_locals)[:length], output)
    tables[schema.edge_table("INFLUENCES", "Token", "Output")] = _influences(found, np.asarray(token_locals), output)
    return OutputTables({name: table for name, table in tables.items() if table.num_rows}, output, places.next_local)


def _mechanism(found: OutputAttribution, most: int, output: int, model_id: str) -> Iterator[tuple[str, dict[str, Any], dict[str, float]]]:
    """Give label, columns and what the Output's row says of the rest, for compositions and paths that were asked for."""
    if found.compositions is not None:
        yield "Composition", *composition_columns(found.compositions, most, output, model_id)
    if found.paths is not None:
        yield "Path", *path_columns(found.paths, output, model_id)


def _table(table: str, **columns: Any) -> pa.Table:
    import pyarrow as pa

    wanted = schema.arrow_schema(table)
    count = len(next(iter(columns.values())))
    values = [columns.get(field.name, [None] * count) if field.nullable else columns[field.name] for field in wanted]
    return pa.table([pa.array(value, type=field.type) for value, field in zip(values, wanted, strict=True)], schema=wanted)


def _output_row(found: OutputAttribution, names: OutputNames, rest: Mapping[str, float]) -> dict[str, list[Any]]:
    foil = found.foil_token_id if names.shown_foil_token_id is None else names.shown_foil_token_id
    row = {
        "output_id": names.output_id,
        "model_id": names.model_id,
        "pos": found.pos,
        "first_pos": found.first_pos,
        "token_id": found.token_id if names.shown_token_id is None else names.shown_token_id,
        "text": names.text,
        "foil_token_id": foil,
        "foil_text": names.foil_text,
        "gauge": found.gauge,
        "logit": found.logit,
        "explained": found.explained,
        "logit_std": found.logit_std,
        "prob": found.prob,
        "vocab_rank": found.vocab_rank,
        "correct": names.correct,
        "closure": found.closure,
        "bias": found.bias,
        "sink_mass": found.sink_mass,
        "attention_kept": found.graph.attention_kept,
        "mlp_share": found.mlp_share,
        "head_vector": found.head_vector.tolist(),
        **rest,
    }
    return {column.name: [row.get(column.name)] for column in schema.table_columns("Output")}


def _head_summary(found: OutputAttribution, names: OutputNames, output: int, token_ids: Ints) -> dict[str, Any]:
    mass = found.flows.value_in_abs.sum(2)  # [L, H]
    n_heads = mass.shape[1]
    order = np.argsort(-mass.reshape(-1), kind="stable")[:HEAD_SUMMARIES]
    order = order[mass.reshape(-1)[order] > 0]
    source, query = found.tops.key.reshape(-1)[order], found.tops.query.reshape(-1)[order]
    total = mass.sum()
    return {
        "output_uid": np.full(len(order), output),
        "model_id": [names.model_id] * len(order),
        "layer": order // n_heads,
        "head": order % n_heads,
        "relevance": found.head_vector[order],
        "abs_relevance": mass.reshape(-1)[order],
        "share": mass.reshape(-1)[order] / (total if total > 0 else 1.0),
        "top_source_pos": source,
        "top_query_pos": query,
        "offset": query - source,
        "induction": (source > 0) & (token_ids[np.maximum(source - 1, 0)] == token_ids[query]) & (source - 1 < query),
    }


class _Places:
    """Where each live node got its local number; -1 where there is none."""

    def __init__(self, found: OutputAttribution, first: int) -> None:
        graph = found.graph
        self.pre, first = _number(graph.pre_live, first)  # [L+1, T]
        mid = np.zeros_like(graph.mid_live) if found.flows.parallel else graph.mid_live
        self.mid, first = _number(mid, first)  # [L, T]
        self.head, first = _number(graph.head_live, first)  # [L, H, T]
        self.mlp, self.next_local = _number(graph.mid_live, first)  # [L, T]


def _number(live: Bools, first: int) -> tuple[Ints, int]:
    out = np.full(live.shape, -1, dtype=np.int64)
    count = int(live.sum())
    out[live] = np.arange(first, first + count)
    return out, first + count


def _nodes(found: OutputAttribution, places: _Places, output: int) -> dict[str, pa.Table]:
    flows, graph = found.flows, found.graph
    zero_mid, zero_head = np.zeros_like(flows.mid_relevance), np.zeros_like(flows.head_relevance)
    pre_flow = (flows.pre_relevance, flows.pre_bias, graph.pre_dropped_in, graph.pre_dropped_out)
    pre = _flow(places.pre, *pre_flow, graph.pre_dropped_in_abs, graph.pre_dropped_out_abs)
    mid_flow = (flows.mid_relevance, flows.mid_bias, graph.mid_dropped_in, zero_mid)
    mid = _flow(places.mid, *mid_flow, graph.mid_dropped_in_abs, zero_mid)
    head_flow = (flows.head_relevance, flows.head_bias, graph.head_dropped_in, zero_head)
    head = _flow(places.head, *head_flow, graph.head_dropped_in_abs, zero_head)
    mlp = _flow(places.mlp, flows.mlp_relevance, flows.mlp_bias, zero_mid, zero_mid, zero_mid, zero_mid)
    (pre_layer, pre_pos), (mid_layer, mid_pos) = np.nonzero(places.pre >= 0), np.nonzero(places.mid >= 0)
    head_layer, head_head, head_pos = np.nonzero(places.head >= 0)
    mlp_layer, mlp_pos = np.nonzero(places.mlp >= 0)
    sites = np.repeat(np.array(["pre", "mid"], dtype=object), [len(pre_pos), len(mid_pos)])
    state = {name: np.concatenate([pre[name], mid[name]]) for name in pre}
    where = {"layer": np.concatenate([pre_layer, mid_layer]), "pos": np.concatenate([pre_pos, mid_pos]), "site": sites}
    return {
        "State": _table("State", output_uid=np.full(len(sites), output), **where, **state),
        "Head": _table("Head", output_uid=np.full(len(head_pos), output), layer=head_layer, head=head_head, pos=head_pos, **head),
        "Mlp": _table("Mlp", output_uid=np.full(len(mlp_pos), output), layer=mlp_layer, pos=mlp_pos, **mlp),
    }


def _flow(
    place: Ints, relevance: Floats, bias: Floats, dropped_in: Floats, dropped_out: Floats, in_abs: Floats, out_abs: Floats
) -> dict[str, Any]:
    live = place >= 0
    return {
        "local": place[live],
        "relevance": relevance[live],
        "bias": bias[live],
        "dropped_in": dropped_in[live],
        "dropped_out": dropped_out[live],
        "dropped_in_abs": in_abs[live],
        "dropped_out_abs": out_abs[live],
    }


def _edges(found: OutputAttribution, places: _Places, tokens: Ints, output: int) -> dict[str, pa.Table]:
    flows, kept, read = found.flows, found.graph.edges, found.positions
    layers = flows.mlp_relevance.shape[0]
    middle = places.pre[1:] if flows.parallel else places.mid  # where heads write
    reader = places.pre[:layers] if flows.parallel else places.mid  # what MLPs read
    lists: dict[str, list[tuple[Ints, Ints, Floats]]] = {
        "EMBEDS.Token.State": [_join(tokens, places.pre[0], flows.pre_relevance[0])],
        "WRITES.Head.State": [_join(places.head, np.broadcast_to(middle[:, None], places.head.shape), flows.head_relevance)],
        "WRITES.Mlp.State": [_join(places.mlp, places.pre[1:], flows.mlp_relevance)],
        "READS.State.Mlp": [_join(reader, places.mlp, flows.reads)],
        "RESIDUAL.State.State": [_join(reader, places.pre[1:], flows.residual_out)],
        "UNEMBEDS.State.Output": [(places.pre[layers, list(read)], np.full(len(read), output), found.explained_at)],
    }
    if not flows.parallel:
        lists["RESIDUAL.State.State"].append(_join(places.pre[:layers], places.mid, flows.residual_in))
    sources, heads = places.pre[kept.layer, kept.key], places.head[kept.layer, kept.head, kept.query]
    kinds = {"VALUE.State.Head": VALUE, "KEY.State.Head": KEY, "QUERY.State.Head": QUERY}
    mine = {name: np.flatnonzero(kept.kind == kind) for name, kind in kinds.items()}
    lists |= {name: [(sources[at], heads[at], kept.weight[at])] for name, at in mine.items()}
    parts = {name: tuple(np.concatenate(column) for column in zip(*rows, strict=True)) for name, rows in lists.items()}
    ranks = _ranks([(dst, weight) for _, dst, weight in parts.values()])
    out = {}
    for (name, (src, dst, weight)), rank in zip(parts.items(), ranks, strict=True):
        extra = {"attention": kept.attention[mine[name]]} if name.startswith("VALUE") else {}
        if found.graph.sensitivity is not None and name in kinds and name != "QUERY.State.Head":
            extra["sensitivity"] = found.graph.sensitivity[mine[name]]
        out[name] = _table(name, src=src, dst=dst, weight=weight, rank=rank, **extra)
    return out


def _join(src: Ints, dst: Ints, weight: Floats) -> tuple[Ints, Ints, Floats]:
    """Keep the edges whose two ends live."""
    live = (src >= 0) & (dst >= 0)
    return src[live], dst[live], weight[live]


def _ranks(edges: list[tuple[Ints, Floats]]) -> list[Ints]:
    """Rank every edge by |weight| among all that enter the same node, 1 the largest, over all edge types together."""
    dst = np.concatenate([d for d, _ in edges])
    size = np.concatenate([np.abs(w) for _, w in edges])
    order = np.lexsort((-size, dst))
    ordered = dst[order]
    first = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    start = np.repeat(first, np.diff(np.append(first, len(ordered))))
    rank = np.empty(len(dst), dtype=np.int64)
    rank[order] = np.arange(len(dst)) - start + 1
    return np.split(rank, np.cumsum([len(d) for d, _ in edges])[:-1])


def _influences(found: OutputAttribution, token_locals: Ints, output: int) -> pa.Table:
    """Every position up to the Output's own, complete and not pruned."""
    n = found.pos + 1
    direct_value, direct_address = found.direct_value[:n], found.direct_address[:n]
    total_value, total_address, sinks = found.total_value[:n], found.total_address[:n], found.sinks[:n]
    direct, total, drive = found.direct[:n], found.total[:n], found.drive[:n]
    open_direct = np.where(sinks, 0.0, direct)
    mass = open_direct.sum()
    return _table(
        schema.edge_table("INFLUENCES", "Token", "Output"),
        src=token_locals[:n],
        dst=np.full(n, output),
        score=found.scores[:n],
        direct_value=direct_value,
        direct_address=direct_address,
        total_value=total_value,
        total_address=total_address,
        direct=direct,
        total=total,
        removal=found.removal[:n],
        drive=drive,
        rank_drive=_rank_sinks_last(drive, sinks),
        rank_direct=_rank_sinks_last(direct, sinks),
        rank_total=_rank_sinks_last(total, sinks),
        share=open_direct / (mass if mass > 0 else 1.0),
    )


def _rank_sinks_last(size: Floats, sinks: Bools) -> Ints:
    order = np.lexsort((np.arange(len(size)), -size, sinks))
    rank = np.empty(len(size), dtype=np.int64)
    rank[order] = np.arange(1, len(size) + 1)
    return rank
