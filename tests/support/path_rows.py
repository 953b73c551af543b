"""Random Composition and Path rows, for every Output of a trace: what the queries over them are tested on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from tests.support.flows import quantise
from tests.support.mechanism import Locals, build_table

_WRITERS = ("emb", "bias", "L0.h0", "L0.mlp")
_READERS = (("L1.h0", "V"), ("L1.h0", "K"), ("L1.mlp", "MLP"), ("out", "OUT"))
_MIDDLES = ((), ("L0.mlp",), ("L1.h0:V",), ("L0.mlp", "L1.h0:V"))


def path_tables(rng: np.random.Generator, tables: dict[str, pa.Table], numbers: Locals, model_id: str) -> dict[str, pa.Table]:
    """Make three compositions and five paths of each Output; two paths of one motif may begin at different positions."""
    pairs: list[dict[str, Any]] = []
    paths: list[dict[str, Any]] = []
    for output in tables["Output"].to_pylist():
        common = {"output_uid": output["local"], "model_id": model_id}
        for cell in rng.choice(len(_WRITERS) * len(_READERS), 3, replace=False).tolist():
            (dst, via), src = _READERS[cell // len(_WRITERS)], _WRITERS[cell % len(_WRITERS)]
            pairs.append({**common, "src": src, "dst": dst, "via": via, "weight": float(quantise(rng.normal(0, 1)))})
        weights = sorted((float(quantise(rng.normal(0, 1))) for _ in range(5)), key=abs, reverse=True)
        mass = sum(map(abs, weights))
        for rank, weight in enumerate(weights, start=1):
            source, pos = int(rng.integers(0, output["pos"] + 1)), output["pos"]
            middle = _MIDDLES[int(rng.integers(0, len(_MIDDLES)))]
            names = [str(rng.choice(["emb", "bias"])), *middle, "out"]
            hops = [f"{names[0]}@{source}", *(f"{name}@{pos}" for name in names[1:])]
            row = {
                "motif": ">".join(names),
                "hops": hops,
                "source_pos": source,
                "weight": weight,
                "share": abs(weight) / mass,
                "rank": rank,
            }
            paths.append(common | row)
    made = {}
    for label, rows in (("Composition", pairs), ("Path", paths)):
        columns = {name: [row[name] for row in rows] for name in rows[0]}
        made[label] = build_table(label, {"local": numbers.take(len(rows)), **columns})
    return made
