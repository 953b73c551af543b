"""Random rows for the tables that later work fills: Composition, Path, KNOCKOUT and SUPPORTS."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from tests.support.flows import quantise
from tests.support.mechanism import Locals, build_table


def extra_tables(rng: np.random.Generator, tables: dict[str, pa.Table], numbers: Locals, model_id: str) -> dict[str, pa.Table]:
    """Make two rows of each for the trace's first Output."""
    output = tables["Output"]["local"][0].as_py()
    both = np.array([output, output])

    def weights() -> Any:
        return quantise(rng.normal(0, 1, 2)).astype(np.float32)

    composition = {"local": numbers.take(2), "output_uid": both, "model_id": model_id, "src": ["emb", "L0.mlp"], "dst": ["L1.h0", "out"]}
    path = {"local": numbers.take(2), "output_uid": both, "model_id": model_id, "motif": ["emb>L0.mlp>out", "emb>L1.h0:V>out"]}
    hops = [["emb@0", "L0.mlp@0", "out@1"], ["emb@0", "L1.h0@1", "out@1"]]
    made = {
        "Composition": build_table("Composition", {**composition, "via": ["V", "OUT"], "weight": weights()}),
        "Path": build_table("Path", {**path, "hops": hops, "source_pos": [0, 0], "weight": weights(), "share": [0.6, 0.4], "rank": [1, 2]}),
    }
    knockout = {"dst": both, "kind": ["column", "edge"], "query_pos": [None, 1], "effect": weights(), "effect_logp": weights()}
    for label in ("Token", "HeadSummary"):
        name = f"KNOCKOUT.{label}.Output"
        made[name] = build_table(name, {"src": tables[label]["local"].to_numpy()[[0, 0]], **knockout, "created_at": [1, 2]})
    if "Span" in tables:
        spans = tables["Span"]["local"].to_numpy()
        made["SUPPORTS.Span.Span"] = build_table(
            "SUPPORTS.Span.Span",
            {"src": spans[:1], "dst": spans[1:2], "score": weights()[:1], "direct": [0.5], "total": weights()[:1], "rank": [1]},
        )
    return made
