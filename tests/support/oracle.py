"""The catalogue's queries once more, in plain Python over a networkx graph: what every engine's answers are compared with.

The graph is built from the traces' own tables, never from a store. Each query gives *all* its rows, unordered and without a row cap.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import networkx as nx

from tests.support.oracle_filters import ITEM_FILTERS, item_passes, made_in_time
from tests.support.oracle_paths import QUERIES as PATH_QUERIES
from tests.support.oracle_spans import QUERIES as SPAN_QUERIES
from tracestore import schema
from tracestore.model import Trace

Row = dict[str, Any]
Key = tuple[int, int]
Params = Mapping[str, Any]


class Oracle:
    """Traces as one MultiDiGraph: nodes (trace, local) with `label` and properties, edges with `type` and properties."""

    def __init__(self, traces: Iterable[Trace]) -> None:
        self.graph: nx.MultiDiGraph[Key] = nx.MultiDiGraph()
        for number, trace in enumerate(traces):
            for label, node in schema.NODE_BY_LABEL.items():
                for row in trace.table(label).to_pylist():
                    self.graph.add_node((number, row["local"]), label=label, key=(number, row["local"]), **row)
                    if node.of is not None:
                        owner = row[node.of_column] if node.of_column else 0
                        self.graph.add_edge((number, row["local"]), (number, owner), type="OF")
            for table, (edge, _, _) in schema.EDGE_TABLES.items():
                for row in trace.table(table).to_pylist() if edge.archived else []:
                    self.graph.add_edge((number, row.pop("src")), (number, row.pop("dst")), type=edge.type, **row)

    def ask(self, query: str, params: Params) -> list[Row]:
        """Answer a query of the catalogue; `params` complete, with null for what is off."""
        return list(QUERIES[query](self, params))

    def nodes(self, label: str) -> Iterator[Row]:
        """Yield the nodes of a label."""
        return (data for _, data in self.graph.nodes(data=True) if data["label"] == label)

    def entering(self, node: Row, kind: str, label: str) -> Iterator[tuple[Row, Row]]:
        """Yield (source, edge) of the edges of a type that come from a label."""
        for source, _, edge in self.graph.in_edges(node["key"], data=True):
            if edge["type"] == kind and self.graph.nodes[source]["label"] == label:
                yield self.graph.nodes[source], edge

    def trace_of(self, node: Row) -> Row:
        """Give the Trace that a node belongs to by its OF edge."""
        owners = [dst for _, dst, edge in self.graph.out_edges(node["key"], data=True) if edge["type"] == "OF"]
        (owner,) = owners
        data: Row = self.graph.nodes[owner]
        return data if data["label"] == "Trace" else self.trace_of(data)

    def outputs(self, p: Params) -> Iterator[tuple[Row, Row]]:
        """Yield (Output, Trace) that pass every filter that is on."""
        for output in self.nodes("Output"):
            trace = self.trace_of(output)
            if self.output_passes(output, p) and self.trace_passes(trace, p):
                yield output, trace

    def output_passes(self, output: Row, p: Params) -> bool:
        """Does an Output pass the filters on Outputs?"""
        return self._passes(output, p, ("output_id", "correct")) and p.get("origin") in (None, *self.origins(output))

    def origins(self, output: Row) -> set[str]:
        """Tell where the tokens came from that an Output was about."""
        emitted = (dst for _, dst, edge in self.graph.out_edges(output["key"], data=True) if edge["type"] == "EMITS")
        return {self.graph.nodes[token]["origin"] for token in emitted}

    def has_output(self, trace: Row, p: Params) -> bool:
        """Has a trace an Output that passes the filters on Outputs, where one is on?"""
        wanted = any(p.get(name) is not None for name in ("correct", "origin"))
        return not wanted or any(self.output_passes(output, p) for output, _ in self.entering(trace, "OF", "Output"))

    def is_sink(self, output: Row, pos: int | None) -> bool | None:
        """Is the token at a position before an Output a sink? None: there is none."""
        found = (token["sink"] for token, _ in self.entering(output, "INFLUENCES", "Token") if token["pos"] == pos)
        return next(found, None)

    def predicted(self, p: Params) -> Iterator[tuple[Row, Row]]:
        """Yield the same, `token_id` and `text` being the predicted token's."""
        return ((o, t) for o, t in self.outputs(p) if self._passes(o, p, ("token_id", "text")))

    def trace_passes(self, trace: Row, p: Params) -> bool:
        """Does a trace pass the filters on traces and on their Items?"""
        if not self._passes(trace, p, ("trace_id", "model_id", "method")) or not made_in_time(trace, p):
            return False
        wanted = any(p.get(name) is not None for name in ITEM_FILTERS)
        return not wanted or any(item_passes(item, p) for item, _ in self.entering(trace, "OF", "Item"))

    @staticmethod
    def _passes(row: Row, p: Params, names: Iterable[str]) -> bool:
        return all(p.get(name) is None or row[name] == p[name] for name in names)


