"""The store's bookkeeping: numbers that are never reused, who is at work on what, what is visible, what must be cleaned.

A load holds a lease (until when, by the *server's* clock) and claims, one per trace number. The claims of a lease that is gone name
what must be deleted. Everyone who claims or buries locks the counter node first, so these steps happen one after the other; whoever
writes rows locks its own part of the lease last in each transaction, so that nothing is written once a lease was buried. A lease has a
part for every writer of its load: on a single node their commits would wait for each other. It lives as long as any of its parts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from tracestore.errors import ShortCountError, StoreLockedError
from tracestore.schema import UID_BITS
from tracestore.store.neo4j.database import Database, rows
from tracestore.store.neo4j.holder import Holder, is_dead
from tracestore.store.record import Record

if TYPE_CHECKING:
    import neo4j

ClaimKind = Literal["load", "retire", "attach"]

LOST_LEASE: Final = "this load was silent for longer than its lease and another process may have taken over; load again"
_MARKERS_AT_ONCE: Final = 2_000
_LOCK: Final = "MERGE (c:StoreCounter {name: 'trace_no'}) ON CREATE SET c.value = 0 SET c.touched = timestamp() RETURN c.value"


@dataclass(frozen=True, slots=True)
class Claim:
    """A number that a load writes under, or what is left of one: what to delete when its lease is gone."""

    claim_id: str
    kind: ClaimKind
    trace_id: str
    trace_no: int
    output_uid: int


@dataclass(frozen=True, slots=True)
class Choice:
    """What of a bundle a load may write: trace id -> fresh number; the rest was READY or EVICTED, or another load is at it.

    `buried`: a lease ended just before, and what stands under its claims is still to be deleted.
    """

    numbers: Mapping[str, int]
    skipped: tuple[str, ...]
    busy: tuple[str, ...]
    buried: bool


@dataclass(frozen=True, slots=True)
class Flipped:
    """What a load made visible, and whether it left anything to delete (an older generation, what was evicted meanwhile)."""

    visible: tuple[str, ...]
    leftovers: bool


def lock_counter(transaction: neo4j.Transaction) -> int:
    """Take the lock that keeps claims apart until this transaction ends; give the highest number given out."""
    return int(rows(transaction, _LOCK)[0][0])


def raise_counter(transaction: neo4j.Transaction, value: int) -> None:
    """Let numbers go on after `value`."""
    if lock_counter(transaction) < value:
        rows(transaction, "MATCH (c:StoreCounter {name: 'trace_no'}) SET c.value = $value", {"value": value})


_LEASES: Final = (
    "MATCH (l:StoreLease) WITH coalesce(l.part_of, l.load_id) AS load, l "
    "RETURN load, collect(l.load_id), head(collect(l.machine)), head(collect(l.process)), max(l.expires_at) <= timestamp()"
)
_LEFT: Final = "MATCH (k:StoreClaim) WHERE NOT EXISTS { MATCH (l:StoreLease {load_id: k.load_id}) } "


def lease_part(load_id: str, writer: int) -> str:
    """Name the part of a load's lease that a writer holds; the first writer has the lease itself."""
    return load_id if writer == 0 else f"{load_id}/{writer}"


def _dead_parts(leases: Sequence[Sequence[Any]]) -> list[str]:
    return [part for _, parts, machine, process, ended in leases if ended or is_dead(Holder(machine, process)) for part in parts]


def bury_dead(transaction: neo4j.Transaction) -> bool:
    """Remove the leases that ended or whose holder is dead; tell whether there was one. Hold the counter's lock."""
    dead = _dead_parts(rows(transaction, _LEASES))
    if dead:
        rows(transaction, "MATCH (l:StoreLease) WHERE l.load_id IN $dead DELETE l", {"dead": dead})
    return bool(dead)


def has_orphans(database: Database) -> bool:
    """Tell whether there is something to clean, or a dead lease to bury. Takes no lock."""
    return bool(_dead_parts(database.rows(_LEASES))) or database.rows(_LEFT + "RETURN count(k) > 0") == [[True]]


