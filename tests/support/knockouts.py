"""Random knockouts of made traces: every kind of source, some measured twice, some without an estimate."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from tests.support.flows import quantise
from tests.support.mechanism import build_table


def knockout_tables(rng: np.random.Generator, tables: dict[str, pa.Table]) -> dict[str, pa.Table]:
    """Make KNOCKOUT rows for every Output of a trace, from about half of its tokens, heads and spans."""
    rows: dict[str, list[dict[str, Any]]] = {}
    clock = 1_700_000_000_000
    tokens = tables["Token"].to_pylist()
    for output in tables["Output"].to_pylist():

        def add(label: str, local: int, kind: str, output: dict[str, Any] = output, **where: int) -> None:
            nonlocal clock
            for _ in range(1 + (rng.random() < 0.2)):  # some were measured again
                clock += 1
                estimate, effect, logp = (float(value) for value in quantise(rng.normal(0, 1, 3)))
                row = {"src": local, "dst": output["local"], "kind": kind, "effect": effect, "effect_logp": logp, "created_at": clock}
                row |= {"estimate": None if rng.random() < 0.1 else estimate, "layer": None, "head": None, "query_pos": None}
                rows.setdefault(f"KNOCKOUT.{label}.Output", []).append(row | where)

        for token in tokens[: output["pos"] + 1]:
            if token["pos"] < output["pos"] and rng.random() < 0.6:
                add("Token", token["local"], "column")
            if rng.random() < 0.3:
                add("Token", token["local"], "mean_embedding")
            if rng.random() < 0.3:
                add("Token", token["local"], "edge", layer=1, head=0, query_pos=output["pos"])
        for head in tables["HeadSummary"].to_pylist():
            if head["output_uid"] == output["local"] and rng.random() < 0.5:
                add("HeadSummary", head["local"], "head", layer=head["layer"], head=head["head"])
        for span in tables["Span"].to_pylist() if "Span" in tables else []:
            if span["last_pos"] < output["pos"]:
                add("Span", span["local"], "column")
    return {name: _table(name, found) for name, found in rows.items()}


def _table(name: str, rows: list[dict[str, Any]]) -> pa.Table:
    return build_table(name, {key: [row[key] for row in rows] for key in rows[0]})
