"""Measured effects as rows of an archive: what was found before, and the tables that are appended."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tracestore import schema
from tracestore.knockouts.sources import Source
from tracestore.model import Trace

if TYPE_CHECKING:
    import pyarrow as pa

Key = tuple[Any, ...]
Row = dict[str, Any]


def known_effects(trace: Trace, output_local: int) -> dict[Key, Row]:
    """Give the newest measurement of each source of an Output, by `Source.key`."""
    found: dict[Key, Row] = {}
    for label, _ in schema.EDGE_BY_TYPE["KNOCKOUT"].pairs:
        for row in trace.table(schema.edge_table("KNOCKOUT", label, "Output")).to_pylist():
            if row["dst"] == output_local:
                key = (label, row["src"], row["kind"], row["layer"], row["head"], row["query_pos"])
                if key not in found or found[key]["created_at"] <= row["created_at"]:
                    found[key] = row
    return found


def effect_tables(output_local: int, measured: Sequence[tuple[Source, float, float]], created_at: int) -> dict[str, pa.Table]:
    """Make the tables to append: KNOCKOUT rows of (source, effect, effect on log p), and the HeadSummary nodes that they need."""
    rows: dict[str, list[Row]] = {}
    for source, effect, effect_logp in measured:
        if source.made is not None:
            rows.setdefault("HeadSummary", []).append(dict(source.made))
        rows.setdefault(schema.edge_table("KNOCKOUT", source.label, "Output"), []).append(
            {
                "src": source.local,
                "dst": output_local,
                "kind": source.stored,
                "layer": source.layer,
                "head": source.head,
                "query_pos": source.query_pos,
                "estimate": source.estimate,
                "effect": effect,
                "effect_logp": effect_logp,
                "created_at": created_at,
            }
        )
    return {name: _table(name, found) for name, found in rows.items()}


def _table(name: str, rows: Iterable[Mapping[str, Any]]) -> pa.Table:
    import pyarrow as pa

    return pa.Table.from_pylist(list(rows), schema=schema.arrow_schema(name))