def _lease(transaction: neo4j.Transaction, load_id: str, holder: Holder, lease_ms: int, writers: int = 1) -> None:
    rows(
        transaction,
        "UNWIND $parts AS part CREATE (:StoreLease {load_id: part[0], part_of: part[1], machine: $machine, process: $process, "
        "expires_at: timestamp() + $ms})",
        {
            "parts": [[lease_part(load_id, number), load_id if number else None] for number in range(writers)],
            "machine": holder.machine,
            "process": holder.process,
            "ms": lease_ms,
        },
    )


def claim_traces(
    transaction: neo4j.Transaction,
    load_id: str,
    holder: Holder,
    wanted: Sequence[str],
    *,
    replace: bool,
    floor: int,
    lease_ms: int,
    writers: int,
) -> Choice:
    """Choose what to load, give out numbers, note lease and claims. READY traces up to number `floor` count as absent (a rebuild)."""
    counter = lock_counter(transaction)
    held = rows(transaction, "MATCH (k:StoreClaim {load_id: $id}) RETURN k.trace_id, k.trace_no", {"id": load_id})
    buried = bury_dead(transaction)
    query = (
        "UNWIND $ids AS id OPTIONAL MATCH (t:StoreTrace {trace_id: id}) "
        "RETURN id, t.status, t.trace_no, EXISTS { MATCH (k:StoreClaim {trace_id: id, kind: 'load'}) "
        "MATCH (l:StoreLease {load_id: k.load_id}) WHERE l.load_id <> $load }"
    )
    chosen, skipped, busy = [], [], []
    was: dict[str, str | None] = {}
    for trace_id, status, number, taken in rows(transaction, query, {"ids": list(wanted), "load": load_id}):
        stale = status == "READY" and number <= floor
        if status is not None and not replace and not stale:
            skipped.append(trace_id)
        elif taken:
            busy.append(trace_id)
        else:
            chosen.append(trace_id)
            was[trace_id] = status
    if held:  # this very transaction was committed before and its answer was lost, with what it buried
        return Choice({trace_id: int(number) for trace_id, number in held}, tuple(skipped), tuple(busy), buried=True)
    numbers = {trace_id: counter + index + 1 for index, trace_id in enumerate(chosen)}
    if numbers:
        _lease(transaction, load_id, holder, lease_ms, writers)
        made = [[f"load:{number}", trace_id, number, was[trace_id]] for trace_id, number in numbers.items()]
        rows(
            transaction,
            "MATCH (c:StoreCounter {name: 'trace_no'}) SET c.value = c.value + size($rows) WITH c UNWIND $rows AS r "
            "CREATE (:StoreClaim {claim_id: r[0], kind: 'load', trace_id: r[1], trace_no: r[2], was: r[3], load_id: $load})",
            {"rows": made, "load": load_id},
        )
    return Choice(numbers, tuple(skipped), tuple(busy), buried)


def claim_output(transaction: neo4j.Transaction, load_id: str, holder: Holder, record: Record, output_uid: int, lease_ms: int) -> None:
    """Note that an Output's mechanism is on its way. Raises StoreLockedError while another load, or its cleaning, is at it."""
    lock_counter(transaction)
    bury_dead(transaction)
    others = rows(transaction, "MATCH (k:StoreClaim {output_uid: $uid}) RETURN k.load_id", {"uid": output_uid})
    if [load_id] in others:
        return
    if others:
        raise StoreLockedError("another process is attaching this output, or cleaning up after one that died; try again in a moment")
    _lease(transaction, load_id, holder, lease_ms)
    rows(
        transaction,
        "CREATE (:StoreClaim {claim_id: $id, kind: 'attach', trace_id: $trace, trace_no: $no, output_uid: $uid, load_id: $load})",
        {"id": f"attach:{output_uid}", "trace": record.trace_id, "no": record.trace_no, "uid": output_uid, "load": load_id},
    )