def _drivers(g: Oracle, p: Params) -> Iterator[Row]:
    parts = ("direct_value", "direct_address", "total_value", "total_address")
    edge_columns = ("score", "drive", "direct", "total", "removal", "share", "rank_drive", "rank_direct", "rank_total", *parts)
    for output, _ in g.outputs(p):
        for token, edge in g.entering(output, "INFLUENCES", "Token"):
            if p["sink"] or not token["sink"]:
                row = {name: token[name] for name in ("pos", "token_id", "text", "origin", "sink")}
                yield row | {name: edge[name] for name in edge_columns} | {"output_id": output["output_id"]}


def _driver_heads(g: Oracle, p: Params) -> Iterator[Row]:
    for output, _ in g.outputs(p):
        texts = {token["pos"]: token["text"] for token, _ in g.entering(output, "INFLUENCES", "Token")}
        for head, _ in g.entering(output, "OF", "HeadSummary"):
            own = ("layer", "head", "relevance", "abs_relevance", "share", "top_source_pos", "top_query_pos", "offset", "induction")
            source, query = texts.get(head["top_source_pos"]), texts.get(head["top_query_pos"])
            yield {n: head[n] for n in own} | {"top_source_text": source, "top_query_text": query, "output_id": output["output_id"]}


def _drivers_across(g: Oracle, p: Params) -> Iterator[Row]:
    groups: dict[tuple[str, int, str | None], list[tuple[Row, Row, float, float]]] = defaultdict(list)
    for output, trace in g.predicted(p):
        tokens: dict[tuple[int, str | None], list[Row]] = defaultdict(list)
        for token, edge in g.entering(output, "INFLUENCES", "Token"):
            if (p["sink"] or not token["sink"]) and p["driver_origin"] in (None, token["origin"]):
                tokens[token["token_id"], token["text"]].append(edge)
        for key, edges in tokens.items():
            share = sum(edge["share"] for edge in edges)
            if share >= p["min_share"]:
                groups[trace["model_id"], *key].append((output, trace, share, sum(edge["score"] for edge in edges)))
    for (model, token_id, text), members in groups.items():
        shares = [member[2] for member in members]
        yield {
            "model_id": model,
            "token_id": token_id,
            "text": text,
            "traces": len({member[1]["key"] for member in members}),
            "outputs": len(members),
            "share_mean": _mean(shares),
            "share_max": max(shares),
            "share_sum": sum(shares),
            "score_mean": _mean([member[3] for member in members]),
            "example": min(member[0]["output_id"] for member in members),
        }


def _outputs_driven_by(g: Oracle, p: Params) -> Iterator[Row]:
    for output, trace in g.outputs(p):
        for token, edge in g.entering(output, "INFLUENCES", "Token"):
            wanted = Oracle._passes(token, p, ("token_id", "text")) and p["driver_origin"] in (None, token["origin"])
            wanted = wanted and (p["sink"] or not token["sink"])
            if wanted and edge["share"] >= p["min_share"]:
                row = {
                    "trace_id": trace["trace_id"],
                    "output_id": output["output_id"],
                    "prob": output["prob"],
                    "correct": output["correct"],
                }
                row |= {"output_pos": output["pos"], "output_token_id": output["token_id"], "output_text": output["text"]}
                row |= {name: token[name] for name in ("pos", "token_id", "text")}
                yield row | {name: edge[name] for name in ("score", "direct", "share", "rank_direct")}


