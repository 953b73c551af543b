"""The queries about spans, chains and comparisons in plain Python over the oracle's graph."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from tests.support.oracle_filters import ITEM_FILTERS, item_passes, made_in_time

if TYPE_CHECKING:
    from tests.support.oracle import Oracle, Params, Row

Pair = tuple["Row", "Row", "Row", "Row", str]
"""Output of the first, its Trace, Output of the second, its Trace, what joins them."""


def span_drivers(g: Oracle, p: Params) -> Iterator[Row]:
    for output, _ in g.outputs(p):
        before = output["pos"] if output["first_pos"] is None else output["first_pos"]
        for span, edge in g.entering(output, "INFLUENCES", "Span"):
            own = span["last_pos"] > before
            if (p["own"] or not own) and p["kind"] in (None, span["kind"]):
                row = {name: span[name] for name in ("kind", "ref", "ordinal", "first_pos", "last_pos", "text")}
                row |= {name: edge[name] for name in ("score", "direct", "total", "share", "rank_direct")}
                yield row | {"own": own, "output_id": output["output_id"]}


def context_or_prompt(g: Oracle, p: Params) -> Iterator[Row]:
    groups: dict[tuple[str, str, str | None], dict[Any, list[float]]] = defaultdict(lambda: defaultdict(lambda: [0.0, 0.0]))
    for output, trace in g.outputs(p):
        for label in ("Token", "Span"):
            for source, edge in g.entering(output, "INFLUENCES", label):
                if not p["sink"] and source.get("sink"):
                    continue
                kind = "origin" if label == "Token" else source["kind"]
                name = source["origin"] if label == "Token" else source["ref"] if kind == "role" else None
                sums = groups[trace["model_id"], kind, name][output["key"]]
                sums[0] += edge["share"]
                sums[1] += edge["score"]
    for (model, kind, name), every in groups.items():
        outputs = {key: sums for key, sums in every.items() if sums[0] >= p["min_share"]}
        if not outputs:
            continue
        count, share, score = len(outputs), sum(s for s, _ in outputs.values()), sum(s for _, s in outputs.values())
        row = {"model_id": model, "kind": kind, "name": name, "outputs": count}
        yield row | {"share_mean": share / count, "share_sum": share, "score_mean": score / count}


def thought_chain(g: Oracle, p: Params) -> Iterator[Row]:
    for output, _ in g.outputs(p):
        found: dict[Any, tuple[int, float]] = {}

        def walk(prediction: Row, hop: int, weight: float, found: dict[Any, tuple[int, float]] = found) -> None:
            least, sum_ = found.get(prediction["key"], (hop, 0.0))
            found[prediction["key"]] = (min(least, hop), sum_ + weight)
            for token, edge in _strongest(g, prediction, p["width"]):
                for earlier in _emitting(g, token):
                    if hop < p["hops"]:
                        walk(earlier, hop + 1, weight * edge["share"])

        walk(output, 0, 1.0)
        for key, (hop, weight) in found.items():
            drives = g.graph.nodes[key]
            for token, edge in _strongest(g, drives, p["width"]):
                row = {name: token[name] for name in ("pos", "token_id", "text", "origin")}
                row |= {"drives_pos": drives["pos"], "drives_text": drives["text"], "drives_output_id": drives["output_id"]}
                row |= {"share": edge["share"], "score": edge["score"], "carried": weight * edge["share"], "hop": hop}
                yield row | {"onward": bool(_emitting(g, token)), "output_id": output["output_id"]}


def _strongest(g: Oracle, output: Row, width: int) -> list[tuple[Row, Row]]:
    return [(token, edge) for token, edge in g.entering(output, "INFLUENCES", "Token") if edge["rank_direct"] <= width]


def _emitting(g: Oracle, token: Row) -> list[Row]:
    return [output for output, _ in g.entering(token, "EMITS", "Output") if output["first_pos"] is None]


def step_graph(g: Oracle, p: Params) -> Iterator[Row]:
    for step in g.nodes("Span"):
        if g.trace_of(step)["trace_id"] != p["trace_id"]:
            continue
        for source, edge in g.entering(step, "SUPPORTS", "Span"):
            if p["steps_only"] and {source["kind"], step["kind"]} != {"step"}:
                continue
            row = {"step_kind": step["kind"], "step": step["ordinal"], "step_text": step["text"]}
            row |= {name: step[name] for name in ("explained", "bias", "own", "unassigned")}
            row |= {f"source_{name}": source[name] for name in ("kind", "ref", "text")} | {"source": source["ordinal"]}
            yield row | {name: edge[name] for name in ("score", "direct", "total", "rank")}


def _model_pairs(g: Oracle, p: Params) -> Iterator[Pair]:
    traces = list(g.nodes("Trace"))
    for a in traces:
        mine = {name: p.get(name) for name in ("method", "since", "until", *ITEM_FILTERS)} | {"model_id": p["a"]}
        if not g.trace_passes(a, mine) or p["step_a"] not in (None, a["checkpoint_step"]):
            continue
        for b in traces:
            same = b["prompt_hash"] == a["prompt_hash"] and b["method"] == a["method"] and b["key"] != a["key"]
            if same and b["model_id"] == p["b"] and p["step_b"] in (None, b["checkpoint_step"]):
                yield from ((x, a, y, b, a["prompt_hash"]) for x, y in _outputs(g, p, a, b) if x["pos"] == y["pos"])


def _outputs(g: Oracle, p: Params, a: Row, b: Row) -> Iterator[tuple[Row, Row]]:
    for one, _ in g.entering(a, "OF", "Output"):
        for other, _ in g.entering(b, "OF", "Output"):
            if _width(one) == _width(other) and g.output_passes(one, {"correct": p["correct"], "origin": p["origin"]}):
                yield one, other


def _width(output: Row) -> int | None:
    return None if output["first_pos"] is None else output["pos"] - output["first_pos"]


def _variant_pairs(g: Oracle, p: Params) -> Iterator[Pair]:
    seen = set()
    for one in g.nodes("Item"):
        for other in g.nodes("Item"):
            if (one["variant"], other["variant"]) != (p["a"], p["b"]) or one["item_id"] != other["item_id"]:
                continue
            a, b = g.trace_of(one), g.trace_of(other)
            passes = item_passes(one, p) and made_in_time(a, p)
            passes &= all(p[name] in (None, a[name]) for name in ("model_id", "method"))
            same = a["model_fingerprint"] == b["model_fingerprint"] and a["method"] == b["method"] and a["key"] != b["key"]
            if passes and same and (a["key"], b["key"], one["item_id"]) not in seen:
                seen.add((a["key"], b["key"], one["item_id"]))
                for x, y in _outputs(g, p, a, b):
                    if x["pos"] - a["n_prompt_tokens"] == y["pos"] - b["n_prompt_tokens"]:
                        yield x, a, y, b, one["item_id"]


def _change(a: float, b: float, least: float) -> str:
    return {(False, True): "gained", (True, False): "lost", (True, True): "kept", (False, False): "unused"}[a >= least, b >= least]


def _means(g: Oracle, p: Params, pairs: Iterable[Pair], label: str, names: tuple[str, ...], amount: str, source: str) -> Iterator[Row]:
    """Yield the mean `share` and `amount` on both sides of what an output has of a label, told apart by `names`; it starts at `source`."""
    listed = list(pairs)
    sums: dict[tuple[Any, ...], dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for one, _, other, _, _ in listed:
        for side, output in (("a", one), ("b", other)):
            for found, _ in g.entering(output, "OF", label):
                if p["sink"] not in (None, g.is_sink(output, found[source])):
                    continue
                for name in ("share", amount):
                    sums[tuple(found[part] for part in names)][f"{name}_{side}"] += found[name] / len(listed)
    for key, values in sums.items():
        row: Row = {name: values[name] for name in ("share_a", "share_b", f"{amount}_a", f"{amount}_b")}
        row |= dict(zip(names, key, strict=True)) | {"difference": row["share_b"] - row["share_a"], "pairs": len(listed)}
        yield row | {"change": _change(row["share_a"], row["share_b"], p["min_share"])}


def _heads(g: Oracle, p: Params, pairs: Iterable[Pair]) -> Iterator[Row]:
    return _means(g, p, pairs, "HeadSummary", ("layer", "head"), "relevance", "top_source_pos")


def _motifs(g: Oracle, p: Params, pairs: Iterable[Pair]) -> Iterator[Row]:
    return _means(g, p, pairs, "Path", ("motif",), "weight", "source_pos")


def _tokens(g: Oracle, p: Params, pairs: Iterable[Pair], join: str) -> Iterator[Row]:
    variants = join == "item_id"
    for one, a, other, b, key in pairs:
        shift = b["n_prompt_tokens"] - a["n_prompt_tokens"] if variants else 0
        theirs = {token["pos"]: (token, edge) for token, edge in g.entering(other, "INFLUENCES", "Token")}
        for token, edge in g.entering(one, "INFLUENCES", "Token"):
            found = theirs.get(token["pos"] + shift)
            if found is None or (token["sink"] and not p["sink"]) or (not variants and found[0]["token_id"] != token["token_id"]):
                continue
            row = {join: key, "output_id_a": one["output_id"], "output_id_b": other["output_id"], "pos": token["pos"]}
            row |= {"said_a": one["text"], "said_b": other["text"], "share_a": edge["share"], "share_b": found[1]["share"]}
            row |= {"text_a": token["text"], "text_b": found[0]["text"]} if variants else {"text": token["text"]}
            row |= {"difference": row["share_b"] - row["share_a"]}
            yield row | {"change": _change(row["share_a"], row["share_b"], p["min_share"])}


QUERIES: dict[str, Callable[[Oracle, Params], Iterator[Row]]] = {
    "compare_models": lambda g, p: _heads(g, p, _model_pairs(g, p)),
    "compare_models_tokens": lambda g, p: _tokens(g, p, _model_pairs(g, p), "prompt_hash"),
    "compare_models_motifs": lambda g, p: _motifs(g, p, _model_pairs(g, p)),
    "compare_variants_motifs": lambda g, p: _motifs(g, p, _variant_pairs(g, p)),
    "compare_variants": lambda g, p: _heads(g, p, _variant_pairs(g, p)),
    "compare_variants_tokens": lambda g, p: _tokens(g, p, _variant_pairs(g, p), "item_id"),
    "context_or_prompt": context_or_prompt,
    "span_drivers": span_drivers,
    "step_graph": step_graph,
    "thought_chain": thought_chain,
}
