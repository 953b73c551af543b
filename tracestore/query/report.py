"""A report of a store as one HTML page that needs nothing from anywhere: answers prompt by prompt, then over all prompts.

1. What is in the store and how sound it is (`stats`, `conservation_summary`).
2. The headline answer: one prediction, coloured, its drivers and heads, and predictions made by the same heads.
3. Every other prediction, by trace (at most `limit`).
4. Over all prompts: drivers of the headline's token, heads, induction heads, right against wrong answers.
5. How to read it, and what the numbers do not say.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, Final

from tracestore.coloured import STYLE as TEXT_STYLE
from tracestore.coloured import influence_html, shown
from tracestore.errors import QueryError
from tracestore.query.page import Cell, Row, cards, field, page, percent, small, table, token
from tracestore.query.run import run_named
from tracestore.store.base import Store

ALL: Final = 1_000_000
_DRIVERS: Final = (
    Cell("pos", field("pos"), "count"),
    Cell("token", token(), "token"),
    Cell("drive", field("drive"), "share"),
    Cell("score", field("score"), "signed"),
    Cell("direct", field("direct"), "number"),
    Cell("total", field("total"), "number"),
    Cell("removal", field("removal"), "signed"),
)
_HEADS: Final = (
    Cell("head", lambda row: _head(row)),
    Cell("share", field("share"), "share"),
    Cell("relevance", field("relevance"), "signed"),
    Cell("from", lambda row: f"{row['top_source_pos']} {shown(row['top_source_text'])}", "token"),
    Cell("to", lambda row: f"{row['top_query_pos']} {shown(row['top_query_text'])}", "token"),
)
_READING: Final = """<h2 id="reading">How to read this</h2>
<p><b>Score</b>: signed contribution of a token, along every path, to the explained quantity; the scores of all tokens and the bias add up
to it, and the <b>closure error</b> says how exactly. That is correctness of bookkeeping, not proof that the model would behave so without
the token, by the method that the trace names: <i>frozen</i> takes attention patterns as they were, <i>secant</i> explains them too.</p>
<p><b>Drive</b> ranks the tokens: the mean of a token's shares of <i>direct</i>, <i>total</i> and <i>removal</i>. <b>Direct</b> and
<b>total</b>: size of the attention edges from the token into the explained position, and into all positions. <b>Removal</b>: what hiding
the token from every later position is estimated to take away, to first order; below zero, hiding it would add. Shares leave attention
sinks out: the first position takes much attention in most models and says little, so it stands last and grey. <b>Share</b> alone is of
<i>direct</i>. <b>Attention kept</b>: how much of the attention-edge mass the stored graph holds; the rest is counted at its nodes as
dropped. What is explained is by default the token's logit less the mean logit of the vocabulary (<i>centred</i>).</p>"""


def write_report(
    store: Store, path: Path, headline: str | None = None, *, title: str = "What drove these predictions", limit: int = 60
) -> None:
    """Write `html_report` to a file that only its owner can read: it holds the prompts."""
    page = html_report(store, headline, title=title, limit=limit)
    path.touch(mode=0o600)
    path.chmod(0o600)  # also where it was there before
    path.write_text(page, encoding="utf-8")


def html_report(
    store: Store,
    headline: str | None = None,
    *,
    output_ids: Sequence[str] | None = None,
    title: str = "What drove these predictions",
    limit: int = 60,
) -> str:
    """Give the page. `headline`: the output_id answered first (else the first); `output_ids`: only these (else all, at most `limit`).

    Raises QueryError when the store has no such output.
    """
    every = _ask(store, "list_outputs", k=ALL)
    outputs = [row for row in every if output_ids is None or row["output_id"] in set(output_ids)]
    first = next((row for row in outputs if headline in (None, row["output_id"])), None)
    if first is None:
        raise QueryError("The store has no such output; `list_outputs` names those that it has.")
    traces = {row["trace_id"]: row for row in _ask(store, "list_traces", k=ALL)}
    parts = [f"<h1>{escape(title)}</h1>", *_overview(store), "<h2>The headline: which earlier tokens drove this output token?</h2>"]
    parts += [_answer(store, first, traces[first["trace_id"]], first=True), _similar(store, first, traces)]
    others = [row for row in outputs if row is not first][:limit]
    if others:
        parts.append("<h2>Every other prediction</h2>")
        parts += [_answer(store, row, traces[row["trace_id"]]) for row in others]
    if len(others) < len(outputs) - 1:
        parts.append(
            f'<p class="meta">{len(outputs) - 1 - len(others):,} more are in the store: <code>tracestore query list_outputs</code>.</p>'
        )
    parts += ["<h2>Over all prompts</h2>", *_across(store, first, traces[first["trace_id"]]), _READING]
    return page(title, parts, TEXT_STYLE)


def _ask(store: Store, query: str, **params: object) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = run_named(store, query, params).table.to_pylist()
    return rows