def _heads(g: Oracle, p: Params) -> dict[tuple[str, int, int], list[tuple[Row, Row]]]:
    groups: dict[tuple[str, int, int], list[tuple[Row, Row]]] = defaultdict(list)
    for output, trace in g.predicted(p):
        for head, _ in g.entering(output, "OF", "HeadSummary"):
            enough = p.get("min_share") is None or head["share"] >= p["min_share"]
            if enough and p.get("sink") in (None, g.is_sink(output, head["top_source_pos"])):
                groups[trace["model_id"], head["layer"], head["head"]].append((head, output))
    return groups


def _heads_across(g: Oracle, p: Params) -> Iterator[Row]:
    for (model, layer, number), members in _heads(g, p).items():
        heads = [head for head, _ in members]
        shares = [head["share"] for head in heads]
        yield {
            "model_id": model,
            "layer": layer,
            "head": number,
            "outputs": len(heads),
            "share_mean": _mean(shares),
            "share_max": max(shares),
            "share_sum": sum(shares),
            "relevance_mean": _mean([h["relevance"] for h in heads]),
            "offset_mean": _mean([h["offset"] for h in heads]),
            "induction_rate": _mean([float(h["induction"]) for h in heads]),
        }


def _outputs_of_head(g: Oracle, p: Params) -> Iterator[Row]:
    own = ("share", "relevance", "top_source_pos", "top_query_pos", "induction")
    for (model, layer, number), members in _heads(g, p).items():
        for head, output in members if (layer, number) == (p["layer"], p["head"]) else []:
            trace = g.trace_of(output)
            row = {"trace_id": trace["trace_id"], "model_id": model, "trace_text": trace["text"]}
            row |= {name: output[name] for name in ("output_id", "pos", "token_id", "text", "prob", "correct")}
            yield row | {name: head[name] for name in own}


def _induction_heads(g: Oracle, p: Params) -> Iterator[Row]:
    for (model, layer, number), members in _heads(g, p).items():
        did = [head for head, _ in members if head["induction"]]
        if len(did) >= p["min_outputs"]:
            row = {"model_id": model, "layer": layer, "head": number, "outputs": len(members), "induction_outputs": len(did)}
            row |= {"induction_rate": len(did) / len(members), "share_mean": _mean([h["share"] for h in did])}
            yield row | {"share_sum": sum(h["share"] for h in did), "offset_mean": _mean([h["offset"] for h in did])}


def _sides(g: Oracle, p: Params) -> dict[str, dict[bool, int]]:
    counts: dict[str, dict[bool, int]] = defaultdict(lambda: {True: 0, False: 0})
    for output, trace in g.predicted(p):
        if output["correct"] is not None:
            counts[trace["model_id"]][output["correct"]] += 1
    return {model: sides for model, sides in counts.items() if sides[True] and sides[False]}


def _correct_or_wrong(g: Oracle, p: Params) -> Iterator[Row]:
    sides = _sides(g, p)
    for (model, layer, number), members in _heads(g, p).items():
        judged = [(head, output["correct"]) for head, output in members if output["correct"] is not None]
        if model not in sides or not judged:
            continue
        mean = {
            (name, side): sum(head[name] for head, correct in judged if correct is side) / sides[model][side]
            for name in ("share", "relevance")
            for side in (True, False)
        }
        row = {"model_id": model, "layer": layer, "head": number, "correct": sides[model][True], "wrong": sides[model][False]}
        row |= {"share_correct": mean["share", True], "share_wrong": mean["share", False]}
        row |= {"relevance_correct": mean["relevance", True], "relevance_wrong": mean["relevance", False]}
        yield row | {"difference": mean["share", True] - mean["share", False]}


