"""Outputs: which tokens, heads and paths drove one, and its mechanism as a graph."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import Response

from tracestore.query.mechanism import MOST_EDGES, GraphEdge, GraphNode, read_graph
from tracestore.query.rows import plain
from tracestore.query.traces import read_output_row
from tracestore.serve.asking import Asker, asker, sound
from tracestore.serve.named import only_declared
from tracestore.serve.negotiation import JSON, choose, json_response, rows_response
from tracestore.serve.problems import ProblemError, not_found, responses
from tracestore.serve.schemas import GraphAnswer, OutputAnswer

router = APIRouter(prefix="/api/outputs", tags=["outputs"], dependencies=[Depends(only_declared)])

Ask = Annotated[Asker, Depends(asker)]
Limit = Annotated[int, Query(ge=1, le=10_000, description="Rows at most.")]


@router.get("/{output_id}", response_model=OutputAnswer, responses=responses(404, 422))
def one_output(output_id: str, ask: Ask) -> Response:
    """Give every property of an output, the relevance of every head included (`head_vector`, [layer * n_heads + head], logits)."""
    row = read_output_row(ask, sound(output_id), ask.everything)
    if row is None:
        raise not_found("output")
    return json_response(plain(row))


@router.get("/{output_id}/drivers", responses=responses(404, 406, 422))
def drivers(
    request: Request,
    output_id: str,
    ask: Ask,
    by: Annotated[Literal["drive", "direct", "total", "score"], Query(description="What the rows are ranked by.")] = "drive",
    sink: Annotated[bool, Query(description="With attention sinks, which come last.")] = True,
    limit: Limit = 1000,
) -> Response:
    """Say which earlier tokens drove the output: `drive`, the ranking, its parts (direct and total mass, removal), and the signed score."""
    result = ask.named("drivers", {"output_uid": ask.output(output_id).uid, "by": by, "sink": sink}, limit=limit + 1)
    table = result.table.slice(0, limit)
    return rows_response(request, table, truncated=result.truncated or result.table.num_rows > limit)


@router.get("/{output_id}/heads", responses=responses(404, 406, 422))
def heads(request: Request, output_id: str, ask: Ask, limit: Limit = 64) -> Response:
    """Say which heads carried the influence, and between which positions (64 are stored at most)."""
    result = ask.named("driver_heads", {"output_uid": ask.output(output_id).uid}, limit=limit + 1)
    table = result.table.slice(0, limit)
    return rows_response(request, table, truncated=result.truncated or result.table.num_rows > limit)


@router.get("/{output_id}/paths", responses=responses(404, 406, 422))
def paths(request: Request, output_id: str, ask: Ask, limit: Limit = 50) -> Response:
    """Give the largest exact paths, and (in JSON) the mass of paths that were finished and left open; null where none were computed."""
    place = ask.output(output_id)
    result = ask.named("driver_paths", {"output_uid": place.uid}, limit=limit + 1)
    table = result.table.slice(0, limit)
    own = {"path_mass_finished": place.path_mass_finished, "path_mass_open": place.path_mass_open}
    return rows_response(request, table, truncated=result.truncated or result.table.num_rows > limit, more=plain(own))


@router.get("/{output_id}/graph", response_model=GraphAnswer, responses=responses(404, 406, 422))
def graph(
    request: Request,
    output_id: str,
    ask: Ask,
    limit: Annotated[int, Query(ge=1, le=MOST_EDGES, description="Edges at most.")] = MOST_EDGES,
    expand: Annotated[
        str | None, Query(max_length=60, description="Give the edges of this node instead, such as `L5.h2@3`: what the cut left out.")
    ] = None,
) -> Response:
    """Give the mechanism as a graph, in the field names of Grafana's node graph panel.

    Half of the edges are the largest attention edges, the rest what their heads write and the largest of the others. `expand` takes the
    `id` of a node.
    """
    choose(request, (JSON,))
    place = ask.output(output_id)
    if not place.mechanism:
        raise ProblemError(404, "no-mechanism", "This store holds the output without its mechanism; `tracestore store attach` adds it.")
    found = read_graph(ask, place.uid, ask.everything, k=limit, expand=expand)
    if expand is not None and not found.edges:
        raise not_found("node")
    answer = {
        "nodes": [_node(node) for node in found.nodes],
        "edges": [_edge(edge) for edge in found.edges],
        "edges_stored": found.edges_stored,
        "attention_share": found.attention_share,
        "truncated": found.truncated,
    }
    return json_response(plain(answer))


def _node(node: GraphNode) -> dict[str, Any]:
    what = {"Token": "token", "Output": "output", "State": "residual stream", "Head": "attention head", "Mlp": "MLP"}[node.label]
    where = f"L{node.layer}.H{node.head}" if node.label == "Head" else "output" if node.label == "Output" else node.name.partition("@")[0]
    own = {"kind": node.label, "layer": node.layer, "head": node.head, "pos": node.pos, "site": node.site}
    return {"id": node.name, "title": where, "subtitle": f"{what}, position {node.pos}", "mainstat": node.relevance, **own}


def _edge(edge: GraphEdge) -> dict[str, Any]:
    name = f"{edge.source}>{edge.target}:{edge.type}"
    own = {"type": edge.type, "attention": edge.attention}
    return {"id": name, "source": edge.source, "target": edge.target, "mainstat": edge.weight, "secondarystat": edge.type, **own}
