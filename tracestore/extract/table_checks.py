"""I12 on tables: conservation at every stored State, Head and Mlp of an Output, and of the whole graph."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from tracestore.extract.attribution import Floats

if TYPE_CHECKING:
    import pyarrow as pa

FLOW_LABELS = ("State", "Head", "Mlp")
_FLOW_EDGES = ("EMBEDS", "VALUE", "KEY", "QUERY", "WRITES", "READS", "RESIDUAL", "UNEMBEDS")


def conservation_error(tables: Mapping[str, pa.Table]) -> float:
    """Give the worst |sum(in) + bias + dropped_in - relevance| and |relevance - sum(out) - dropped_out| of the tables, in logits.

    The sum over the graph (embeddings + biases + dropped_in = explained + dropped_out) is included, divided by the number of nodes.
    """
    nodes = [tables[label] for label in FLOW_LABELS if label in tables]
    size = max(int(np.max(table["local"].to_numpy())) for table in nodes) + 1
    into, out = np.zeros(size), np.zeros(size)
    embedded = explained = 0.0
    for name, table in tables.items():
        kind = name.split(".")[0]
        if kind not in _FLOW_EDGES:
            continue
        weight = table["weight"].to_numpy().astype(np.float64)
        if kind == "EMBEDS":
            embedded += float(weight.sum())
        if kind == "UNEMBEDS":
            explained += float(weight.sum())
        else:
            np.add.at(into, table["dst"].to_numpy(), weight)
        if kind != "EMBEDS":
            np.add.at(out, table["src"].to_numpy(), weight)
    worst, balance, count = 0.0, embedded - explained, 0
    for table in nodes:
        at = table["local"].to_numpy()
        relevance, bias, dropped_in, dropped_out = (_column(table, name) for name in ("relevance", "bias", "dropped_in", "dropped_out"))
        worst = max(worst, float(np.abs(into[at] + bias + dropped_in - relevance).max(initial=0.0)))
        worst = max(worst, float(np.abs(out[at] + dropped_out - relevance).max(initial=0.0)))
        balance += float((bias + dropped_in - dropped_out).sum())
        count += table.num_rows
    return max(worst, abs(balance) / max(count, 1))


def _column(table: pa.Table, name: str) -> Floats:
    out: Floats = table[name].to_numpy().astype(np.float64)
    return out