def _correct_or_wrong_tokens(g: Oracle, p: Params) -> Iterator[Row]:
    sides = _sides(g, p)
    shares: dict[tuple[str, int, str | None], dict[Key, tuple[bool, float]]] = defaultdict(dict)
    for output, trace in g.predicted(p):
        if output["correct"] is None or trace["model_id"] not in sides:
            continue
        for token, edge in g.entering(output, "INFLUENCES", "Token"):
            if p["sink"] or not token["sink"]:
                group = shares[trace["model_id"], token["token_id"], token["text"]]
                group[output["key"]] = (output["correct"], group.get(output["key"], (True, 0.0))[1] + edge["share"])
    for (model, token_id, text), every in shares.items():
        group = {key: (correct, share) for key, (correct, share) in every.items() if share >= p["min_share"]}
        if not group:
            continue
        mean = {side: sum(s for correct, s in group.values() if correct is side) / sides[model][side] for side in (True, False)}
        found = {side: sum(1 for correct, _ in group.values() if correct is side) for side in (True, False)}
        row = {"model_id": model, "token_id": token_id, "text": text, "difference": mean[True] - mean[False]}
        row |= {"share_correct": mean[True], "share_wrong": mean[False], "in_correct": found[True], "in_wrong": found[False]}
        yield row | {"correct": sides[model][True], "wrong": sides[model][False]}


def _similar_mechanism(g: Oracle, p: Params) -> Iterator[Row]:
    mine = {name: p[name] for name in ("output_id", "output_uid")}
    for output, trace in g.outputs(mine):
        for other, its in g.outputs({**p, "output_id": None}):
            a, b = output["head_vector"], other["head_vector"]
            shape = all(trace[name] == its[name] for name in ("n_layers", "n_heads")) and len(a) == len(b)
            norm = math.sqrt(sum(x * x for x in a)) * math.sqrt(sum(x * x for x in b)) if shape else 0.0
            same = p["any_model"] or trace["model_fingerprint"] == its["model_fingerprint"]
            if output["key"] == other["key"] or not same or norm == 0:
                continue
            cosine = sum(x * y for x, y in zip(a, b, strict=True)) / norm
            if cosine >= p["min_cosine"]:
                row = {"trace_id": its["trace_id"], "model_id": its["model_id"], "cosine": cosine}
                yield row | {name: other[name] for name in ("output_id", "pos", "token_id", "text", "prob", "correct")}


def _flow(g: Oracle, p: Params) -> Iterator[Row]:
    inward = {"EMBEDS", "VALUE", "KEY", "QUERY", "READS", "WRITES", "RESIDUAL"}
    outward = inward - {"EMBEDS"} | {"UNEMBEDS"}
    by_output = {(output["key"][0], output["local"]): output for output, _ in g.outputs(p)}
    for label in ("State", "Head", "Mlp"):
        for node in g.nodes(label):
            output = by_output.get((node["key"][0], node["output_uid"]))
            if output is None:
                continue
            weight_in = sum(e["weight"] for _, _, e in g.graph.in_edges(node["key"], data=True) if e["type"] in inward)
            weight_out = sum(e["weight"] for _, _, e in g.graph.out_edges(node["key"], data=True) if e["type"] in outward)
            gap_in = abs(weight_in + node["bias"] + node["dropped_in"] - node["relevance"])
            gap_out = abs(weight_out + node["dropped_out"] - node["relevance"])
            row = {"output_id": output["output_id"], "node": label, "layer": node["layer"], "pos": node["pos"]}
            row |= {"head": node.get("head"), "site": node.get("site"), "relevance": node["relevance"]}
            row |= {"weight_in": weight_in, "weight_out": weight_out, "gap_in": gap_in, "gap_out": gap_out}
            yield row | {"error": max(gap_in, gap_out) / max(abs(output["explained"]), output["logit_std"])}


def _check_conservation(g: Oracle, p: Params) -> Iterator[Row]:
    return (row for row in _flow(g, p) if row["error"] > p["tolerance"])


def _conservation_summary(g: Oracle, p: Params) -> Iterator[Row]:
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in _flow(g, p):
        groups[row["node"]].append(row)
    for node, rows in groups.items():
        errors = [row["error"] for row in rows]
        row = {"node": node, "outputs": len({r["output_id"] for r in rows}), "checked": len(rows), "error_max": max(errors)}
        yield row | {"offenders": sum(e > p["tolerance"] for e in errors), "error_mean": _mean(errors)}


def _check_closure(g: Oracle, p: Params) -> Iterator[Row]:
    for output, trace in g.outputs(p):
        scores = [edge["score"] for _, edge in g.entering(output, "INFLUENCES", "Token")]
        error = abs(sum(scores) + output["bias"] - output["explained"]) / max(abs(output["explained"]), output["logit_std"])
        if error > p["tolerance"]:
            row = {"trace_id": trace["trace_id"], "tokens": len(scores), "score_sum": sum(scores), "error": error}
            yield row | {name: output[name] for name in ("output_id", "bias", "explained", "closure")}


