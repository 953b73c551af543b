"""Conservation, node by node, by Cypher: sum(in) + bias + dropped_in = relevance = sum(out) + dropped_out for State, Head and Mlp;
sum(INFLUENCES from tokens) + bias = explained, and UNEMBEDS = explained where the mechanism is there, for Output.

One trace at a time, found by its uid range, so that no transaction grows with the store. The tolerance is relative to the sum of the
absolute terms, since weights were made in single precision.
"""

from __future__ import annotations

from typing import Final

from tracestore import schema
from tracestore.store.neo4j.database import Database
from tracestore.store.staging import uid_range

RELATIVE_TOLERANCE: Final = 1e-4
_ABSOLUTE: Final = 1e-6

_ENTERING: Final = "|".join(edge.type for edge in schema.EDGES if edge.level == "mechanism" and edge.type != "UNEMBEDS")
_LEAVING: Final = "|".join(edge.type for edge in schema.EDGES if edge.level == "mechanism" and edge.type != "EMBEDS")


def _flow_query(label: str) -> str:
    return (
        f"MATCH (n:{label}) WHERE n.uid >= $low AND n.uid < $high "
        f"OPTIONAL MATCH (n)<-[i:{_ENTERING}]-() "
        "WITH n, coalesce(sum(i.weight), 0.0) AS entering, coalesce(sum(abs(i.weight)), 0.0) AS size "
        f"OPTIONAL MATCH (n)-[x:{_LEAVING}]->() "
        "WITH n, entering, size, coalesce(sum(x.weight), 0.0) AS leaving, coalesce(sum(abs(x.weight)), 0.0) AS size_out "
        "RETURN n.uid, abs(entering + n.bias + n.dropped_in - n.relevance), size + abs(n.bias) + abs(n.dropped_in) + abs(n.relevance), "
        "abs(leaving + n.dropped_out - n.relevance), size_out + abs(n.dropped_out) + abs(n.relevance)"
    )


_OUTPUT_QUERY: Final = (
    "MATCH (o:Output) WHERE o.uid >= $low AND o.uid < $high "
    "OPTIONAL MATCH (o)<-[i:INFLUENCES]-(:Token) WITH o, coalesce(sum(i.score), 0.0) AS scores, coalesce(sum(abs(i.score)), 0.0) AS size "
    "OPTIONAL MATCH (o)<-[u:UNEMBEDS]-(:State) WITH o, scores, size, coalesce(sum(u.weight), 0.0) AS read "
    "RETURN o.uid, abs(scores + o.bias - o.explained), size + abs(o.bias) + abs(o.explained), "
    "CASE WHEN o.mechanism THEN abs(read - o.explained) ELSE 0.0 END, abs(o.explained)"
)


def conservation_problems(database: Database) -> tuple[list[str], int]:
    """Check every node of every READY trace; give the sentences and how many nodes were looked at."""
    queries = [
        *(
            (node.label, _flow_query(node.label), "what enters and relevance", "what leaves and relevance")
            for node in schema.NODES
            if node.level == "mechanism"
        ),
        ("Output", _OUTPUT_QUERY, "sum(score) + bias and explained", "UNEMBEDS and explained"),
    ]
    problems: list[str] = []
    looked = 0
    numbers = database.rows("MATCH (t:Trace) WHERE t.ready_id IS NOT NULL RETURN t.trace_no ORDER BY t.trace_no")
    for (number,) in numbers:
        low, high = uid_range(int(number))
        for label, query, first, second in queries:
            for uid, error, size, error_out, size_out in database.rows(query, {"low": low, "high": high}, "the check of conservation"):
                looked += 1
                for what, wrong, scale in ((first, error, size), (second, error_out, size_out)):
                    if not wrong <= RELATIVE_TOLERANCE * scale + _ABSOLUTE:  # also true for NaN
                        problems.append(f"{label} {uid}: {what} differ by {wrong:.3g} logits")
    return problems, looked
