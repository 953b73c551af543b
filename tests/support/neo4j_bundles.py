"""Bundles for store tests, and what a store must count after they were loaded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pyarrow as pa

from tracestore import schema
from tracestore.model import Trace
from tracestore.store.base import LoadLevel, TraceBundle


def bundle_of(traces: Sequence[Trace]) -> TraceBundle:
    """Put traces into the tables of one package."""
    tables: dict[str, pa.Table] = {}
    for name in schema.ARCHIVE_TABLES:
        parts = [(number, trace.table(name)) for number, trace in enumerate(traces)]
        numbered = [part.add_column(0, "trace", pa.array([number] * part.num_rows, pa.int64())) for number, part in parts if part.num_rows]
        if numbered:
            tables[name] = pa.concat_tables(numbered).cast(schema.package_schema(name)).combine_chunks()
    return TraceBundle(tuple(trace.trace_id for trace in traces), tables)


def counts_of(traces: Sequence[Trace], *, level: LoadLevel) -> tuple[dict[str, int], dict[str, int]]:
    """Count the nodes by label and the relationships by type that traces make in a store, OF included."""
    nodes: Counter[str] = Counter()
    edges: Counter[str] = Counter()
    for trace in traces:
        for name in schema.ARCHIVE_TABLES:
            count = trace.table(name).num_rows
            if count and (level == "mechanism" or schema.table_level(name) == "summary"):
                if name in schema.NODE_BY_LABEL:
                    nodes[name] += count
                    edges["OF"] += count if schema.NODE_BY_LABEL[name].of else 0
                else:
                    edges[schema.EDGE_TABLES[name][0].type] += count
    return dict(nodes), dict(edges)
