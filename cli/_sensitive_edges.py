"""Which single edges would take most away if they were removed: estimates by the plain gradient, where a trace has them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from tracestore.model import Output

EDGE_KEYS: Final = ("kind", "layer", "head", "query_pos", "source_pos", "source_text", "weight", "sensitivity")
KINDS: Final = ("VALUE", "KEY")


def sensitive_edges(output: Output, k: int) -> list[dict[str, Any]]:
    """Give the `k` kept edges of an output with the largest |sensitivity|, as EDGE_KEYS; none where the trace was made without them."""
    import pyarrow.compute as pc

    from tracestore import schema

    trace, local = output.trace, output.row["local"]
    heads, states = (
        {row["local"]: row for row in table.filter(pc.equal(table["output_uid"], local)).to_pylist()}
        for table in (trace.table("Head"), trace.table("State"))
    )
    texts = {token["pos"]: token["text"] for token in trace.table("Token").to_pylist()}
    found = []
    for kind in KINDS:
        table = trace.table(schema.edge_table(kind, "State", "Head"))
        for row in table.filter(pc.is_valid(table["sensitivity"])).to_pylist():
            if row["dst"] in heads:
                head, source = heads[row["dst"]], states[row["src"]]["pos"]
                numbers = {name: row[name] for name in ("weight", "sensitivity")}
                where = {"layer": head["layer"], "head": head["head"], "query_pos": head["pos"], "source_pos": source}
                found.append({"kind": kind, **where, "source_text": texts.get(source), **numbers})
    found.sort(key=lambda edge: (-abs(edge["sensitivity"]), *(edge[name] for name in EDGE_KEYS[:5])))
    return found[:k]


def edge_table(output: Output, edges: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Write edges for a reader: the name by which `tracestore verify --kind edge --source` takes them, and their numbers."""
    from tracestore.coloured import shown

    return [
        {
            "edge": f"L{edge['layer']}.H{edge['head']}:{edge['source_pos']}->{edge['query_pos']}",
            "kind": edge["kind"],
            "from": shown(edge["source_text"]),
            "weight": edge["weight"],
            "sensitivity": edge["sensitivity"],
        }
        for edge in edges
    ]
