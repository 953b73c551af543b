"""Format `neuronpedia`: every explained prediction as an attribution graph that Neuronpedia's viewer reads.

Its graphs have embedding, feature and logit nodes, each at a layer and a position. Here tokens are embeddings, and heads and MLPs of the
stored mechanism stand where the viewer has features (`feature` is the head's number; an MLP has none). The residual stream is folded away:

    token -> head or MLP    the stored edges into it (VALUE, KEY, QUERY; READS) that come from the token's position
    head or MLP -> logit    its relevance: what of its output reaches the prediction, by whatever way

So the picture shows where every component read and what it was worth. Which component fed which is in the stored compositions and paths.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tracestore import schema
from tracestore._version import __version__
from tracestore.coloured import shown
from tracestore.export.base import ExportReport, ExportRequest
from tracestore.export.each import edge_count, file_name, node_count, text_file, traces_of
from tracestore.export.folder import export_folder
from tracestore.load import LoadPlan
from tracestore.model import Output, Trace

_ATTENTION = ("VALUE", "KEY", "QUERY")


def export_neuronpedia(request: ExportRequest) -> ExportReport:
    """Write `OUTPUT_ID.json` for every prediction. See `formats.export_archive`."""
    return export_folder("neuronpedia", request, _write)


def _write(request: ExportRequest, _plan: LoadPlan, folder: Path) -> tuple[int, int, int]:
    traces = nodes = edges = 0
    for trace in traces_of(request):
        for name, text in graph_files(trace):
            with text_file(folder / name) as file:
                file.write(text)
        traces, nodes, edges = traces + 1, nodes + node_count(trace), edges + edge_count(trace)
    return traces, nodes, edges


def graph_files(trace: Trace) -> Iterator[tuple[str, str]]:
    """Give the name and the text of each prediction's file."""
    for output in trace.outputs:
        yield f"{file_name(output.output_id)}.json", json.dumps(attribution_graph(output), ensure_ascii=False, allow_nan=False)


def attribution_graph(output: Output) -> dict[str, Any]:
    """Give the attribution graph of one prediction: `metadata`, `qParams`, `nodes`, `links`."""
    trace, row = output.trace, output.row
    header = trace.header
    tokens = sorted(trace.table("Token").to_pylist(), key=lambda token: token["pos"])
    seen = [token for token in tokens if token["pos"] <= row["pos"]]
    heads = [head for head in trace.table("Head").to_pylist() if head["output_uid"] == row["local"]]
    mlps = [mlp for mlp in trace.table("Mlp").to_pylist() if mlp["output_uid"] == row["local"]]
    logit = f"{header['n_layers']}_{row['token_id']}_{row['pos']}"
    whole = sum(abs(node["relevance"]) for node in (*heads, *mlps)) or 1.0
    nodes = [
        _node(f"E_{t['token_id']}_{t['pos']}", t["token_id"], "E", t["pos"], "embedding", shown(t["text"], t["token_id"])) for t in seen
    ]
    for head in heads:
        name = f"L{head['layer']}.h{head['head']}"
        share = abs(head["relevance"]) / whole
        nodes.append(_node(_head_id(head), head["head"], str(head["layer"]), head["pos"], "attention head", name, share))
    for mlp in mlps:
        name, share = f"L{mlp['layer']}.mlp", abs(mlp["relevance"]) / whole
        nodes.append(_node(_mlp_id(mlp), None, str(mlp["layer"]), mlp["pos"], "mlp", name, share))
    target = f"Output {shown(row['text'], row['token_id'])} (p={row['prob']:.3f})"
    nodes.append(
        _node(logit, row["token_id"], str(header["n_layers"]), row["pos"], "logit", target)
        | {"token_prob": row["prob"], "is_target_logit": True}
    )
    return {
        "metadata": {
            "slug": file_name(output.output_id),
            "scan": header["model_id"],
            "prompt": trace.text or "",
            "prompt_tokens": [shown(token["text"], token["token_id"]) for token in tokens],
            "info": {"generator": {"name": "tracestore", "version": __version__}, "create_time_ms": header["created_at"]},
            "generation_settings": {"method": header["method"], "gauge": row["gauge"]},
            "pruning_settings": {"keep": header["keep"], "max_edges": header["max_edges"]},
        },
        "qParams": {"linkType": "both", "pinnedIds": [], "clickedId": logit, "supernodes": [], "sg_pos": ""},
        "nodes": nodes,
        "links": _links(trace, row["local"], seen, heads, mlps, logit),
    }


def _node(node_id: str, feature: int | None, layer: str, pos: int, kind: str, label: str, influence: float | None = None) -> dict[str, Any]:
    return {
        "node_id": node_id,
        "feature": feature,
        "layer": layer,
        "ctx_idx": pos,
        "feature_type": kind,
        "jsNodeId": f"{node_id}-0",
        "clerp": label,
        "influence": influence,
        "activation": None,
    }


def _token_id(token: dict[str, Any]) -> str:
    return f"E_{token['token_id']}_{token['pos']}"


def _head_id(head: dict[str, Any]) -> str:
    return f"{head['layer']}_{head['head']}_{head['pos']}"


def _mlp_id(mlp: dict[str, Any]) -> str:
    return f"{mlp['layer']}_mlp_{mlp['pos']}"


def _links(
    trace: Trace, output: int, tokens: list[dict[str, Any]], heads: list[dict[str, Any]], mlps: list[dict[str, Any]], logit: str
) -> list[dict[str, Any]]:
    """Sum the stored edges into links: what a head or MLP reads from a position, and what components write."""
    token_at = {token["pos"]: _token_id(token) for token in tokens}
    position = {state["local"]: state["pos"] for state in trace.table("State").to_pylist() if state["output_uid"] == output}
    named = {head["local"]: _head_id(head) for head in heads} | {mlp["local"]: _mlp_id(mlp) for mlp in mlps}
    weights: dict[tuple[str, str], float] = defaultdict(float)
    for kind in _ATTENTION:
        for edge in trace.table(schema.edge_table(kind, "State", "Head")).to_pylist():
            if edge["dst"] in named and position.get(edge["src"]) in token_at:
                weights[token_at[position[edge["src"]]], named[edge["dst"]]] += edge["weight"]
    for edge in trace.table(schema.edge_table("READS", "State", "Mlp")).to_pylist():
        if edge["dst"] in named and position.get(edge["src"]) in token_at:
            weights[token_at[position[edge["src"]]], named[edge["dst"]]] += edge["weight"]
    for component in (*heads, *mlps):
        weights[named[component["local"]], logit] += component["relevance"]
    return [{"source": source, "target": target, "weight": weight} for (source, target), weight in weights.items()]