def _list_traces(g: Oracle, p: Params) -> Iterator[Row]:
    for trace in g.nodes("Trace"):
        older = p["older_than"] is None or (-trace["created_at"], trace["trace_id"]) > (-p["older_than"], p["after_id"])
        if older and g.trace_passes(trace, p) and g.has_output(trace, p):
            items = [item["item_id"] for item, _ in g.entering(trace, "OF", "Item")]
            own = ("trace_id", "model_id", "method", "created_at", "n_tokens", "n_prompt_tokens", "closure", "text")
            row = {"outputs": len(list(g.entering(trace, "OF", "Output"))), "items": len(items), "item_id": min(items, default=None)}
            yield row | {name: trace[name] for name in own}


def _list_outputs(g: Oracle, p: Params) -> Iterator[Row]:
    own = ("output_id", "pos", "token_id", "text", "foil_text", "gauge", "logit", "explained", "prob", "vocab_rank", "correct")
    for output, trace in g.predicted(p):
        row = {name: output[name] for name in (*own, "closure", "bias", "sink_mass", "attention_kept")}
        yield row | {"trace_id": trace["trace_id"]}


def _search_text(g: Oracle, p: Params) -> Iterator[Row]:
    for trace in g.nodes("Trace"):
        text, wanted = trace["text"] or "", p["text"]
        hit = wanted in text or (p["ignore_case"] and wanted.lower() in text.lower())
        if trace["text"] is not None and hit and g.trace_passes(trace, p) and g.has_output(trace, p):
            yield {name: trace[name] for name in ("trace_id", "model_id", "created_at", "n_tokens", "text")}


def _stats(g: Oracle, p: Params) -> Iterator[Row]:
    groups: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for trace in g.nodes("Trace"):
        if g.trace_passes(trace, p):
            groups[trace["model_id"], trace["method"]].append(trace)
    for (model, method), traces in groups.items():
        outputs = [output for trace in traces for output, _ in g.entering(trace, "OF", "Output") if g.output_passes(output, p)]
        means = {name: _mean([o[name] for o in outputs]) for name in ("closure", "attention_kept", "sink_mass", "mlp_share", "prob")}
        row = {"model_id": model, "method": method, "traces": len(traces), "tokens": sum(t["n_tokens"] for t in traces)}
        row |= {"items": sum(len(list(g.entering(t, "OF", "Item"))) for t in traces), "outputs": len(outputs)}
        row |= {f"{name}_mean": value for name, value in means.items()}
        row |= {"closure_max": max((o["closure"] for o in outputs), default=None)}
        row |= {"attention_kept_min": min((o["attention_kept"] for o in outputs), default=None)}
        row |= {"replay_gap_max": max(t["replay_gap"] for t in traces)}
        yield row | {"correct": sum(o["correct"] is True for o in outputs), "wrong": sum(o["correct"] is False for o in outputs)}


def _newest_knockouts(g: Oracle, output: Row, kind: str | None) -> Iterator[tuple[Row, Row]]:
    """Yield (source, knockout), of each source's measurements of one kind at one place the newest."""
    newest: dict[tuple[Any, ...], tuple[Row, Row]] = {}
    for source, _, edge in g.graph.in_edges(output["key"], data=True):
        if edge["type"] == "KNOCKOUT" and kind in (None, edge["kind"]):
            place = (source, edge["kind"], edge["layer"], edge["head"], edge["query_pos"])
            if place not in newest or newest[place][1]["created_at"] < edge["created_at"]:
                newest[place] = (g.graph.nodes[source], edge)
    yield from newest.values()


def _knockouts(g: Oracle, p: Params) -> Iterator[Row]:
    for output, _ in g.outputs(p):
        for source, _, edge in g.graph.in_edges(output["key"], data=True):
            if edge["type"] == "KNOCKOUT" and p["kind"] in (None, edge["kind"]):
                node = g.graph.nodes[source]
                row = {name: node.get(name) for name in ("pos", "first_pos", "last_pos", "text", "motif")}
                row |= {name: edge[name] for name in ("kind", "layer", "head", "query_pos", "effect", "effect_logp", "created_at")}
                yield row | {"score": edge["estimate"], "output_id": output["output_id"]}


