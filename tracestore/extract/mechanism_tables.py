"""The tables Composition and Path of one Output: the largest of each, and what is left is counted in the Output's own row."""

from __future__ import annotations

from typing import Any

import numpy as np

from tracestore.extract.attribution import Compositions, Paths

COMPOSITIONS = 128
"""Compositions of an Output that are stored, unless another number is asked for."""


def composition_columns(found: Compositions, most: int, output: int, model_id: str) -> tuple[dict[str, Any], dict[str, float]]:
    """Give the columns of the `most` largest compositions, and what the Output says of the rest."""
    flat = found.weight.reshape(-1)
    order = np.argsort(-np.abs(flat), kind="stable")[:most]
    order = order[flat[order] != 0]
    writer, reader = np.divmod(order, found.weight.shape[1])
    columns = {
        "output_uid": np.full(len(order), output),
        "model_id": [model_id] * len(order),
        "src": [found.writers[w] for w in writer],
        "dst": [found.readers[r][0] for r in reader],
        "via": [found.readers[r][1] for r in reader],
        "weight": flat[order],
    }
    rest = np.delete(flat, order)
    return columns, {"compositions_rest": float(rest.sum()), "compositions_rest_abs": float(np.abs(rest).sum())}


def path_columns(found: Paths, output: int, model_id: str) -> tuple[dict[str, Any], dict[str, float]]:
    """Give the columns of the paths, and what the Output says of those that are not stored."""
    weight = np.array([path.weight for path in found.paths])
    mass = np.abs(weight).sum()
    columns = {
        "output_uid": np.full(len(weight), output),
        "model_id": [model_id] * len(weight),
        "motif": [path.motif for path in found.paths],
        "hops": [list(path.hops) for path in found.paths],
        "source_pos": [path.source_pos for path in found.paths],
        "weight": weight,
        "share": np.abs(weight) / (mass if mass > 0 else 1.0),
        "rank": np.arange(1, len(weight) + 1),
    }
    masses = {"path_mass_finished": found.finished, "path_mass_open": found.open, "path_largest_open": found.largest_open}
    return columns, masses
