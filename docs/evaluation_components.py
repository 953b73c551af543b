"""Table 1: which components matter, what they depend on and where, asked by Cypher of traces in a graph store."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tracestore import api
from tracestore.archive import Archive
from tracestore.evaluate.annotated import Annotated
from tracestore.evaluate.runner import Row
from tracestore.extract.loading import LoadedModel
from tracestore.ingest import trace_to_archive
from tracestore.model import TraceOptions


def component_rows(load: Callable[[], LoadedModel], items: Sequence[Annotated]) -> Iterator[Row]:
    """Trace items, load them, and ask: one row that holds the answers."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        archive = Archive(folder / "archive")
        trace_to_archive([annotated.item for annotated in items], load(), archive, TraceOptions(method="secant"))
        with api.open_store(folder / "graph.lbug") as store:
            store.load(archive, level="summary")
            heads = store.query("heads_across", k=10).to_pylist()
            evidence = store.cypher(
                "MATCH (h:HeadSummary)-[:OF]->(o:Output)-[:OF]->(t:Trace) WHERE t.ready_id IS NOT NULL "
                "MATCH (s:Span)-[:OF]->(t) WHERE s.kind = 'evidence' AND h.top_source_pos >= s.first_pos "
                "AND h.top_source_pos <= s.last_pos "
                "RETURN h.layer AS layer, h.head AS head, count(DISTINCT o.uid) AS outputs"
            ).to_pylist()
            writers = store.cypher(
                "MATCH (c:Composition)-[:OF]->(o:Output)-[:OF]->(t:Trace) WHERE t.ready_id IS NOT NULL "
                "AND c.via <> 'OUT' AND c.via <> 'MLP' "
                "RETURN c.dst AS dst, c.src AS src, sum(abs(c.weight)) AS mass"
            ).to_pylist()
    yield {"prompts": len(items), "heads": heads, "evidence": evidence, "writers": writers}


def components_section(rows: list[Row]) -> str:
    """Write the table."""
    (found,) = rows
    on_evidence = {(row["layer"], row["head"]): row["outputs"] for row in found["evidence"]}
    lines = [
        f"## Table 1: components ({found['prompts']} report prompts, by Cypher over the stored traces)\n",
        "| head | predictions it matters in | mean share | kind | depends on (largest writers into it) | its source is marked evidence |",
        "|---|---|---|---|---|---|",
    ]
    for row in found["heads"]:
        name = f"L{row['layer']}.h{row['head']}"
        into = sorted((w for w in found["writers"] if w["dst"] == name), key=lambda w: -w["mass"])[:3]
        depends = ", ".join(w["src"] for w in into) or "not among the stored compositions"
        matched = on_evidence.get((row["layer"], row["head"]), 0)
        offset = f"looks {row['offset_mean']:.1f} tokens back, induction {row['induction_rate']:.0%}"
        lines.append(f"| {name} | {row['outputs']} | {row['share_mean']:.3f} | {offset} | {depends} | {matched} of {row['outputs']} |")
    return "\n".join(lines) + "\n"
