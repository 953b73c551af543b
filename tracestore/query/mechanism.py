"""The mechanism of one output as a graph of bounded size, for eyes and dashboards.

1. Ask each relationship table of the mechanism level for its largest |weight|s of this output.
2. Give half of the room to attention edges (VALUE, KEY, QUERY), which are what a reader looks for; RESIDUAL edges outweigh all others.
3. Give a quarter to what the chosen heads WRITE, the rest to the largest of the others (RESIDUAL, MLPs, EMBEDS, UNEMBEDS);
   room that one group does not need goes to the next.
4. Count the whole, so that the share shown can be said.

`expand` gives the edges of one node instead, for what the cut left out.

Names of nodes are those of the hops of a Path, with residual states beside them: `emb@3`, `L5.pre@3`, `L5.mid@3`, `L5.h2@3`, `L5.mlp@3`,
`out@9`. A name means one node of an output, in every store.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from tracestore import schema
from tracestore.errors import QueryError
from tracestore.query.traces import Runner, key_range
from tracestore.store.base import Limits

ATTENTION: Final = ("VALUE", "KEY", "QUERY")
MOST_EDGES: Final = 2_000
_TABLES: Final = tuple((e.type, a, b) for e, a, b in schema.EDGE_TABLES.values() if e.level == "mechanism")
_PROPERTIES: Final[Mapping[str, tuple[str, ...]]] = {
    "Token": ("pos",),
    "State": ("layer", "pos", "site", "relevance"),
    "Head": ("layer", "head", "pos", "relevance"),
    "Mlp": ("layer", "pos", "relevance"),
    "Output": ("pos", "explained"),
}
_NAME: Final = re.compile(
    r"(?:L(?P<layer>\d{1,6})\.(?:(?P<site>pre|mid)|h(?P<head>\d{1,6})|(?P<mlp>mlp))|(?P<end>emb|out))@(?P<pos>\d{1,9})"
)


@dataclass(frozen=True, slots=True)
class GraphNode:
    """A node of an output's mechanism. `relevance` in logits; None for a Token."""

    name: str
    label: str
    layer: int | None
    head: int | None
    pos: int
    site: str | None
    relevance: float | None


@dataclass(frozen=True, slots=True)
class GraphEdge:
    """An edge between two nodes, by their names. `weight` in logits; `attention` (a probability) on VALUE edges."""

    type: str
    source: str
    target: str
    weight: float
    attention: float | None = None


@dataclass(frozen=True, slots=True)
class MechanismGraph:
    """The chosen edges, largest |weight| first, their nodes, and how much of the stored graph they are."""

    nodes: tuple[GraphNode, ...]
    edges: tuple[GraphEdge, ...]
    edges_stored: int
    attention_share: float
    """Share of the stored attention edges' |weight| that the chosen ones hold, 0 to 1."""

    @property
    def truncated(self) -> bool:
        """Was anything left out?"""
        return len(self.edges) < self.edges_stored


def read_graph(store: Runner, output_uid: int, limits: Limits, *, k: int = MOST_EDGES, expand: str | None = None) -> MechanismGraph:
    """Read the `k` most telling edges of an output, or with `expand` the `k` largest edges of the node of that name.

    Raises QueryError when `expand` is no name of a node.
    """
    node = None if expand is None else _parse(expand)
    nodes: dict[str, GraphNode] = {}
    edges: list[GraphEdge] = []
    stored, attention, shown = 0, 0.0, 0.0
    for kind, source, target in _TABLES:
        for condition, params in _conditions(source, target, node):
            statement = _Statement(kind, source, target, condition)
            params = {"output": output_uid, **(key_range(output_uid) if target != "Output" else {}), **params}
            edges += statement.read(store, params, k, limits, nodes)
            count, mass = statement.count(store, params, limits)
            stored += count
            attention += mass if kind in ATTENTION else 0.0
    chosen = _choose(edges, k) if node is None else sorted(edges, key=_size)[:k]
    used = {name for edge in chosen for name in (edge.source, edge.target)}
    shown = sum(abs(edge.weight) for edge in chosen if edge.type in ATTENTION)
    ordered = sorted((nodes[name] for name in used), key=lambda n: (n.pos, n.layer or 0, n.name))
    return MechanismGraph(tuple(ordered), tuple(chosen), stored, min(1.0, shown / attention) if attention else 1.0)


