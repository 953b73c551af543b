"""Counts of a store, and the check that it holds what it should.

1. Every READY trace has exactly the rows that were recorded when it became visible, table by table; every other row is an orphan,
   unless it is noted as work in hand (a load that is going on, or one that died: cleaned on the next opening for writing).
2. No relationship joins two traces; no trace id is READY twice.
3. Conservation at every State, Head, Mlp and Output (`conservation.py`).
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from typing import Any, Final

from tracestore import schema
from tracestore.errors import StoreUnavailableError
from tracestore.store.base import CheckReport, Limits, StoreStatus
from tracestore.store.ladybug.conservation import conservation_problems
from tracestore.store.ladybug.files import engine_version
from tracestore.store.ladybug.reading import Reader

_LIMITS: Final = Limits(timeout_s=3600.0, max_rows=None)
_SHOWN: Final = 20
_ATTEMPTS: Final = 3


def _rows(reader: Reader, query: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = reader.run(query, {}, _LIMITS).table.to_pylist()
    return found


def _count(reader: Reader, query: str) -> int:
    return int(_rows(reader, f"{query} AS found")[0]["found"])


def read_status(reader: Reader, url: str) -> StoreStatus:
    """Count nodes by label, relationships by type, traces by status. Labels and types without rows are listed with 0."""
    nodes = {node.label: _count(reader, f"MATCH (n:{node.label}) RETURN count(*)") for node in schema.NODES}
    edges = {edge.type: _count(reader, f"MATCH ()-[r:{edge.type}]->() RETURN count(*)") for edge in schema.EDGES}
    traces = {
        "READY": 0,
        "LOADING": 0,
        "RETIRED": 0,
        "EVICTED": _count(reader, "MATCH (r:StoreTrace) WHERE r.status = 'EVICTED' RETURN count(*)"),
    }
    for row in _rows(reader, "MATCH (t:Trace) RETURN t.status AS status, count(*) AS found"):
        traces[row["status"]] = int(row["found"])
    return StoreStatus(
        url=url,
        engine="ladybug",
        engine_version=engine_version(),
        schema_version=schema.SCHEMA_VERSION,
        nodes=nodes,
        edges=edges,
        traces=traces,
        bytes=reader.files.size(),
    )


def _counts_by_trace(reader: Reader) -> Iterator[tuple[str, int, int]]:
    """Give (table, trace_no, rows) for every table and every trace that has rows in it."""
    for node in schema.NODES:
        for row in _rows(reader, f"MATCH (n:{node.label}) RETURN n.trace_no AS number, count(*) AS found"):
            yield node.label, int(row["number"]), int(row["found"])
    for name, (edge, source, target) in schema.EDGE_TABLES.items():
        query = f"MATCH (a:{source})-[r:{edge.type}]->(b:{target}) RETURN a.trace_no AS number, count(*) AS found"
        for row in _rows(reader, query):
            yield name, int(row["number"]), int(row["found"])


def _missing_or_extra(reader: Reader) -> tuple[list[str], int]:
    recorded = {
        int(row["number"]): (str(row["trace_id"]), {str(k): int(v) for k, v in json.loads(row["counts"]).items()})
        for row in _rows(
            reader,
            "MATCH (r:StoreTrace) WHERE r.status = 'READY' RETURN r.trace_no AS number, r.trace_id AS trace_id, r.row_counts AS counts",
        )
    }
    in_hand = [
        (int(row["first"]), int(row["last"])) for row in _rows(reader, "MATCH (w:StoreWork) RETURN w.first_no AS first, w.last_no AS last")
    ]
    found: dict[int, dict[str, int]] = defaultdict(dict)
    looked = 0
    for table, number, count in _counts_by_trace(reader):
        found[number][table] = count
        looked += count
    problems = []
    for number, (trace_id, counts) in recorded.items():
        if any(first <= number <= last for first, last in in_hand):
            continue  # an attach that is not finished
        have = found.get(number, {})
        for table in sorted(set(counts) | set(have)):
            if counts.get(table, 0) != have.get(table, 0):
                problems.append(
                    f"trace {trace_id}: {have.get(table, 0)} rows of {table}, {counts.get(table, 0)} were recorded when it became READY"
                )
    for number in sorted(set(found) - set(recorded)):
        if not any(first <= number <= last for first, last in in_hand):
            problems.append(f"{sum(found[number].values())} rows with trace_no {number} belong to no READY trace (orphans)")
    return problems, looked


def _across_traces(reader: Reader) -> list[str]:
    problems = []
    for name, (edge, source, target) in schema.EDGE_TABLES.items():
        query = f"MATCH (a:{source})-[r:{edge.type}]->(b:{target}) WHERE a.trace_no <> b.trace_no RETURN count(*)"
        if count := _count(reader, query):
            problems.append(f"{count} relationships of {name} join two traces")
    return problems


def _ready(reader: Reader) -> tuple[list[str], int]:
    """Compare the visible Trace nodes with the record of READY ids: one each, and the same."""
    nodes = _rows(
        reader, "MATCH (t:Trace) WHERE t.ready_id IS NOT NULL RETURN t.ready_id AS ready_id, t.trace_no AS number, t.status AS status"
    )
    records = _rows(reader, "MATCH (r:StoreTrace) WHERE r.status = 'READY' RETURN r.trace_id AS ready_id, r.trace_no AS number")
    problems = [f"trace {row['ready_id']} is visible with status {row['status']}" for row in nodes if row["status"] != "READY"]
    visible: dict[str, list[int]] = defaultdict(list)
    for row in nodes:
        visible[row["ready_id"]].append(int(row["number"]))
    problems += [f"trace {name} is READY {len(numbers)} times" for name, numbers in visible.items() if len(numbers) > 1]
    expected = {row["ready_id"]: int(row["number"]) for row in records}
    problems += [f"trace {name} is recorded as READY and not visible" for name in expected if name not in visible]
    problems += [f"trace {name} is visible and not recorded as READY" for name in visible if name not in expected]
    return problems, len(nodes)


def _mark(reader: Reader) -> list[Any]:
    """Describe what is visible and what is in hand: equal marks before and after mean that nothing was loaded in between."""
    traces = _rows(reader, "MATCH (r:StoreTrace) RETURN r.trace_id, r.trace_no, r.status, r.row_counts ORDER BY r.trace_id")
    return [traces, _rows(reader, "MATCH (w:StoreWork) RETURN w.id AS id ORDER BY w.id")]


def check_store(reader: Reader) -> CheckReport:
    """Run every check; begin again when the store is written meanwhile. Raises StoreUnavailableError when that never ends."""
    for _ in range(_ATTEMPTS):
        before = _mark(reader)
        report = _check(reader)
        if _mark(reader) == before:
            return report
    raise StoreUnavailableError(f"{reader.files.database} is being written all the time; check it when the load is done")


def _check(reader: Reader) -> CheckReport:
    """Run every check once; problems of one kind are cut after some."""
    rows_problems, looked = _missing_or_extra(reader)
    ready_problems, ready = _ready(reader)
    flow_problems, flows = conservation_problems(reader)
    problems = []
    for found in (ready_problems, rows_problems, _across_traces(reader), flow_problems):
        problems += found[:_SHOWN]
        if len(found) > _SHOWN:
            problems.append(f"... and {len(found) - _SHOWN} more of the same kind")
    return CheckReport(tuple(problems), {"traces": ready, "rows": looked, "conservation": flows})
