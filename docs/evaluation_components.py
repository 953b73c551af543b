"""Table 1: which components matter, what they depend on and where, asked by Cypher of traces in a graph store."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from tracestore import api
from tracestore.archive import Archive
from tracestore.evaluate.annotated import Annotated
from tracestore.evaluate.intervals import mean_interval
from tracestore.evaluate.markdown import table_lines
from tracestore.evaluate.runner import Row
from tracestore.extract.loading import LoadedModel
from tracestore.ingest import trace_to_archive
from tracestore.model import Method, TraceOptions

METHOD: Final[Method] = "secant"


def component_rows(load: Callable[[], LoadedModel], items: Sequence[Annotated]) -> Iterator[Row]:
    """Trace items, load them, and ask: one row that holds the answers."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        archive = Archive(folder / "archive")
        trace_to_archive([annotated.item for annotated in items], load(), archive, TraceOptions(method=METHOD))
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
            tasks = store.cypher(
                "MATCH (h:HeadSummary)-[:OF]->(o:Output)-[:OF]->(t:Trace) WHERE t.ready_id IS NOT NULL "
                "MATCH (i:Item)-[:OF]->(t) "
                "RETURN h.layer AS layer, h.head AS head, i.dataset AS task, avg(h.share) AS share, count(DISTINCT o.uid) AS outputs"
            ).to_pylist()
    yield {"prompts": len(items), "method": METHOD, "heads": heads, "evidence": evidence, "writers": writers, "tasks": tasks}


def components_section(rows: list[Row]) -> str:
    """Write the table."""
    (found,) = rows
    on_evidence = {(row["layer"], row["head"]): row["outputs"] for row in found["evidence"]}
    lines = [
        f"## Table 1: components ({found['prompts']} report prompts, method `{found['method']}`, by Cypher over the stored traces)\n",
        "A head *matters* in a prediction where it is among the 64 stored for it; *share*: of what all heads move.\n",
    ]
    table = []
    for row in found["heads"]:
        name = f"L{row['layer']}.h{row['head']}"
        into = sorted((w for w in found["writers"] if w["dst"] == name), key=lambda w: -w["mass"])[:3]
        depends = ", ".join(w["src"] for w in into) or "not among the stored compositions"
        tasks = [task for task in found["tasks"] if (task["layer"], task["head"]) == (row["layer"], row["head"])]
        best = ", ".join(f"{t['task']} ({t['share']:.3f})" for t in sorted(tasks, key=lambda t: -t["share"])[:2])
        spread = mean_interval([task["share"] for task in tasks])
        share = f"{row['share_mean']:.3f} [{spread.low:.3f}, {spread.high:.3f}]"
        kind = f"looks {row['offset_mean']:.1f} tokens back, induction {row['induction_rate']:.0%}"
        matched = on_evidence.get((row["layer"], row["head"]), 0)
        table.append([name, row["outputs"], share, kind, depends, best, f"{matched} of {row['outputs']}"])
    heads = ["head", "predictions", "mean share [interval over tasks]", "kind", "depends on (largest writers into it)", "matters most in"]
    return "\n".join([*lines, *table_lines([*heads, "its source is marked evidence"], table)]) + "\n"
