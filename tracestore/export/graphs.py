"""Formats `graphml` and `node-link`: every trace as a graph of its own, through networkx.

Nodes are named `Label:local`; their `label` and properties, and the `type` and properties of relationships, are attributes. Null is left
out; GraphML knows no lists, so they are JSON there.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tracestore import schema
from tracestore.export.base import ExportReport, ExportRequest
from tracestore.export.each import edge_count, node_count, text_file, traces_of
from tracestore.export.folder import export_folder
from tracestore.load import LoadPlan
from tracestore.model import Trace

if TYPE_CHECKING:
    import networkx as nx

_SUFFIX: Final = {"graphml": ".graphml", "node-link": ".json"}


def export_graphml(request: ExportRequest) -> ExportReport:
    """Write `TRACE_ID.graphml` for every trace. See `formats.export_archive`."""
    return export_folder("graphml", request, partial(_write, "graphml"))


def export_node_link(request: ExportRequest) -> ExportReport:
    """Write `TRACE_ID.json`, networkx's node-link data, for every trace. See `formats.export_archive`."""
    return export_folder("node-link", request, partial(_write, "node-link"))


def trace_graph(trace: Trace, *, lists: bool = True) -> nx.MultiDiGraph[str]:
    """Make the graph of a trace; without `lists` they are written as JSON text."""
    import networkx as nx

    graph: nx.MultiDiGraph[str] = nx.MultiDiGraph(trace_id=trace.trace_id)
    for node in schema.NODES:
        for row in trace.table(node.label).to_pylist():
            local = row.pop("local")
            graph.add_node(f"{node.label}:{local}", label=node.label, **_attributes(row, lists))
    for name, (edge, source, target) in schema.EDGE_TABLES.items():
        if edge.archived:
            for row in trace.table(name).to_pylist():
                ends = f"{source}:{row.pop('src')}", f"{target}:{row.pop('dst')}"
                graph.add_edge(*ends, type=edge.type, **_attributes(row, lists))
    return graph


def _attributes(row: dict[str, Any], lists: bool) -> dict[str, Any]:
    return {
        name: value if lists or not isinstance(value, list) else json.dumps(value, ensure_ascii=False)
        for name, value in row.items()
        if value is not None
    }


def graph_file(format: str, trace: Trace) -> tuple[str, Iterable[str]]:
    """Give the name and the text, in pieces, of a trace's file."""
    import networkx as nx

    name = f"{trace.trace_id}{_SUFFIX[format]}"
    if format == "graphml":
        return name, (f"{line}\n" for line in nx.generate_graphml(trace_graph(trace, lists=False)))
    return name, json.JSONEncoder(ensure_ascii=False).iterencode(nx.node_link_data(trace_graph(trace), edges="edges"))


def _write(format: str, request: ExportRequest, _plan: LoadPlan, folder: Path) -> tuple[int, int, int]:
    traces = nodes = edges = 0
    for trace in traces_of(request):
        name, text = graph_file(format, trace)
        with text_file(folder / name) as file:
            file.writelines(text)
        traces, nodes, edges = traces + 1, nodes + node_count(trace), edges + edge_count(trace)
    return traces, nodes, edges
