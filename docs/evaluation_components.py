"""Table 1: which components matter, what they depend on and where, asked by Cypher of traces in a graph store."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from tracestore import api
from tracestore.archive import Archive
from tracestore.evaluate.annotated import Annotated
from tracestore.evaluate.intervals import Interval, mean_interval
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
            chosen = {(row["layer"], row["head"]) for row in heads}
            cases = store.cypher(
                "MATCH (h:HeadSummary)-[:OF]->(o:Output)-[:OF]->(t:Trace) WHERE t.ready_id IS NOT NULL "
                "MATCH (i:Item)-[:OF]->(t) "
                "RETURN h.layer AS layer, h.head AS head, o.uid AS output, i.dataset AS task, h.share AS share, h.offset AS offset, "
                "h.induction AS induction ORDER BY layer, head, output"
            ).to_pylist()
            evidence = store.cypher(
                "MATCH (h:HeadSummary)-[:OF]->(o:Output)-[:OF]->(t:Trace) WHERE t.ready_id IS NOT NULL "
                "MATCH (s:Span)-[:OF]->(t) WHERE s.kind = 'evidence' AND h.top_source_pos >= s.first_pos "
                "AND h.top_source_pos <= s.last_pos "
                "RETURN DISTINCT h.layer AS layer, h.head AS head, o.uid AS output"
            ).to_pylist()
            looked = {(row["layer"], row["head"], row["output"]) for row in evidence}
            writers = store.cypher(
                "MATCH (c:Composition)-[:OF]->(o:Output)-[:OF]->(t:Trace) WHERE t.ready_id IS NOT NULL "
                "AND c.via <> 'OUT' AND c.via <> 'MLP' "
                "RETURN c.dst AS dst, c.src AS src, sum(abs(c.weight)) AS mass"
            ).to_pylist()
    found = [
        {**row, "evidence": (row["layer"], row["head"], row["output"]) in looked} for row in cases if (row["layer"], row["head"]) in chosen
    ]
    yield {"prompts": len(items), "method": METHOD, "heads": heads, "cases": found, "writers": writers}


def components_section(rows: list[Row]) -> str:
    """Write the table."""
    (found,) = rows
    lines = [
        f"## Table 1: components ({found['prompts']} report prompts, method `{found['method']}`, by Cypher over the stored traces)\n",
        "A head *matters* in a prediction where it is among the 64 stored for it; *share*: of what all heads move. Means over these "
        "predictions; the source is that of the head's largest edge.\n",
    ]
    table = []
    for row in found["heads"]:
        name = f"L{row['layer']}.h{row['head']}"
        into = sorted((w for w in found["writers"] if w["dst"] == name), key=lambda w: -w["mass"])[:3]
        depends = ", ".join(w["src"] for w in into) or "not among the stored compositions"
        cases = [case for case in found["cases"] if (case["layer"], case["head"]) == (row["layer"], row["head"])]
        means = {column: mean_interval([float(case[column]) for case in cases]) for column in ("share", "offset", "induction", "evidence")}
        by_task = {task: _share([case for case in cases if case["task"] == task]) for task in {case["task"] for case in cases}}
        most = sorted(by_task.items(), key=lambda pair: (-pair[1].centre, pair[0]))[:2]
        best = ", ".join(f"{task} {share:.3f}" for task, share in most)
        figures = (f"{means['share']:.3f}", f"{means['offset']:.1f}", f"{means['induction']:.2f}", f"{means['evidence']:.2f}")
        table.append([name, len(cases), *figures, depends, best])
    heads = ["head", "predictions", "share", "tokens from source to query", "source follows a copy of the query token"]
    heads += ["source is marked evidence", "depends on (largest writers into it)", "matters most in (share)"]
    return "\n".join([*lines, *table_lines(heads, table)]) + "\n"


def _share(cases: list[Row]) -> Interval:
    return mean_interval([case["share"] for case in cases])
