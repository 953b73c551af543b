"""The load of a bundle. Each arrow is a committed step; a crash between any two is cleaned by whoever comes next:

1. claim: a lease, fresh trace numbers, what of the bundle is ours (others may be READY, EVICTED or in another loader's hands)
2. N writers, each on traces of its own: nodes, then edges, batch by batch
3. flip: all batches there, READY, old generation RETIRED, claims, lease and markers gone, in one small transaction
4. delete the old generation
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final

from tracestore import schema
from tracestore.errors import IntegrityError
from tracestore.store.base import LoadLevel, LoadReport, Progress, TraceBundle
from tracestore.store.neo4j import ledger
from tracestore.store.neo4j.cleaning import clean_orphans
from tracestore.store.neo4j.database import Database
from tracestore.store.neo4j.holder import this_process
from tracestore.store.neo4j.writers import Load, LoadSettings, Pace
from tracestore.store.record import Record
from tracestore.store.staging import stage

if TYPE_CHECKING:
    import neo4j

GROUP_ROWS: Final = 100_000
"""Rows that a writer makes ready at a time, where its traces allow it: this bounds its memory."""

GROUPS_EACH: Final = 3
"""Groups for each of several writers at least, so that all end at about the same time."""


def share_out(bundle: TraceBundle, ordinals: Sequence[int], settings: LoadSettings) -> list[list[int]]:
    """Put whole traces into groups of about the same size, largest group first.

    At least one for each writer, as far as there are traces; more while each still fills a batch; none much above GROUP_ROWS.
    """
    import numpy as np

    size = np.zeros(len(bundle.trace_ids), dtype=np.int64)
    for table in bundle.tables.values():
        size += np.bincount(table.column("trace").to_numpy(), minlength=len(size))
    total = int(size[list(ordinals)].sum())
    wanted = min(GROUPS_EACH * settings.writers, total // settings.batch_rows) if settings.writers > 1 else 1
    count = max(settings.writers, wanted, -(-total // GROUP_ROWS))
    groups: list[list[int]] = [[] for _ in range(max(1, min(count, len(ordinals))))]
    sizes = [0] * len(groups)
    for ordinal in sorted(ordinals, key=lambda ordinal: (-int(size[ordinal]), ordinal)):
        least = sizes.index(min(sizes))
        groups[least].append(ordinal)
        sizes[least] += int(size[ordinal])
    return [groups[place] for place in sorted(range(len(groups)), key=lambda place: -sizes[place])]


def load_bundle(
    database: Database,
    bundle: TraceBundle,
    *,
    level: LoadLevel,
    replace: bool,
    floor: int,
    settings: LoadSettings,
    pace: Pace,
    progress: Progress | None,
) -> LoadReport:
    """Load whole traces; all that are ours become visible, or none. See `store.base.Store.load`."""
    started = time.perf_counter()
    if len(set(bundle.trace_ids)) != len(bundle.trace_ids):
        raise IntegrityError("a bundle holds one trace twice; load each package once")
    if ledger.has_orphans(database):
        clean_orphans(database)
    load = Load(database, settings, pace)

    def claim(transaction: neo4j.Transaction) -> ledger.Choice:
        return ledger.claim_traces(
            transaction,
            load.load_id,
            this_process(),
            bundle.trace_ids,
            replace=replace,
            floor=floor,
            lease_ms=settings.lease_ms,
            writers=settings.writers,
        )

    choice = database.write(claim, "a claim")
    if not choice.numbers:
        if choice.buried:
            clean_orphans(database)
        return LoadReport(skipped=choice.skipped, busy=choice.busy, seconds=time.perf_counter() - started)
    try:
        flipped, nodes, edges = _write_and_flip(load, bundle, choice.numbers, level, progress)
    except BaseException:
        load.abandon()
        raise
    if flipped.leftovers or choice.buried:
        clean_orphans(database)
    visible = set(flipped.visible)
    gone = tuple(trace_id for trace_id in choice.numbers if trace_id not in visible)  # evicted while they loaded
    return LoadReport(flipped.visible, (*choice.skipped, *gone), nodes, edges, time.perf_counter() - started, choice.busy)


def _write_and_flip(
    load: Load, bundle: TraceBundle, numbers: Mapping[str, int], level: LoadLevel, progress: Progress | None
) -> tuple[ledger.Flipped, int, int]:
    ordinals = {ordinal: numbers[name] for ordinal, name in enumerate(bundle.trace_ids) if name in numbers}
    groups = share_out(bundle, list(ordinals), load.settings)
    counts = load.write_all([partial(stage, bundle, {each: ordinals[each] for each in group}, level) for group in groups], progress)
    records = [Record(bundle.trace_ids[ordinal], number, "READY", counts[number]) for ordinal, number in ordinals.items()]
    totals = [(table, count) for tables in counts.values() for table, count in tables.items()]
    edges = sum(count for table, count in totals if table in schema.EDGE_TABLES)
    rows = sum(count for _, count in totals)

    def flip(transaction: neo4j.Transaction) -> ledger.Flipped:
        return ledger.flip(transaction, load.load_id, records, rows, load.settings.lease_ms)

    return load.database.write(flip, "the last step of a load"), rows - edges, edges
