"""A trace as a networkx graph, for whoever wants to look at one without a store."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tracestore import schema
from tracestore.model import Trace

if TYPE_CHECKING:
    import networkx as nx


def to_networkx(trace: Trace) -> nx.MultiDiGraph[int]:
    """Build a directed multigraph of the whole trace.

    Nodes are the trace's local numbers with `label` and the label's properties; edges have `type` and the type's properties (weights in
    logits). OF edges are included.
    """
    import networkx as nx

    graph: nx.MultiDiGraph[int] = nx.MultiDiGraph(trace_id=trace.trace_id)
    for label in schema.NODE_BY_LABEL:
        for row in trace.table(label).to_pylist():
            graph.add_node(row.pop("local"), label=label, **row)
    for table, (edge, _, _) in schema.EDGE_TABLES.items():
        if edge.archived:
            for row in trace.table(table).to_pylist():
                graph.add_edge(row.pop("src"), row.pop("dst"), type=edge.type, **row)
    for node in schema.NODES:
        if node.of is not None:
            for row in trace.table(node.label).to_pylist():
                graph.add_edge(row["local"], row[node.of_column] if node.of_column else 0, type="OF")
    return graph