def _overview(store: Store) -> Iterator[str]:
    rows = _ask(store, "stats")
    models = ", ".join(dict.fromkeys(row["model_id"] for row in rows))
    counts = {name: sum(row[name] for row in rows) for name in ("traces", "tokens", "outputs", "correct", "wrong")}
    yield f'<p class="lead">{escape(models)}: {counts["traces"]:,} prompts, {counts["outputs"]:,} explained predictions.</p>'
    kept = sum((row["attention_kept_mean"] or 0.0) * row["outputs"] for row in rows) / max(counts["outputs"], 1)
    numbers = [
        (f"{counts['tokens']:,}", "tokens"),
        (small(max((r["closure_max"] or 0.0 for r in rows), default=None)), "worst closure error"),
    ]
    numbers.append((percent(kept), "mean attention-edge mass kept"))
    nodes = _ask(store, "conservation_summary")
    if nodes:
        checked, bad = sum(row["checked"] for row in nodes), sum(row["offenders"] for row in nodes)
        numbers.append((f"{checked:,}", "nodes that conserve" if not bad else f"nodes checked, {bad:,} do not conserve"))
    if counts["correct"] + counts["wrong"]:
        numbers.append((f"{counts['correct']:,} of {counts['correct'] + counts['wrong']:,}", "right where an answer was expected"))
    yield cards(numbers)


def _answer(store: Store, output: Row, trace: Row, *, first: bool = False) -> str:
    rows = _ask(store, "drivers", output_uid=output["output_uid"], k=ALL)
    heads = _ask(store, "driver_heads", output_uid=output["output_uid"], k=8 if first else 5)
    best = [row for row in rows if not row["sink"]][: 10 if first else 6] + [row for row in rows if row["sink"]]
    tables = f'<div class="pair">{table("Drivers", best, _DRIVERS)}{table("Heads", heads, _HEADS)}</div>'
    judged = {True: " · as expected", False: " · not as expected", None: ""}[output["correct"]]
    meta = f"{trace['item_id'] or trace['trace_id'][:12]} · attention kept {percent(output['attention_kept'])}"
    meta += f" · on the sink {percent(output['sink_mass'])} of direct{judged} · {output['output_id']}"
    body = influence_html(output, rows, style=False) + f'<p class="meta">{escape(meta)}</p>'
    body += tables if first else f"<details><summary>drivers and heads</summary>{tables}</details>"
    return f'<section class="answer{" first" if first else ""}">{body}</section>'


def _similar(store: Store, output: Row, traces: Mapping[str, Row]) -> str:
    rows = _ask(store, "similar_mechanism", output_uid=output["output_uid"], k=6)
    return table(
        "Predictions made by the same heads (cosine of every head's relevance)",
        rows,
        [
            Cell("cosine", field("cosine"), "number"),
            Cell("token", token(), "token"),
            Cell("probability", lambda row: percent(row["prob"])),
            Cell("text", lambda row: _shorten(traces[row["trace_id"]]["text"]), "token"),
        ],
    )


def _across(store: Store, first: Row, trace: Row) -> Iterator[str]:
    name = shown(first["text"], first["token_id"])
    drivers = _ask(store, "drivers_across", token_id=first["token_id"], model_id=trace["model_id"], k=12)
    counts = [Cell("traces", field("traces"), "count"), Cell("predictions", field("outputs"), "count")]
    shares = [Cell("mean share", field("share_mean"), "share"), Cell("mean score", field("score_mean"), "signed")]
    yield table(f"What drives '{name}' wherever it is predicted", drivers, [Cell("token", token(), "token"), *counts, *shares])
    head = Cell("head", lambda row: _head(row))
    outputs, share = Cell("predictions", field("outputs"), "count"), Cell("mean share", field("share_mean"), "share")
    relevance = Cell("mean relevance", field("relevance_mean"), "signed")
    distance = Cell("mean distance", field("offset_mean"), "number")
    induction = Cell("induction", field("induction_rate"), "share")
    heads = _ask(store, "heads_across", k=12)
    yield '<div class="pair">'
    yield table("Heads that carry most, over all predictions", heads, [head, outputs, share, relevance, distance])
    yield table("Induction heads", _ask(store, "induction_heads", k=12), [head, outputs, share, induction, distance])
    yield "</div>"
    sides = [Cell("when right", field("share_correct"), "share"), Cell("when wrong", field("share_wrong"), "share")]
    sides.append(Cell("difference", field("difference"), "signed"))
    judged = _ask(store, "correct_or_wrong", k=10)
    caption = f"Heads in right and wrong answers ({judged[0]['correct']} and {judged[0]['wrong']})" if judged else ""
    yield table(caption, judged, [head, *sides])


def _head(row: Row) -> str:
    return f"L{row['layer']}.H{row['head']}"


def _shorten(text: str | None, size: int = 90) -> str:
    flat = shown(text).replace("↵", " ↵ ")
    return flat if len(flat) <= size else "… " + flat[-size:]
