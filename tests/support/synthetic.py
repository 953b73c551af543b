"""Random traces that obey every conservation rule, made without a model: what archive, store and query tests load.

Weights are exact in float32 (see `flows`), so `conservation_errors` of a made trace is 0 up to the sums of scores. Token ids follow from
the tokens' text, so equal words in different traces have equal ids. The same arguments give the same trace.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa

from tests.support.conservation import conservation_errors
from tests.support.flows import Array, Flow, Kept, prune, quantise, random_flow
from tests.support.mechanism import Locals, build_table, mechanism_tables
from tracestore import ids
from tracestore.model import Trace

__all__ = ["VOCABULARY", "conservation_errors", "make_trace", "make_traces", "token_id_of"]

WORDS = tuple(
    "The capital of France is Paris and Mary gave John a book while seven plus three makes ten so the river".split()  # noqa: SIM905
    + "in Rome was café déjà 🌍 naïve 東京 cat sat on mat".split()  # noqa: SIM905
)
VOCABULARY = 49_152
CREATED_AT = 1_700_000_000_000


def token_id_of(piece: str) -> int:
    """Give the vocabulary id of a token's text."""
    return zlib.crc32(piece.encode()) % VOCABULARY


def make_traces(count: int, *, first_seed: int = 0, **options: Any) -> list[Trace]:
    """Make traces with seeds counted up from `first_seed`."""
    return [make_trace(first_seed + index, **options) for index in range(count)]


def make_trace(
    seed: int,
    *,
    n_tokens: int = 8,
    n_layers: int = 3,
    n_heads: int = 2,
    n_outputs: int = 1,
    parallel: bool = False,
    text: str | None = None,
    model_id: str = "synthetic",
    trace_id: str | None = None,
    positions: Sequence[int] | None = None,
    keep: float = 0.9,
    max_edges: int = 20_000,
    n_items: int | None = None,
    items: Sequence[dict[str, Any]] | None = None,
    spans: bool = True,
    mechanism: bool = True,
    n_prompt_tokens: int | None = None,
    target_text: str | None = None,
    extras: bool = False,
    knockouts: bool = False,
    paths: bool = False,
    steps: int = 0,
    checkpoint_step: int | None = None,
) -> Trace:
    """Make one trace.

    `text` fixes the tokens (words with their leading space) and overrides `n_tokens`; `positions` fixes the explained positions, else the
    last `n_outputs`; `items` gives properties of the Item nodes, else one or two random ones; `target_text` is the token predicted after
    the last position; `extras` adds random rows to the tables that no extractor fills yet (Composition, Path, KNOCKOUT, SUPPORTS, KEY,
    QUERY is left empty so that conservation holds); `knockouts` adds KNOCKOUT, `paths` Path and Composition rows to every Output; `steps`
    cuts what follows the prompt into so many step spans, with an answer around them and random SUPPORTS.
    """
    rng = np.random.default_rng([seed, 7_919])
    pieces = _pieces(text, n_tokens, rng)
    size = len(pieces)
    chosen = tuple(positions) if positions is not None else tuple(range(max(0, size - n_outputs), size))
    prompt = n_prompt_tokens if n_prompt_tokens is not None else max(1, size - max(0, len(chosen) - 1))
    name = trace_id or ids.content_hash(
        ["synthetic", seed, pieces, n_layers, n_heads, list(chosen), parallel, model_id, keep, max_edges, mechanism, target_text]
        + ([steps, checkpoint_step] if steps or checkpoint_step is not None else [])
    )
    numbers = Locals()
    tables: dict[str, list[pa.Table]] = {}

    def add(table: str, built: pa.Table) -> None:
        if built.num_rows:
            tables.setdefault(table, []).append(built)

    numbers.take(1)  # the Trace node
    add("Item", _items(rng, seed, items, n_items, numbers))
    tokens = numbers.take(size)
    add("Token", _tokens(pieces, tokens, prompt, model_id))
    add("Span", _spans(pieces, prompt, numbers, steps) if spans and size > 1 else build_table("Span", {"local": []}))
    outputs = numbers.take(len(chosen))
    closure = 0.0
    for pos, local in zip(chosen, outputs.tolist(), strict=True):
        explained = float(quantise(rng.normal(6, 3)))
        flow = random_flow(rng, pos=pos, n_layers=n_layers, n_heads=n_heads, parallel=parallel, explained=explained)
        kept = prune(flow, keep=keep, max_edges=max_edges)
        target = pieces[pos + 1] if pos + 1 < size else target_text or " " + str(rng.choice(WORDS))
        influences = _influences(flow, local, tokens)
        add("INFLUENCES.Token.Output", influences)
        add("INFLUENCES.Span.Output", _span_influences(influences, tables, tokens, pos, local))
        output = _output(flow, kept, influences, local, name, model_id, target, rng)
        closure = max(closure, float(output["closure"][0].as_py()))
        add("Output", output)
        add("HeadSummary", _head_summaries(flow, local, model_id, [token_id_of(piece) for piece in pieces], numbers))
        if pos + 1 < size:
            add("EMITS.Output.Token", build_table("EMITS.Output.Token", {"src": np.array([local]), "dst": tokens[[pos + 1]]}))
        if mechanism:
            for table, built in mechanism_tables(flow, kept, local, tokens[: pos + 1], numbers).items():
                add(table, built)
    if steps:
        add("SUPPORTS.Span.Span", _supports(rng, tables["Span"][0]))
    add("Trace", _header(name, pieces, prompt, model_id, (n_layers, n_heads, keep, max_edges), seed, closure, checkpoint_step))
    merged = {table: pa.concat_tables(parts).combine_chunks() for table, parts in tables.items()}
    if extras:
        from tests.support.extras import extra_tables

        merged.update(extra_tables(rng, merged, numbers, model_id))
    if knockouts:
        from tests.support.knockouts import knockout_tables

        merged.update(knockout_tables(rng, merged))
    if paths:
        from tests.support.path_rows import path_tables

        merged.update(path_tables(rng, merged, numbers, model_id))
    return Trace(name, merged)


