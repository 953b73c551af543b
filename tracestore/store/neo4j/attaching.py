"""Add the mechanism level of one Output to a visible trace: claim, batches, flip of `Output.mechanism`."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING, Final

from tracestore import schema
from tracestore.errors import BadInputError
from tracestore.store.base import LoadReport, TraceBundle
from tracestore.store.neo4j import ledger
from tracestore.store.neo4j.cleaning import clean_orphans
from tracestore.store.neo4j.database import Database
from tracestore.store.neo4j.holder import this_process
from tracestore.store.neo4j.writers import Load, LoadSettings
from tracestore.store.record import Record
from tracestore.store.staging import stage_mechanism

if TYPE_CHECKING:
    import neo4j

_LOCAL: Final = (1 << schema.UID_BITS) - 1


def _find_in_bundle(bundle: TraceBundle, output_id: str) -> tuple[int, int]:
    """Give the ordinal of the trace and the local number of the output."""
    import pyarrow as pa
    import pyarrow.compute as pc

    outputs = bundle.tables.get("Output")
    if outputs is not None:
        mine = outputs.filter(pc.equal(outputs.column("output_id"), pa.scalar(output_id)))
        if mine.num_rows:
            return int(mine.column("trace")[0].as_py()), int(mine.column("local")[0].as_py())
    raise BadInputError(f"the archive's package does not hold the output {output_id}; check the id with: tracestore query list_traces")


def _find_in_store(database: Database, output_id: str) -> tuple[Record, int, bool]:
    """Give the trace's record, the output's uid, and whether its mechanism is there."""
    query = (
        "MATCH (o:Output {output_id: $id})-[:OF]->(t:Trace) WHERE t.ready_id IS NOT NULL MATCH (r:StoreTrace {trace_id: t.trace_id}) "
        "RETURN r.trace_id, r.trace_no, r.status, r.row_counts, o.uid, o.mechanism"
    )
    found = database.rows(query, {"id": output_id}, "a look for an output")
    if not found:
        raise BadInputError(f"the store has no complete trace with the output {output_id}; load its trace first: tracestore load")
    *row, uid, present = found[0]
    return Record.of(row), int(uid), bool(present)


def attach_output(database: Database, bundle: TraceBundle, output_id: str, settings: LoadSettings) -> LoadReport:
    """Attach one output. Nothing happens when its mechanism is there already."""
    started = time.perf_counter()
    ordinal, local = _find_in_bundle(bundle, output_id)
    if ledger.has_orphans(database):
        clean_orphans(database)
    record, uid, present = _find_in_store(database, output_id)
    if uid & _LOCAL != local:
        raise BadInputError(
            f"the archive numbers the nodes of {output_id} otherwise than the store; load its trace anew: tracestore load --replace"
        )
    if present:
        return LoadReport(skipped=(record.trace_id,), seconds=time.perf_counter() - started)
    staged = stage_mechanism(bundle, ordinal, record.trace_no, uid)
    if "State" not in staged.nodes:
        raise BadInputError(f"the archive has no mechanism of {output_id}; trace it again")
    load = Load(database, settings)

    def claim(transaction: neo4j.Transaction) -> None:
        ledger.claim_output(transaction, load.load_id, this_process(), record, uid, settings.lease_ms)

    added = {name: table.num_rows for name, table in {**staged.nodes, **staged.edges}.items()}
    entry = Record(record.trace_id, record.trace_no, "READY", dict(Counter(record.row_counts) + Counter(added)))

    def flip(transaction: neo4j.Transaction) -> None:
        ledger.flip_attached(transaction, load.load_id, entry, uid, staged.node_count + staged.edge_count, settings.lease_ms)

    database.write(claim, "a claim")
    try:
        load.write_all([lambda: staged], None)
        database.write(flip, "the last step of an attach")
    except BaseException:
        load.abandon()
        raise
    return LoadReport((record.trace_id,), (), staged.node_count, staged.edge_count, time.perf_counter() - started)