def _disagreement(g: Oracle, p: Params) -> Iterator[Row]:
    for output, _ in g.outputs(p):
        groups: dict[tuple[str, bool], list[tuple[Row, Row]]] = defaultdict(list)
        for source, edge in _newest_knockouts(g, output, p["kind"]):
            if edge["estimate"] is not None and p["sink"] in (None, bool(source.get("sink"))):
                groups[edge["kind"], source["label"] == "Span"].append((source, edge))
        for (kind, _), members in groups.items():
            for source, edge in members:
                rank_score = 1 + sum(abs(other["estimate"]) > abs(edge["estimate"]) for _, other in members)
                rank_effect = 1 + sum(abs(other["effect"]) > abs(edge["effect"]) for _, other in members)
                sign = edge["estimate"] * edge["effect"] > 0
                if sign or abs(rank_score - rank_effect) >= p["min_ranks"]:
                    row = {"output_id": output["output_id"], "kind": kind, "sign": sign, "score": edge["estimate"]}
                    row |= {name: source.get(name) for name in ("pos", "first_pos", "last_pos", "text", "motif")}
                    row |= {name: edge[name] for name in ("layer", "head", "query_pos", "effect", "effect_logp", "created_at")}
                    yield row | {"gap": edge["effect"] + edge["estimate"], "rank_score": rank_score, "rank_effect": rank_effect}


def _unverified(g: Oracle, p: Params) -> Iterator[Row]:
    for output, _ in g.outputs(p):
        tried = {source["key"] for source, _ in _newest_knockouts(g, output, p["kind"])}
        for token, edge in g.entering(output, "INFLUENCES", "Token"):
            counts = edge["rank_drive"] <= p["top"] and edge["share"] >= p["min_share"] and (p["sink"] or not token["sink"])
            if counts and token["pos"] < output["pos"] and token["key"] not in tried:
                row = {name: edge[name] for name in ("score", "drive", "direct", "share", "rank_drive", "rank_direct")}
                row |= {name: token[name] for name in ("pos", "token_id", "text")}
                yield row | {"output_id": output["output_id"], "output_text": output["text"]}


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _sink_report(g: Oracle, p: Params) -> Iterator[Row]:
    found: dict[tuple[str, str], list[tuple[float, float, float]]] = defaultdict(list)
    for output, trace in g.outputs(p):
        sinks = [edge for token, edge in g.entering(output, "INFLUENCES", "Token") if token["sink"]]
        if sinks and output["sink_mass"] >= p["min_share"]:
            sums = tuple(sum(edge[name] for edge in sinks) for name in ("score", "direct"))
            found[trace["model_id"], trace["method"]].append((output["sink_mass"], *sums))
    for (model_id, method), rows in found.items():
        mass, score, direct = (sum(column) / len(rows) for column in zip(*rows, strict=True))
        yield {
            "model_id": model_id,
            "method": method,
            "outputs": len(rows),
            "sink_mass_mean": mass,
            "sink_mass_max": max(row[0] for row in rows),
            "score_mean": score,
            "direct_mean": direct,
        }


QUERIES: dict[str, Callable[[Oracle, Params], Iterator[Row]]] = {
    "check_closure": _check_closure,
    "check_conservation": _check_conservation,
    "conservation_summary": _conservation_summary,
    "correct_or_wrong": _correct_or_wrong,
    "correct_or_wrong_tokens": _correct_or_wrong_tokens,
    "disagreement": _disagreement,
    "driver_heads": _driver_heads,
    "drivers": _drivers,
    "drivers_across": _drivers_across,
    "heads_across": _heads_across,
    "induction_heads": _induction_heads,
    "knockouts": _knockouts,
    "list_outputs": _list_outputs,
    "list_traces": _list_traces,
    "outputs_driven_by": _outputs_driven_by,
    "outputs_of_head": _outputs_of_head,
    "search_text": _search_text,
    "similar_mechanism": _similar_mechanism,
    "sink_report": _sink_report,
    "stats": _stats,
    "unverified": _unverified,
    **PATH_QUERIES,
    **SPAN_QUERIES,
}