def hold_lease(transaction: neo4j.Transaction, load_id: str, lease_ms: int) -> bool:
    """Lock the lease until this transaction ends and prolong it; tell whether it was still there."""
    query = "MATCH (l:StoreLease {load_id: $id}) SET l.expires_at = timestamp() + $ms RETURN count(l)"
    return bool(rows(transaction, query, {"id": load_id, "ms": lease_ms})[0][0])


def require_lease(transaction: neo4j.Transaction, load_id: str, lease_ms: int) -> None:
    """Hold the lease. Raises StoreLockedError when it was buried: another process took over."""
    if not hold_lease(transaction, load_id, lease_ms):
        raise StoreLockedError(LOST_LEASE)


def _check_batches(transaction: neo4j.Transaction, load_id: str, expected: int) -> None:
    arrived = int(rows(transaction, "MATCH (b:StoreBatch {load_id: $id}) RETURN coalesce(sum(b.rows), 0)", {"id": load_id})[0][0])
    if arrived != expected:
        raise ShortCountError(f"{expected} rows were sent and {arrived} arrived; nothing of them is visible, load again")


_END_LEASE: Final = "MATCH (l:StoreLease) WHERE l.load_id = $id OR l.part_of = $id DELETE l"


def _end(transaction: neo4j.Transaction, load_id: str) -> None:
    """Delete claims, lease and the batches' markers; of very many markers the rest is left to the next cleaning."""
    rows(transaction, "MATCH (k:StoreClaim {load_id: $id}) DELETE k", {"id": load_id})
    rows(transaction, "MATCH (b:StoreBatch {load_id: $id}) WITH b LIMIT $most DELETE b", {"id": load_id, "most": _MARKERS_AT_ONCE})
    rows(transaction, _END_LEASE, {"id": load_id})


def write_records(transaction: neo4j.Transaction, entries: Sequence[Record]) -> None:
    """Note what is visible, or evicted, with its row counts."""
    made = [[e.trace_id, e.trace_no, e.status, e.row_counts_text] for e in entries]
    query = "UNWIND $rows AS r MERGE (t:StoreTrace {trace_id: r[0]}) SET t.trace_no = r[1], t.status = r[2], t.row_counts = r[3]"
    rows(transaction, query, {"rows": made})


def _retire(transaction: neo4j.Transaction, trace_ids: Sequence[str]) -> int:
    """Take visible generations out of sight and note that they must be deleted; give how many."""
    query = (
        "UNWIND $ids AS id MATCH (t:Trace {ready_id: id}) SET t.ready_id = null, t.status = 'RETIRED' "
        "CREATE (:StoreClaim {claim_id: 'retire:' + toString(t.trace_no), kind: 'retire', trace_id: id, trace_no: t.trace_no, "
        "load_id: ''}) RETURN count(t)"
    )
    return int(rows(transaction, query, {"ids": list(trace_ids)})[0][0])


def flip(transaction: neo4j.Transaction, load_id: str, new: Sequence[Record], expected: int, lease_ms: int) -> Flipped:
    """Make new traces visible and old generations invisible.

    A trace that was evicted while it loaded does not become visible. Raises ShortCountError, StoreLockedError.
    """
    query = (
        "UNWIND $ids AS id OPTIONAL MATCH (t:StoreTrace {trace_id: id}) OPTIONAL MATCH (k:StoreClaim {trace_id: id, load_id: $load}) "
        "RETURN id, t.status, t.trace_no, k.was"
    )
    if not hold_lease(transaction, load_id, lease_ms):
        now = {row[0]: row[1:3] for row in rows(transaction, query, {"ids": [e.trace_id for e in new], "load": load_id})}
        if all(now[e.trace_id] == ["READY", e.trace_no] for e in new):
            return Flipped(tuple(e.trace_id for e in new), True)  # committed before, and the answer was lost
        require_lease(transaction, load_id, lease_ms)
    _check_batches(transaction, load_id, expected)
    rows(transaction, "MATCH (t:StoreTrace) WHERE t.trace_id IN $ids SET t.touched = timestamp()", {"ids": [e.trace_id for e in new]})
    evicted = {
        row[0]
        for row in rows(transaction, query, {"ids": [e.trace_id for e in new], "load": load_id})
        if row[1] == "EVICTED" and row[3] != "EVICTED"
    }
    visible = [entry for entry in new if entry.trace_id not in evicted]
    retired = _retire(transaction, [entry.trace_id for entry in visible])
    flipped = rows(
        transaction,
        "UNWIND $rows AS r MATCH (t:Trace {uid: r[0]}) SET t.ready_id = t.trace_id, t.status = 'READY' RETURN count(t)",
        {"rows": [[entry.trace_no << UID_BITS] for entry in visible]},
    )
    if int(flipped[0][0]) != len(visible):
        raise ShortCountError(f"{len(visible)} traces were sent and {flipped[0][0]} arrived; nothing of them is visible, load again")
    write_records(transaction, visible)
    rows(
        transaction,
        "MATCH (k:StoreClaim {load_id: $load}) WHERE k.trace_id IN $ids SET k.kind = 'retire', k.load_id = ''",
        {"load": load_id, "ids": sorted(evicted)},
    )
    _end(transaction, load_id)
    return Flipped(tuple(entry.trace_id for entry in visible), bool(retired or evicted))


