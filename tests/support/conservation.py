"""A check of every conservation rule on a trace's tables; shares nothing with what makes the traces."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import Any

from tracestore import schema
from tracestore.model import Trace

FLOW_EDGES = tuple(name for name, (edge, _, _) in schema.EDGE_TABLES.items() if edge.level == "mechanism")


def conservation_errors(trace: Trace) -> float:
    """Give the largest violation, in logits, of any rule; infinity when a row refers to a node that is not there.

    Rules: at every State, Head and Mlp sum(in) + bias + dropped_in = relevance = sum(out) + dropped_out; UNEMBEDS = explained; over the
    whole graph sum(EMBEDS) + sum(bias) + sum(dropped_in) = explained + sum(dropped_out); every position up to the Output's own has an
    INFLUENCES edge, and sum(score) + bias = explained.
    """
    labels = {row["local"]: label for label in schema.NODE_BY_LABEL for row in trace.table(label).select(["local"]).to_pylist()}
    if len(labels) != sum(trace.table(label).num_rows for label in schema.NODE_BY_LABEL):
        return math.inf
    inward: dict[int, float] = defaultdict(float)
    outward: dict[int, float] = defaultdict(float)
    embedded: dict[int, float] = defaultdict(float)
    for name, (_, src_label, dst_label) in schema.EDGE_TABLES.items():
        table = trace.table(name) if name in schema.ARCHIVE_TABLES else None
        if table is None:
            continue
        weights: list[Any] = table["weight"].to_pylist() if name in FLOW_EDGES else [0.0] * table.num_rows
        src_column: list[Any] = table["src"].to_pylist()
        dst_column: list[Any] = table["dst"].to_pylist()
        for src, dst, weight in zip(src_column, dst_column, weights, strict=True):
            if labels.get(src) != src_label or labels.get(dst) != dst_label:
                return math.inf
            inward[dst] += weight
            outward[src] += weight
            if name == "EMBEDS.Token.State":
                embedded[dst] += weight
    errors = [0.0, *_node_errors(trace, inward, outward)]
    for output in trace.table("Output").to_pylist():
        errors.append(_score_error(trace, output))
        errors.extend(_graph_errors(trace, output, inward, embedded))
    return max(errors)


def _node_errors(trace: Trace, inward: dict[int, float], outward: dict[int, float]) -> list[float]:
    errors = []
    for label in ("State", "Head", "Mlp"):
        for row in trace.table(label).to_pylist():
            errors.append(abs(inward[row["local"]] + row["bias"] + row["dropped_in"] - row["relevance"]))
            errors.append(abs(outward[row["local"]] + row["dropped_out"] - row["relevance"]))
            errors.append(max(0.0, abs(row["dropped_in"]) - row["dropped_in_abs"], abs(row["dropped_out"]) - row["dropped_out_abs"]))
    return errors


def _score_error(trace: Trace, output: dict[str, Any]) -> float:
    edges = [row for row in trace.table("INFLUENCES.Token.Output").to_pylist() if row["dst"] == output["local"]]
    positions = {row["local"]: row["pos"] for row in trace.table("Token").to_pylist()}
    if sorted(positions[row["src"]] for row in edges) != list(range(output["pos"] + 1)):
        return math.inf
    return float(abs(sum(row["score"] for row in edges) + output["bias"] - output["explained"]))


def _graph_errors(trace: Trace, output: dict[str, Any], inward: dict[int, float], embedded: dict[int, float]) -> list[float]:
    rows = [row for label in ("State", "Head", "Mlp") for row in trace.table(label).to_pylist() if row["output_uid"] == output["local"]]
    if not rows:
        return []
    entering = sum(embedded[row["local"]] for row in rows) + sum(row["bias"] + row["dropped_in"] for row in rows)
    leaving = output["explained"] + sum(row["dropped_out"] for row in rows)
    return [abs(entering - leaving), abs(inward[output["local"]] - output["explained"])]
