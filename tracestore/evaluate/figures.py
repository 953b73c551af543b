"""Pictures of an evaluation: traced evidence beside a person's, step graph beside proof, and bars with their intervals."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any, Final

import numpy as np

from tracestore.coloured import STYLE as TEXT_STYLE
from tracestore.coloured import influence_html
from tracestore.errors import BadInputError
from tracestore.evaluate.human import StepGraph
from tracestore.evaluate.intervals import Interval

_PAGE: Final = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Traced thoughts beside human reasoning</title>
<style>:root{color-scheme:light dark}body{font:16px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem}
.pair{display:grid;grid-template-columns:1fr 1fr;gap:2rem;border-top:1px solid rgba(128,128,128,.4);padding:1rem 0}
mark{background:rgba(37,99,235,.3);color:inherit}table{border-collapse:collapse;font-size:.9rem}
td,th{padding:.15rem .6rem;text-align:left;border-bottom:1px solid rgba(128,128,128,.3)}
td.n{text-align:right;font-variant-numeric:tabular-nums}
.yes{font-weight:600}</style>"""


def side_by_side(graphs: Sequence[StepGraph], path: Path) -> None:
    """Write an HTML page: the person's evidence, rationale and proof on the left, the trace on the right."""
    parts = [_PAGE, TEXT_STYLE, "<h1>Traced thoughts beside human reasoning</h1>"]
    parts.append("<p>Left: what a person marked. Right: what the trace found; sources that the person's proof names too are bold.</p>")
    for graph in graphs:
        parts.append(
            f'<section class="pair"><div><h2>{escape(graph.annotated.id)}</h2>{_human(graph)}</div><div>{_traced(graph)}</div></section>'
        )
    path.write_text("".join(parts), encoding="utf-8")


def _human(graph: StepGraph) -> str:
    item = graph.annotated.item
    text, out, last = item.prompt or "", "", 0
    for span in sorted(item.evidence, key=lambda span: span.start):
        out += escape(text[last : span.start]) + f"<mark>{escape(text[span.start : span.end])}</mark>"
        last = span.end
    out += escape(text[last:])
    steps = "".join(f"<li>{escape(step)}</li>" for step in graph.annotated.steps)
    proof = ", ".join(f"{source} → {end}" for source, end in graph.annotated.proof)
    return f"<p>{out}</p><p><em>{escape(item.rationale or '')}</em></p><ol>{steps}</ol><p>Proof: {escape(proof)}</p>"


def _traced(graph: StepGraph) -> str:
    rows = []
    for step, weights in graph.direct.items():
        for source, weight in sorted(weights.items(), key=lambda pair: -pair[1])[:4]:
            named = ' class="yes"' if (source, step) in graph.proof else ""
            numbers = f"<td class=n>{weight:.2f}</td><td class=n>{graph.score[step][source]:+.2f}</td>"
            rows.append(f"<tr{named}><td>{step}</td><td>{source}</td><td>{escape(graph.nodes[source])}</td>{numbers}</tr>")
    output = graph.trace.outputs[-1]
    text = influence_html(dict(output.row), output.influences().to_pylist(), style=False)
    head = "<tr><th>step</th><th>took from</th><th></th><th>direct, logits</th><th>signed score</th></tr>"
    return f"<h2>Trace</h2>{text}<table>{head}{''.join(rows)}</table>"


def _pyplot() -> Any:
    try:
        import matplotlib
    except ImportError:
        raise BadInputError("pictures need matplotlib: run `pip install 'tracestore[evaluate]'`") from None
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    return plt


def step_picture(graph: StepGraph, path: Path) -> None:
    """Draw a step graph beside its proof as two matrices (PNG): rows are steps, columns earlier spans."""
    plt = _pyplot()
    names = list(graph.nodes)
    steps = list(graph.direct)
    ours = np.array([[graph.direct[step].get(name, np.nan) for name in names] for step in steps], dtype=float)
    human = np.array([[float((name, step) in graph.proof) for name in names] for step in steps])
    figure, axes = plt.subplots(1, 2, figsize=(11, 1.2 + 0.6 * len(steps)), layout="constrained")
    limit = float(np.nanmax(ours)) if np.isfinite(ours).any() else 1.0
    for axis, values, title, colours, high in (
        (axes[0], human, "a person's proof", "Greys", 1.0),
        (axes[1], ours, "SUPPORTS.direct, logits", "Blues", limit),
    ):
        image = axis.imshow(values, cmap=colours, vmin=0.0, vmax=high, aspect="auto")
        axis.set_xticks(range(len(names)), names)
        axis.set_yticks(range(len(steps)), steps)
        axis.set_title(title)
    figure.colorbar(image, ax=axes[1])
    figure.suptitle(graph.annotated.id)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def bars(values: Sequence[tuple[str, Interval]], title: str, label: str, path: Path) -> None:
    """Draw means with their intervals as horizontal bars (PNG), the largest on top."""
    plt = _pyplot()
    shown = sorted((pair for pair in values if pair[1].n), key=lambda pair: pair[1].centre)
    figure, axis = plt.subplots(figsize=(8, 0.6 + 0.3 * len(shown)), layout="constrained")
    means = [interval.centre for _, interval in shown]
    errors = [[i.centre - i.low for _, i in shown], [i.high - i.centre for _, i in shown]]
    axis.barh([name for name, _ in shown], means, xerr=errors, color=["#2563eb" if "." in name else "#94a3b8" for name, _ in shown])
    axis.set_title(title)
    axis.set_xlabel(label)
    figure.savefig(path, dpi=130)
    plt.close(figure)
