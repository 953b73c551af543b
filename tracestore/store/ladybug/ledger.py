"""The store's bookkeeping: numbers that are never reused, what is visible, and what must be cleaned up after a crash.

Every function here is one small transaction without COPY; each is durable before the next step of a load begins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from tracestore.store.ladybug.handle import Handle, rows
from tracestore.store.record import Record

if TYPE_CHECKING:
    import ladybug

WorkKind = Literal["load", "retire", "attach"]


@dataclass(frozen=True, slots=True)
class Work:
    """What to delete when it is found on opening: all nodes of `first_no` to `last_no`, or one Output's mechanism."""

    id: int
    kind: WorkKind
    first_no: int
    last_no: int
    output_uid: int = 0


def records(handle: Handle, trace_ids: Sequence[str] | None = None) -> dict[str, Record]:
    """Read the trace ids that the store knows, of those given (None: all)."""
    where, params = ("", {}) if trace_ids is None else ("WHERE r.trace_id IN $ids ", {"ids": list(trace_ids)})
    found = handle.rows(f"MATCH (r:StoreTrace) {where}RETURN r.trace_id, r.trace_no, r.status, r.row_counts", params)
    return {row[0]: Record.of(row) for row in found}


def record(handle: Handle, trace_id: str) -> Record | None:
    """Read one trace id."""
    found = handle.rows("MATCH (r:StoreTrace {trace_id: $id}) RETURN r.trace_id, r.trace_no, r.status, r.row_counts", {"id": trace_id})
    return Record.of(found[0]) if found else None


def _advance(connection: ladybug.Connection, name: str, step: int) -> int:
    """Raise a high-water mark by `step`; give its old value."""
    found = rows(connection, "MATCH (c:StoreCounter {name: $name}) RETURN c.value", {"name": name})
    old = int(found[0][0]) if found else 0
    rows(connection, "MERGE (c:StoreCounter {name: $name}) SET c.value = $value", {"name": name, "value": old + step})
    return old


def raise_counter(handle: Handle, value: int) -> None:
    """Let trace numbers go on after those of a store that this one replaces."""
    with handle.transaction() as connection:
        old = _advance(connection, "trace_no", 0)
        _advance(connection, "trace_no", max(0, value - old))


def counter(handle: Handle) -> int:
    """Give the highest trace number ever given out."""
    found = handle.rows("MATCH (c:StoreCounter {name: 'trace_no'}) RETURN c.value")
    return int(found[0][0]) if found else 0


def _create_work(connection: ladybug.Connection, work: Work) -> None:
    rows(
        connection,
        "CREATE (:StoreWork {id: $id, kind: $kind, first_no: $first, last_no: $last, output_uid: $output})",
        {"id": work.id, "kind": work.kind, "first": work.first_no, "last": work.last_no, "output": work.output_uid},
    )


def begin_load(handle: Handle, count: int) -> Work:
    """Give out `count` fresh trace numbers and note that what they hold is not visible yet."""
    with handle.transaction() as connection:
        last = _advance(connection, "trace_no", count)
        work = Work(_advance(connection, "work", 1) + 1, "load", last + 1, last + count)
        _create_work(connection, work)
    return work


def begin_attach(handle: Handle, trace_no: int, output_uid: int) -> Work:
    """Note that an Output's mechanism is on its way."""
    with handle.transaction() as connection:
        work = Work(_advance(connection, "work", 1) + 1, "attach", trace_no, trace_no, output_uid)
        _create_work(connection, work)
    return work


def _forget_work(connection: ladybug.Connection, work: Work) -> None:
    rows(connection, "MATCH (w:StoreWork {id: $id}) DELETE w", {"id": work.id})


def end_work(handle: Handle, work: Work) -> None:
    """Cross a piece of work off."""
    with handle.transaction() as connection:
        _forget_work(connection, work)


def _retire(connection: ladybug.Connection, trace_no: int) -> None:
    rows(
        connection,
        "MATCH (t:Trace) WHERE t.trace_no = $no SET t.ready_id = NULL, t.status = 'RETIRED'",
        {"no": trace_no},
    )
    _create_work(connection, Work(_advance(connection, "work", 1) + 1, "retire", trace_no, trace_no))


def write_record(connection: ladybug.Connection, entry: Record) -> None:
    rows(
        connection,
        "MERGE (r:StoreTrace {trace_id: $id}) SET r.trace_no = $no, r.status = $status, r.row_counts = $counts",
        {"id": entry.trace_id, "no": entry.trace_no, "status": entry.status, "counts": entry.row_counts_text},
    )


def flip(handle: Handle, work: Work, new: Sequence[Record], old: Sequence[Record]) -> None:
    """Make new traces visible and old generations invisible, in one transaction."""
    with handle.transaction() as connection:
        for entry in old:
            if entry.status == "READY":
                _retire(connection, entry.trace_no)
        rows(
            connection,
            "MATCH (t:Trace) WHERE t.trace_no >= $first AND t.trace_no <= $last SET t.ready_id = t.trace_id, t.status = 'READY'",
            {"first": work.first_no, "last": work.last_no},
        )
        for entry in new:
            write_record(connection, entry)
        _forget_work(connection, work)


def flip_attached(handle: Handle, work: Work, entry: Record) -> None:
    """Make an Output's mechanism visible."""
    with handle.transaction() as connection:
        rows(connection, "MATCH (o:Output {uid: $uid}) SET o.mechanism = true", {"uid": work.output_uid})
        write_record(connection, entry)
        _forget_work(connection, work)


def retire_evicted(handle: Handle, entries: Sequence[Record], unknown: Sequence[str]) -> None:
    """Make traces invisible and record EVICTED; `unknown` are ids that were never loaded."""
    with handle.transaction() as connection:
        for entry in entries:
            _retire(connection, entry.trace_no)
            write_record(connection, Record(entry.trace_id, entry.trace_no, "EVICTED", {}))
        for trace_id in unknown:
            write_record(connection, Record(trace_id, 0, "EVICTED", {}))


def open_work(handle: Handle) -> list[Work]:
    """List what a crash, or a writer that is at it now, has left to be cleaned."""
    found = handle.rows("MATCH (w:StoreWork) RETURN w.id, w.kind, w.first_no, w.last_no, w.output_uid ORDER BY w.id")
    return [Work(*row) for row in found]