def flip_attached(transaction: neo4j.Transaction, load_id: str, entry: Record, output_uid: int, expected: int, lease_ms: int) -> None:
    """Make an Output's mechanism visible. Raises ShortCountError, StoreLockedError."""
    mark = "MATCH (o:Output {uid: $uid}) MATCH (t:StoreTrace {trace_id: $id, trace_no: $no, status: 'READY'}) "
    params: dict[str, Any] = {"uid": output_uid, "id": entry.trace_id, "no": entry.trace_no}
    if not hold_lease(transaction, load_id, lease_ms):
        if rows(transaction, mark + "WHERE o.mechanism RETURN 1", params):
            return  # committed before, and the answer was lost
        require_lease(transaction, load_id, lease_ms)
    _check_batches(transaction, load_id, expected)
    if not rows(transaction, mark + "SET o.mechanism = true, t.touched = timestamp() RETURN 1", params):
        raise StoreLockedError("the trace of this output was replaced or deleted meanwhile; attach again")
    write_records(transaction, [entry])
    _end(transaction, load_id)


def evict(transaction: neo4j.Transaction, trace_ids: Sequence[str]) -> int:
    """Take traces out of sight and record EVICTED; give how many were visible."""
    lock_counter(transaction)
    retired = _retire(transaction, trace_ids)
    query = (
        "UNWIND $ids AS id MERGE (t:StoreTrace {trace_id: id}) ON CREATE SET t.trace_no = 0 "
        "SET t.status = 'EVICTED', t.row_counts = '{}', t.touched = timestamp()"
    )
    rows(transaction, query, {"ids": list(trace_ids)})
    return retired


def abandon(transaction: neo4j.Transaction, load_id: str) -> None:
    """Give the lease back: what its claims name will be cleaned."""
    rows(transaction, _END_LEASE, {"id": load_id})


def orphans(transaction: neo4j.Transaction) -> list[Claim]:
    """Bury the dead, then list the claims that no lease stands behind."""
    lock_counter(transaction)
    bury_dead(transaction)
    query = _LEFT + "RETURN k.claim_id, k.kind, k.trace_id, k.trace_no, coalesce(k.output_uid, 0) ORDER BY k.trace_no"
    return [Claim(*row) for row in rows(transaction, query)]


def forget_older(transaction: neo4j.Transaction, floor: int) -> int:
    """Take every READY trace up to number `floor` out of sight, with its record; give how many."""
    lock_counter(transaction)
    query = "MATCH (t:StoreTrace {status: 'READY'}) WHERE t.trace_no <= $floor RETURN t.trace_id"
    old = [row[0] for row in rows(transaction, query, {"floor": floor})]
    retired = _retire(transaction, old)
    rows(transaction, "MATCH (t:StoreTrace) WHERE t.trace_id IN $ids DELETE t", {"ids": old})
    return retired
