"""Deletion by uid range in bounded transactions: what is not visible (yet, or any longer). Each step can be repeated."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

from tracestore import schema
from tracestore.errors import ResourceError
from tracestore.store.neo4j import ledger
from tracestore.store.neo4j.database import Database, rows
from tracestore.store.staging import uid_range

if TYPE_CHECKING:
    import neo4j

_BATCH: Final = 20_000
_SMALLEST_BATCH: Final = 100
_MECHANISM: Final = tuple(node.label for node in schema.NODES if node.level == "mechanism")
_LABELS: Final = tuple(node.label for node in reversed(schema.NODES))


def _repeat(database: Database, statement: str, params: dict[str, Any]) -> int:
    """Run a deleting statement with a bound until it finds nothing more; give how much was deleted.

    The bound is halved when the server lacks memory for it. Raises ResourceError when even the smallest does not fit.
    """
    bound = _BATCH

    def work(transaction: neo4j.Transaction) -> int:
        return int(rows(transaction, statement, {**params, "bound": bound})[0][0])

    total = 0
    while True:
        try:
            deleted = database.write(work, "a deletion")
        except ResourceError:
            if bound <= _SMALLEST_BATCH:
                raise
            bound //= 2
            continue
        if deleted == 0:
            return total
        total += deleted


def _delete(database: Database, label: str, condition: str, params: dict[str, Any], patterns: tuple[str, ...]) -> None:
    """Delete nodes and what touches them; relationships first, so that no transaction grows with a node's degree."""
    find = f"MATCH (n:{label}) WHERE {condition}"
    for pattern in patterns:
        _repeat(database, f"{find} MATCH {pattern} WITH r LIMIT $bound DELETE r RETURN count(*)", params)
    _repeat(database, f"{find} WITH n LIMIT $bound DETACH DELETE n RETURN count(*)", params)


def delete_traces(database: Database, first_no: int, last_no: int) -> None:
    """Delete every node and relationship of a range of trace numbers. The Trace nodes go last."""
    low, high = uid_range(first_no, last_no)
    params = {"low": low, "high": high}
    for label in _LABELS:
        _delete(database, label, "n.uid >= $low AND n.uid < $high", params, ("(n)-[r]->()",))  # each has its source in the range too


def delete_mechanism(database: Database, output_uid: int) -> None:
    """Delete the State, Head and Mlp nodes of one Output."""
    for label in _MECHANISM:
        _delete(database, label, "n.output_uid = $output", {"output": output_uid}, ("(n)-[r]->()", "(n)<-[r]-()"))


def number_runs(numbers: Iterable[int]) -> list[tuple[int, int]]:
    """Join neighbouring numbers: (first, last) of each run."""
    runs: list[tuple[int, int]] = []
    for number in sorted(set(numbers)):
        if runs and number == runs[-1][1] + 1:
            runs[-1] = (runs[-1][0], number)
        else:
            runs.append((number, number))
    return runs


def delete_batches(database: Database) -> None:
    """Delete the markers of loads that are over."""
    _repeat(
        database,
        "MATCH (b:StoreBatch) WHERE NOT EXISTS { MATCH (l:StoreLease {load_id: b.load_id}) } WITH b LIMIT $bound DELETE b RETURN count(*)",
        {},
    )


def clean_orphans(database: Database) -> int:
    """Delete what dead loads, replaced generations and evictions left; give how many pieces of work there were."""
    left = database.write(ledger.orphans, "a look for what dead loads left")
    for first, last in number_runs(claim.trace_no for claim in left if claim.kind != "attach"):
        delete_traces(database, first, last)
    for claim in left:
        if claim.kind == "attach":
            delete_mechanism(database, claim.output_uid)
    _forget(database, left)
    delete_batches(database)
    return len(left)


def _forget(database: Database, claims: Sequence[ledger.Claim]) -> None:
    def work(transaction: neo4j.Transaction) -> None:
        rows(transaction, "MATCH (k:StoreClaim) WHERE k.claim_id IN $ids DELETE k", {"ids": [claim.claim_id for claim in claims]})

    if claims:
        database.write(work, "the end of a deletion")