@dataclass(frozen=True, slots=True)
class _Statement:
    """Statements over one relationship table. Labels and types come from the schema, never from a caller."""

    kind: str
    source: str
    target: str
    condition: str

    @property
    def _match(self) -> str:
        mine = "b.uid = $output" if self.target == "Output" else "b.output_uid = $output AND b.uid >= $low AND b.uid < $high"
        return f"MATCH (a:{self.source})-[r:{self.kind}]->(b:{self.target}) WHERE {mine}{self.condition}"

    def read(self, store: Runner, params: Mapping[str, Any], k: int, limits: Limits, nodes: dict[str, GraphNode]) -> list[GraphEdge]:
        """Read the largest edges; note their ends in `nodes`."""
        names = [f"{v}.{p} AS {v}_{p}" for v, label in (("a", self.source), ("b", self.target)) for p in _PROPERTIES[label]]
        names += ["r.weight AS weight", *(["r.attention AS attention"] if self.kind == "VALUE" else [])]
        statement = f"{self._match} RETURN {', '.join(names)} ORDER BY abs(r.weight) DESC, a.uid, b.uid LIMIT $k"
        found = []
        for row in store.run(statement, {**params, "k": k}, limits).table.to_pylist():
            ends = [_node(label, {p: row[f"{v}_{p}"] for p in _PROPERTIES[label]}) for v, label in (("a", self.source), ("b", self.target))]
            nodes.update((end.name, end) for end in ends)
            found.append(GraphEdge(self.kind, ends[0].name, ends[1].name, row["weight"], row.get("attention")))
        return found

    def count(self, store: Runner, params: Mapping[str, Any], limits: Limits) -> tuple[int, float]:
        """Count the edges and add up their |weight|."""
        statement = f"{self._match} RETURN count(*) AS edges, coalesce(sum(abs(r.weight)), 0.0) AS mass"
        (row,) = store.run(statement, params, limits).table.to_pylist()
        return int(row["edges"]), float(row["mass"])


def _node(label: str, row: Mapping[str, Any]) -> GraphNode:
    layer, head, pos, site = row.get("layer"), row.get("head"), int(row["pos"]), row.get("site")
    where = {"Token": "emb", "Output": "out", "State": f"L{layer}.{site}", "Head": f"L{layer}.h{head}", "Mlp": f"L{layer}.mlp"}[label]
    return GraphNode(f"{where}@{pos}", label, layer, head, pos, site, row.get("relevance", row.get("explained")))


def _parse(name: str) -> GraphNode:
    found = _NAME.fullmatch(name)
    if found is None:
        raise QueryError("There is no node of this name; names look like emb@3, L5.pre@3, L5.mid@3, L5.h2@3, L5.mlp@3 and out@9.")
    label = {"emb": "Token", "out": "Output"}.get(found["end"] or "", "State" if found["site"] else "Mlp" if found["mlp"] else "Head")
    return _node(label, found.groupdict() | {key: None if found[key] is None else int(found[key]) for key in ("layer", "head", "pos")})


def _conditions(source: str, target: str, node: GraphNode | None) -> Iterable[tuple[str, dict[str, Any]]]:
    """Say which edges of a table are wanted: all, or those at either end of which the node stands."""
    if node is None:
        yield "", {}
        return
    wanted = {p: getattr(node, p) for p in ("pos", "layer", "head", "site") if getattr(node, p) is not None}
    for variable, label in (("a", source), ("b", target)):
        if label == node.label:
            yield "".join(f" AND {variable}.{p} = ${p}" for p in wanted), wanted


def _choose(edges: list[GraphEdge], k: int) -> list[GraphEdge]:
    ranked = sorted(edges, key=_size)
    attention = [edge for edge in ranked if edge.type in ATTENTION]
    others = [edge for edge in ranked if edge.type not in ATTENTION]
    chosen = attention[: max(k // 2, k - len(others))]
    heads = {edge.target for edge in chosen}
    written = [edge for edge in others if edge.type == "WRITES" and edge.source in heads][: k // 4]
    taken = {id(edge) for edge in written}
    rest = [edge for edge in others if id(edge) not in taken]
    return sorted([*chosen, *written, *rest[: k - len(chosen) - len(written)]], key=_size)


def _size(edge: GraphEdge) -> tuple[float, str, str]:
    return -abs(edge.weight), edge.source, edge.target
