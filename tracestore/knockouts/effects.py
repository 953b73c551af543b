"""Measured effects as rows of an archive: what was found before, and the tables that are appended."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
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


def agrees(estimate: float, effect: float) -> bool:
    """Do trace and model say the same about the direction: what supports a prediction lowers it by going."""
    return estimate * effect < 0 or estimate == effect == 0


@dataclass(frozen=True, slots=True)
class Agreement:
    """How the measurements of one Output compare with its trace; `columns` gives the effect (logits) of each token's column, by local."""

    tried: int
    agree: int
    columns: Mapping[int, float]

    def sentence(self) -> str:
        """Say it for a reader."""
        if self.agree == self.tried:
            verdict = "the model confirms the direction of every one"
        else:
            verdict = f"the model confirms the direction of {self.agree} and contradicts {self.tried - self.agree}"
        return f"knockouts: {self.tried} sources were removed on the model; {verdict}"


def agreement(trace: Trace, output_local: int) -> Agreement | None:
    """Compare the newest measurement of each source with its estimate; None where nothing was measured."""
    found = known_effects(trace, output_local)
    judged = [row for row in found.values() if row["estimate"] is not None]
    if not judged:
        return None
    columns = {key[1]: row["effect"] for key, row in found.items() if key[0] == "Token" and row["kind"] == "column"}
    return Agreement(len(judged), sum(agrees(row["estimate"], row["effect"]) for row in judged), columns)


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
