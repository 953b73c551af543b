"""Read whole things of the store by their id: the summary of a trace, the place of an output.

The statements are portable Cypher made from the schema: every property of a label, found by the range of its trace's keys.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from tracestore import schema
from tracestore.errors import StoreUnavailableError
from tracestore.store.base import Limits, Result

Row = dict[str, Any]

_ATTEMPTS: Final = 5
_PARTS: Final = (("items", "Item", "uid"), ("tokens", "Token", "pos"), ("spans", "Span", "uid"), ("outputs", "Output", "pos"))


class Runner(Protocol):
    """What runs read-only statements: a Store, or something that stands before one."""

    def run(self, cypher: str, params: Mapping[str, Any], limits: Limits) -> Result: ...


@dataclass(frozen=True, slots=True)
class TraceSummary:
    """A trace with its Items, Tokens, Spans and Outputs: every property of the schema, and `uid`, the key in this store."""

    trace: Row
    items: tuple[Row, ...]
    tokens: tuple[Row, ...]
    spans: tuple[Row, ...]
    outputs: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class OutputPlace:
    """Where an output is: its key, whether its mechanism is in this store, and what its paths leave out."""

    uid: int
    pos: int
    mechanism: bool
    path_mass_finished: float | None
    path_mass_open: float | None


def key_range(uid: int) -> dict[str, int]:
    """Give the keys of the trace that a node belongs to, as parameters `low` (first) and `high` (one past the last)."""
    low = uid >> schema.UID_BITS << schema.UID_BITS
    return {"low": low, "high": low + (1 << schema.UID_BITS)}


def find_output(store: Runner, output_id: str, limits: Limits) -> OutputPlace | None:
    """Find an output by its id; None when no READY trace has it."""
    statement = (
        "MATCH (o:Output)-[:OF]->(tr:Trace) WHERE tr.ready_id IS NOT NULL AND o.output_id = $output_id "
        "RETURN o.uid AS uid, o.pos AS pos, o.mechanism AS mechanism, o.path_mass_finished AS finished, o.path_mass_open AS open LIMIT 1"
    )
    for row in store.run(statement, {"output_id": output_id}, limits).table.to_pylist():
        return OutputPlace(row["uid"], row["pos"], bool(row["mechanism"]), row["finished"], row["open"])
    return None


def read_output_row(store: Runner, output_id: str, limits: Limits) -> Row | None:
    """Read every property of an output; None when no READY trace has it."""
    statement = (
        f"MATCH (n:Output)-[:OF]->(tr:Trace) WHERE tr.ready_id IS NOT NULL AND n.output_id = $output RETURN {_properties('Output')} LIMIT 1"
    )
    return next(iter(_rows(store, statement, {"output": output_id}, limits)), None)


def read_summary(store: Runner, trace_id: str, limits: Limits) -> TraceSummary | None:
    """Read a trace without its mechanism; None when no READY trace has this id.

    Begins again when the trace is replaced meanwhile; raises StoreUnavailableError when that goes on.
    """
    statement = f"MATCH (n:Trace) WHERE n.ready_id = $trace_id RETURN {_properties('Trace')}"
    for _ in range(_ATTEMPTS):
        found = _rows(store, statement, {"trace_id": trace_id}, limits)
        if not found:
            return None
        (trace,) = found
        keys = key_range(trace["uid"])
        parts = {name: _part(store, label, order, keys, limits) for name, label, order in _PARTS}
        if _rows(store, statement, {"trace_id": trace_id}, limits) == found:
            return TraceSummary(trace, **parts)
    raise StoreUnavailableError(f"the trace {trace_id} is being replaced again and again; try later")


def _properties(label: str) -> str:
    names = ["uid", *(c.name for c in schema.table_columns(label, store=True))]
    return ", ".join(f"n.{name} AS {name}" for name in names)


def _part(store: Runner, label: str, order: str, keys: Mapping[str, int], limits: Limits) -> tuple[Row, ...]:
    by = order if order == "uid" else f"{order}, uid"
    statement = f"MATCH (n:{label}) WHERE n.uid >= $low AND n.uid < $high RETURN {_properties(label)} ORDER BY {by}"
    return tuple(_rows(store, statement, keys, limits))


def _rows(store: Runner, statement: str, params: Mapping[str, Any], limits: Limits) -> list[Row]:
    rows: list[Row] = store.run(statement, params, limits).table.to_pylist()
    return rows
