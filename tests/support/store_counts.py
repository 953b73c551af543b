"""What a store must count after traces were loaded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from tracestore import schema
from tracestore.model import Trace
from tracestore.store.base import LoadLevel, Store, StoreStatus


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


def content_of(store: Store) -> StoreStatus:
    """Count what a store holds, without the size of its files: a server writes to them at any time."""
    return replace(store.status(), bytes=0)
