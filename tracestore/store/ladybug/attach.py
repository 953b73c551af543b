"""Add the mechanism level of one Output to a visible trace: noted as work, COPY, count, flip of `Output.mechanism`."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from tracestore import schema
from tracestore.errors import BadInputError, ShortCountError
from tracestore.store.base import LoadReport, TraceBundle
from tracestore.store.ladybug import ledger
from tracestore.store.ladybug.cleanup import cleaned_on_failure
from tracestore.store.ladybug.handle import Handle
from tracestore.store.ladybug.ingest import copy_staged
from tracestore.store.record import Record
from tracestore.store.staging import Staged, stage_mechanism, uid_range

_LOCAL: Final = (1 << schema.UID_BITS) - 1


def _find_in_bundle(bundle: TraceBundle, output_id: str) -> tuple[int, int]:
    """Give the ordinal of the trace and the local number of the output."""
    outputs = bundle.tables.get("Output")
    if outputs is not None:
        mine = outputs.filter(pc.equal(outputs.column("output_id"), pa.scalar(output_id)))
        if mine.num_rows:
            return int(mine.column("trace")[0].as_py()), int(mine.column("local")[0].as_py())
    raise BadInputError(f"the archive's package does not hold the output {output_id}; check the id with: tracestore query list_traces")


def _find_in_store(handle: Handle, trace_id: str, output_id: str) -> tuple[Record, int, bool]:
    """Give the trace's record, the output's uid, and whether its mechanism is there."""
    record = ledger.record(handle, trace_id)
    if record is not None and record.status == "READY":
        query = "MATCH (o:Output) WHERE o.trace_no = $no AND o.output_id = $id RETURN o.uid, o.mechanism"
        found = handle.rows(query, {"no": record.trace_no, "id": output_id})
        if found:
            return record, int(found[0][0]), bool(found[0][1])
    raise BadInputError(f"the store has no complete trace with the output {output_id}; load its trace first: tracestore load")


def _check_arrived(handle: Handle, staged: Staged, trace_no: int, output_uid: int) -> None:
    low, high = uid_range(trace_no)
    params = {"low": low, "high": high, "output": output_uid}
    for name, table in {**staged.nodes, **staged.edges}.items():
        if name in staged.nodes:
            query = f"MATCH (n:{name}) WHERE n.uid >= $low AND n.uid < $high AND n.output_uid = $output RETURN count(*)"
        else:
            edge, source, target = schema.EDGE_TABLES[name]
            inner = "n" if schema.NODE_BY_LABEL[source].level == "mechanism" else "m"
            query = (
                f"MATCH (n:{source})-[r:{edge.type}]->(m:{target}) "
                f"WHERE n.uid >= $low AND n.uid < $high AND {inner}.output_uid = $output RETURN count(r)"
            )
        found = int(handle.rows(query, params)[0][0])
        if found != table.num_rows:
            raise ShortCountError(f"{table.num_rows} rows of {name} were sent and the store holds {found}; attach again")


def _added(before: Mapping[str, int], staged: Staged) -> dict[str, int]:
    counts = dict(before)
    for name, table in {**staged.nodes, **staged.edges}.items():
        counts[name] = counts.get(name, 0) + table.num_rows
    return counts


def attach_output(handle: Handle, bundle: TraceBundle, output_id: str) -> LoadReport:
    """Attach one output. Nothing happens when its mechanism is there already."""
    started = time.perf_counter()
    ordinal, local = _find_in_bundle(bundle, output_id)
    trace_id = bundle.trace_ids[ordinal]
    record, uid, present = _find_in_store(handle, trace_id, output_id)
    if uid & _LOCAL != local:
        raise BadInputError(
            f"the archive numbers the nodes of {output_id} otherwise than the store; load its trace anew: tracestore load --replace"
        )
    if present:
        return LoadReport(skipped=(trace_id,), seconds=time.perf_counter() - started)
    staged = stage_mechanism(bundle, ordinal, record.trace_no, uid)
    if "State" not in staged.nodes:
        raise BadInputError(f"the archive has no mechanism of {output_id}; trace it again")
    work = ledger.begin_attach(handle, record.trace_no, uid)
    with cleaned_on_failure(handle, work):
        copy_staged(handle, staged)
        _check_arrived(handle, staged, record.trace_no, uid)
        entry = Record(trace_id, record.trace_no, "READY", _added(record.row_counts, staged))
        ledger.flip_attached(handle, work, entry)
    return LoadReport((trace_id,), (), staged.node_count, staged.edge_count, time.perf_counter() - started)