def _pieces(text: str | None, n_tokens: int, rng: np.random.Generator) -> list[str]:
    if text is not None:
        return re.findall(r"\s*\S+|\s+$", text) or [text]
    words = [str(word) for word in rng.choice(WORDS, n_tokens)]
    return [words[0], *(" " + word for word in words[1:])]


def _header(
    name: str,
    pieces: list[str],
    prompt: int,
    model_id: str,
    shape: tuple[int, int, float, int],
    seed: int,
    closure: float,
    checkpoint_step: int | None,
) -> pa.Table:
    n_layers, n_heads, keep, max_edges = shape
    text = "".join(pieces)
    return build_table(
        "Trace",
        {
            "local": [0],
            "trace_id": name,
            "model_id": model_id,
            "model_fingerprint": ids.content_hash(["model", model_id]),
            "checkpoint_step": [checkpoint_step],
            "run_id": "synthetic-run",
            "prompt_hash": ids.prompt_hash("".join(pieces[:prompt])),
            "text": text,
            "n_tokens": len(pieces),
            "n_prompt_tokens": prompt,
            "n_layers": n_layers,
            "n_heads": n_heads,
            "generation": json.dumps({"max_new_tokens": 0, "seed": seed}),
            "method": "frozen",
            "keep": keep,
            "max_edges": max_edges,
            "dtype": "float32",
            "device": "cpu",
            "versions": json.dumps({"synthetic": "1"}),
            "created_at": CREATED_AT + seed,
            "closure": closure,
            "replay_gap": 0.0,
        },
    )


def _items(rng: np.random.Generator, seed: int, given: Sequence[dict[str, Any]] | None, count: int | None, numbers: Locals) -> pa.Table:
    if given is None:
        count = int(rng.integers(1, 3)) if count is None else count
        given = [
            {
                "item_id": f"item-{seed}-{index}",
                "dataset": str(rng.choice(["facts", "maths"])),
                "split": "test",
                "variant": str(rng.choice(["clean", "corrupt"])) if index else None,
                "tags": [str(tag) for tag in rng.choice(["easy", "hard", "long"], int(rng.integers(0, 3)), replace=False)],
                "session_id": f"session-{seed % 5}",
                "turn": int(rng.integers(0, 4)),
                "expected": str(rng.choice(WORDS)),
                "rationale": str(rng.choice(WORDS)),
                "correct": bool(rng.random() < 0.5),
            }
            for index in range(count)
        ]
    names = (
        "item_id",
        "dataset",
        "split",
        "variant",
        "session_id",
        "turn",
        "expected",
        "rationale",
        "correct",
        "otel_trace_id",
        "otel_span_id",
    )
    columns: dict[str, Any] = {name: [row.get(name) for row in given] for name in names}
    columns["tags"] = [row.get("tags", []) for row in given]
    return build_table("Item", {"local": numbers.take(len(given)), **columns})


