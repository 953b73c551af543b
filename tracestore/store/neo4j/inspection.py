"""Counts of a store, and the check that it holds what it should.

1. Every constraint and index is there and online.
2. Every READY trace has exactly the rows that were recorded when it became visible, table by table; every other row is an orphan unless
   a claim names it (a load that is going on, or one that died: cleaned by the next writer).
3. Visible Trace nodes and READY records are the same, and no relationship joins two traces.
4. Conservation at every State, Head, Mlp and Output.
"""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from tracestore import schema
from tracestore.errors import StoreError
from tracestore.store.base import CheckReport, StoreStatus
from tracestore.store.neo4j.connection import is_loopback
from tracestore.store.neo4j.conservation import conservation_problems
from tracestore.store.neo4j.database import Database
from tracestore.store.neo4j.ddl import schema_names

_SHOWN: Final = 20


def read_status(database: Database, url: str, version: str) -> StoreStatus:
    """Count nodes by label, relationships by type, traces by status (from the server's own counters, so at once on any size)."""
    nodes = {node.label: _count(database, f"MATCH (n:{node.label}) RETURN count(n)") for node in schema.NODES}
    edges = {edge.type: _count(database, f"MATCH ()-[r:{edge.type}]->() RETURN count(r)") for edge in schema.EDGES}
    traces = {"READY": 0, "LOADING": 0, "RETIRED": 0}
    for status, found in database.rows("MATCH (t:Trace) RETURN t.status, count(*)"):
        traces[str(status)] = int(found)
    traces["EVICTED"] = _count(database, "MATCH (r:StoreTrace {status: 'EVICTED'}) RETURN count(r)")
    return StoreStatus(
        url=url,
        engine="neo4j",
        engine_version=version,
        schema_version=schema.SCHEMA_VERSION,
        nodes=nodes,
        edges=edges,
        traces=traces,
        bytes=_store_bytes(database, url),
    )


def _count(database: Database, query: str) -> int:
    return int(database.rows(query)[0][0])


def _store_bytes(database: Database, url: str) -> int:
    """Add up the database's files; 0 where they are not on this machine (a server does not tell over Bolt how large they are)."""
    if not is_loopback(urlsplit(url).hostname or ""):
        return 0
    try:
        found = database.rows("SHOW SETTINGS YIELD name, value WHERE name = 'server.directories.data' RETURN value")
    except StoreError:  # a user who may not look at settings
        return 0
    folder = Path(str(found[0][0])) / "databases" / database.name if found else Path()
    try:
        return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) if found else 0
    except OSError:  # another user's server, or a file that has just gone
        return 0


def missing_schema(database: Database) -> list[str]:
    """Name the constraints and indexes that are not there, or not online."""
    there = {str(row[0]) for row in database.rows("SHOW INDEXES YIELD name, state WHERE state = 'ONLINE' RETURN name")}
    return sorted(schema_names() - there)


def _counts_by_trace(database: Database) -> dict[int, dict[str, int]]:
    found: dict[int, dict[str, int]] = defaultdict(dict)
    for node in schema.NODES:
        for number, count in database.rows(f"MATCH (n:{node.label}) RETURN n.trace_no, count(*)"):
            found[int(number)][node.label] = int(count)
    for name, (edge, source, target) in schema.EDGE_TABLES.items():
        for number, count in database.rows(f"MATCH (a:{source})-[r:{edge.type}]->(:{target}) RETURN a.trace_no, count(*)"):
            found[int(number)][name] = int(count)
    return found


def _row_problems(database: Database) -> tuple[list[str], int]:
    """Compare what is there with what was recorded. A trace that a claim names is left out: it is being written or deleted."""
    found = _counts_by_trace(database)
    in_hand = {int(row[0]) for row in database.rows("MATCH (k:StoreClaim) RETURN k.trace_no")}
    recorded = {
        int(number): (str(trace_id), {str(table): int(count) for table, count in json.loads(counts).items()})
        for number, trace_id, counts in database.rows("MATCH (r:StoreTrace {status: 'READY'}) RETURN r.trace_no, r.trace_id, r.row_counts")
    }
    problems = []
    for number, (trace_id, counts) in recorded.items():
        have = found.get(number, {})
        for table in sorted(set(counts) | set(have)):
            if number not in in_hand and counts.get(table, 0) != have.get(table, 0):
                problems.append(
                    f"trace {trace_id}: {have.get(table, 0)} rows of {table}, {counts.get(table, 0)} were recorded when it became READY"
                )
    for number in sorted(set(found) - set(recorded) - in_hand):
        problems.append(f"{sum(found[number].values())} rows with trace_no {number} belong to no READY trace (orphans)")
    return problems, sum(sum(tables.values()) for tables in found.values())


def _ready_problems(database: Database) -> tuple[list[str], int]:
    nodes = database.rows("MATCH (t:Trace) WHERE t.ready_id IS NOT NULL RETURN t.ready_id, t.trace_id, t.trace_no, t.status")
    records = {str(row[0]): int(row[1]) for row in database.rows("MATCH (r:StoreTrace {status: 'READY'}) RETURN r.trace_id, r.trace_no")}
    problems = []
    for ready_id, trace_id, number, status in nodes:
        if ready_id != trace_id or status != "READY":
            problems.append(f"trace {trace_id} is visible as {ready_id} with status {status}")
        if records.get(ready_id) != number:
            problems.append(f"trace {ready_id} is visible and not recorded as READY")
    visible = {str(row[0]) for row in nodes}
    problems += [f"trace {name} is recorded as READY and not visible" for name in records if name not in visible]
    across = _count(database, "MATCH (a)-[r]->(b) WHERE a.trace_no <> b.trace_no RETURN count(r)")
    if across:
        problems.append(f"{across} relationships join two traces")
    return problems, len(nodes)


def check_store(database: Database) -> CheckReport:
    """Run every check; problems of one kind are cut after some."""
    missing = [
        f"the constraint or index {name} is missing or not online; run: tracestore store migrate" for name in missing_schema(database)
    ]
    row_problems, looked = _row_problems(database)
    ready_problems, ready = _ready_problems(database)
    flow_problems, flows = conservation_problems(database)
    problems: list[str] = []
    for found in (missing, ready_problems, row_problems, flow_problems):
        problems += found[:_SHOWN]
        if len(found) > _SHOWN:
            problems.append(f"... and {len(found) - _SHOWN} more of the same kind")
    return CheckReport(tuple(problems), {"traces": ready, "rows": looked, "conservation": flows})