def _tokens(pieces: list[str], tokens: Array, prompt: int, model_id: str) -> pa.Table:
    ends = np.cumsum([len(piece) for piece in pieces])
    columns = {
        "local": tokens,
        "model_id": model_id,
        "pos": np.arange(len(pieces)),
        "token_id": [token_id_of(piece) for piece in pieces],
        "text": pieces,
        "char_from": ends - [len(piece) for piece in pieces],
        "char_to": ends,
        "origin": ["prompt" if pos < prompt else "generated" for pos in range(len(pieces))],
        "sink": [pos == 0 for pos in range(len(pieces))],
    }
    return build_table("Token", columns)


def _spans(pieces: list[str], prompt: int, numbers: Locals, steps: int) -> pa.Table:
    half = max(1, len(pieces) // 2)
    bounds: list[tuple[str, str | None, int, int]] = [("document", "doc-1", 0, half - 1), ("role", "user", 0, max(0, prompt - 1))]
    extra: dict[str, Any] = {}
    if steps:
        cuts = np.linspace(prompt, len(pieces), steps + 1).astype(int).tolist()
        bounds += [("answer", None, prompt, len(pieces) - 1)]
        bounds += [("step", None, low, high - 1) for low, high in pairwise(cuts)]
        values = [None, None, *(float(1 + index) for index in range(steps + 1))]
        extra = dict.fromkeys(("explained", "bias", "own", "unassigned"), values)
    kinds = [bound[0] for bound in bounds]
    return build_table(
        "Span",
        {
            **extra,
            "local": numbers.take(len(bounds)),
            "kind": [b[0] for b in bounds],
            "ref": [b[1] for b in bounds],
            "ordinal": [kinds[:index].count(kind) for index, kind in enumerate(kinds)],
            "first_pos": [b[2] for b in bounds],
            "last_pos": [b[3] for b in bounds],
            "text": ["".join(pieces[b[2] : b[3] + 1]) for b in bounds],
        },
    )


def _supports(rng: np.random.Generator, spans: pa.Table) -> pa.Table:
    """Let every step, and the answer, rest on all spans that begin before it."""
    rows = spans.to_pylist()
    pairs = [
        (source["local"], target["local"], source, target)
        for target in rows
        for source in rows
        if target["kind"] in ("step", "answer") and source["kind"] != "answer" and source["first_pos"] < target["first_pos"]
    ]
    score = quantise(rng.normal(0, 1, len(pairs))).astype(np.float32)
    direct = (np.abs(score) + quantise(rng.exponential(2, len(pairs)))).astype(np.float32)  # in another order than |score|
    rank = [1 + sum(direct[j] > direct[i] for j, q in enumerate(pairs) if q[1] == p[1]) for i, p in enumerate(pairs)]
    columns = {
        "src": [pair[0] for pair in pairs],
        "dst": [pair[1] for pair in pairs],
        "score": score,
        "direct": direct,
        "total": -2 * score,
    }
    return build_table("SUPPORTS.Span.Span", {**columns, "rank": rank})


def _rank(values: Array, sinks: Array) -> Array:
    """Rank from 1, largest first, sinks last."""
    order = np.lexsort((-values, sinks))
    ranks = np.empty(len(values), dtype=np.int64)
    ranks[order] = np.arange(1, len(values) + 1)
    return ranks


def _influences(flow: Flow, output: int, tokens: Array) -> pa.Table:
    mass = np.abs(flow.value)
    direct, total = mass[:, :, flow.pos, :].sum((0, 1)), mass.sum((0, 1, 2))
    sinks = np.arange(flow.pos + 1) == 0
    others = direct[~sinks].sum()
    share = np.where(sinks, 0.0, direct / others if others > 0 else 0.0)
    removal = quantise(flow.value.sum((0, 1, 2)))  # signed, so that `drive` is negative here and there
    removal[flow.pos] = 0.0
    numbers = (direct, total, removal, share)
    return _influence_table("INFLUENCES.Token.Output", tokens[: flow.pos + 1], output, flow.pre[0], numbers, sinks)


def _span_influences(influences: pa.Table, tables: dict[str, list[pa.Table]], tokens: Array, pos: int, output: int) -> pa.Table:
    rows = [row for row in tables["Span"][0].to_pylist() if row["first_pos"] <= pos] if "Span" in tables else []
    columns = {name: influences[name].to_numpy().astype(np.float64) for name in ("score", "direct", "total", "removal", "share")}
    sums = {name: np.array([array[r["first_pos"] : r["last_pos"] + 1].sum() for r in rows]) for name, array in columns.items()}
    local = np.array([row["local"] for row in rows], dtype=np.int64)
    numbers = (sums["direct"], sums["total"], sums["removal"], sums["share"])
    return _influence_table("INFLUENCES.Span.Output", local, output, sums["score"], numbers, np.zeros(len(rows), dtype=bool))


def _influence_table(name: str, src: Array, output: int, score: Array, numbers: tuple[Array, ...], sinks: Array) -> pa.Table:
    direct, total, removal, share = (array.astype(np.float32) for array in numbers)
    masses = (np.abs(part[~sinks]).sum() for part in (direct, total, removal))
    parts = zip((direct, total, removal), masses, strict=True)
    drive = sum((part / mass for part, mass in parts if mass > 0), np.zeros(len(src))).astype(np.float32) / np.float32(3)
    zero = np.zeros(len(src), dtype=np.float32)
    columns = {
        "src": src,
        "dst": np.full(len(src), output),
        "score": score.astype(np.float32),
        "direct_value": direct,
        "direct_address": zero,
        "total_value": total,
        "total_address": zero,
        "direct": direct,
        "total": total,
        "removal": removal,
        "drive": drive,
        "rank_drive": _rank(drive, sinks),
        "rank_direct": _rank(direct, sinks),
        "rank_total": _rank(total, sinks),
        "share": share,
    }
    return build_table(name, columns)


def _output(
    flow: Flow, kept: Kept, influences: pa.Table, local: int, trace: str, model_id: str, target: str, rng: np.random.Generator
) -> pa.Table:
    scores = influences["score"].to_numpy().astype(np.float64).sum()
    direct = influences["direct"].to_numpy().astype(np.float64)
    writes = np.abs(flow.mlp).sum(), np.abs(flow.head_relevance).sum()
    spread = 2.5
    columns = {
        "local": np.array([local]),
        "output_id": ids.output_id(trace, flow.pos, token_id_of(target)),
        "model_id": model_id,
        "pos": flow.pos,
        "token_id": token_id_of(target),
        "text": target,
        "gauge": "centred",
        "logit": flow.explained + 1.0,
        "explained": flow.explained,
        "logit_std": spread,
        "prob": float(rng.random()),
        "vocab_rank": int(rng.integers(1, 20)),
        "correct": bool(rng.random() < 0.5),
        "closure": abs(scores + float(np.float32(flow.bias)) - flow.explained) / max(abs(flow.explained), spread),
        "bias": flow.bias,
        "sink_mass": float(direct[0] / direct.sum()) if direct.sum() else 0.0,
        "attention_kept": kept.attention_kept,
        "mlp_share": float(writes[0] / sum(writes)),
        "head_vector": [flow.head_relevance.sum(-1).ravel().astype(np.float32).tolist()],
    }
    return build_table("Output", columns)


def _head_summaries(flow: Flow, output: int, model_id: str, token_ids: list[int], numbers: Locals) -> pa.Table:
    n_layers, n_heads, size, _ = flow.value.shape
    mass = np.abs(flow.value).reshape(n_layers * n_heads, size * size)
    absolute = mass.sum(-1)
    best = np.argsort(-absolute, kind="stable")[:64]
    query, source = np.divmod(mass[best].argmax(-1), size)
    induction = [
        any(token_ids[earlier] == token_ids[q] for earlier in (s - 1,) if 0 <= earlier < q) for q, s in zip(query, source, strict=True)
    ]
    columns = {
        "local": numbers.take(len(best)),
        "output_uid": np.full(len(best), output),
        "model_id": model_id,
        "layer": best // n_heads,
        "head": best % n_heads,
        "relevance": flow.head_relevance.sum(-1).ravel()[best].astype(np.float32),
        "abs_relevance": absolute[best].astype(np.float32),
        "share": (absolute[best] / max(absolute.sum(), 1e-30)).astype(np.float32),
        "top_source_pos": source,
        "top_query_pos": query,
        "offset": query - source,
        "induction": induction,
    }
    return build_table("HeadSummary", columns)
