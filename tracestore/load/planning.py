"""What a load will do, known from manifests before the first row is read.

1. Wanted: what the archive holds (each trace once, forgotten ones left out), less what the store has as READY or EVICTED.
2. Level: as asked; else mechanism while the store would hold at most 1 000 outputs, summary above.
3. Batches: whole traces, over package borders, so that a transaction holds ten traces or more and its rows stay bounded.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tracestore import schema
from tracestore.store.base import Limits, LoadLevel, Store

if TYPE_CHECKING:
    from tracestore.archive import Archive, Package

MECHANISM_OUTPUTS: Final = 1_000
"""Up to this many outputs in a store, a load brings the mechanism level unless told otherwise."""

MIN_TRACES: Final = 10
"""Fewer traces a transaction are several times slower."""

MAX_TRACES: Final = 512
BATCH_EDGES: Final = 1_500_000
"""A batch of MIN_TRACES or more is closed here."""

MAX_EDGES: Final = 4_000_000
"""A batch of fewer is closed here: about 0.5 GB in memory."""


@dataclass(frozen=True, slots=True)
class Part:
    """Traces of one package."""

    package_id: str
    trace_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Batch:
    """What one transaction brings."""

    parts: tuple[Part, ...]
    traces: int
    edges: int


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """What a load will do: `edges` with OF; `skipped` are in the store already or were deleted from it on purpose."""

    level: LoadLevel
    batches: tuple[Batch, ...]
    skipped: tuple[str, ...]
    traces: int
    edges: int
    message: str = ""


def edge_rows(counts: Mapping[str, int], level: LoadLevel) -> int:
    """Count the relationships that a trace will have in a store, from its rows by table."""
    wanted = [name for name, (edge, _, _) in schema.EDGE_TABLES.items() if edge.archived and level in ("mechanism", edge.level)]
    owned = [node.label for node in schema.NODES if node.of is not None]
    return sum(counts.get(name, 0) for name in (*wanted, *owned))


def outputs_in(store: Store) -> int:
    """Count the outputs that a store holds."""
    found = store.run("MATCH (o:Output) RETURN count(*) AS found", {}, Limits(timeout_s=600.0, max_rows=None)).table
    return int(found.column("found")[0].as_py())


def _level(asked: LoadLevel | None, there: int, coming: int) -> tuple[LoadLevel, str]:
    if asked is not None:
        return asked, ""
    if there + coming <= MECHANISM_OUTPUTS:
        return "mechanism", ""
    return "summary", (
        f"summary level, for the store will hold {there + coming:,} outputs (above {MECHANISM_OUTPUTS:,}); ask for --level mechanism, "
        "or add single outputs later with: tracestore store attach OUTPUT_ID"
    )


def _batches(wanted: list[tuple[str, str, int]]) -> list[Batch]:
    """Group (package, trace, edges) in order."""
    batches: list[Batch] = []
    group: list[tuple[str, str, int]] = []

    def close() -> None:
        if group:
            by_package: dict[str, list[str]] = {}
            for package_id, trace_id, _ in group:
                by_package.setdefault(package_id, []).append(trace_id)
            parts = tuple(Part(package_id, tuple(ids)) for package_id, ids in by_package.items())
            batches.append(Batch(parts, len(group), sum(edges for _, _, edges in group)))
            group.clear()

    for entry in wanted:
        edges = sum(other[2] for other in group)
        full = len(group) >= MIN_TRACES and edges + entry[2] > BATCH_EDGES
        if full or len(group) >= MAX_TRACES or edges + entry[2] > MAX_EDGES:
            close()
        group.append(entry)
    close()
    return batches


def plan_load(archive: Archive, store: Store, *, level: LoadLevel | None = None, only: Collection[str] | None = None) -> LoadPlan:
    """Plan a load; `only` names the traces that are wanted (None: all). Raises ArchiveError for an archive that cannot be read."""
    there = store.ready() | store.evicted()
    servable = frozenset(archive.trace_ids())
    chosen = servable if only is None else servable & frozenset(only)
    packages: tuple[Package, ...] = archive.packages()
    wanted: dict[str, tuple[str, dict[str, int]]] = {}
    for package in packages:
        for entry in package.traces:
            if entry.trace_id in chosen and entry.trace_id not in there and entry.trace_id not in wanted:
                wanted[entry.trace_id] = (package.package_id, dict(entry.rows))
    coming = sum(rows.get("Output", 0) for _, rows in wanted.values())
    taken, message = _level(level, outputs_in(store) if level is None and wanted else 0, coming)
    sized = [(package_id, trace_id, edge_rows(rows, taken)) for trace_id, (package_id, rows) in wanted.items()]
    batches = _batches(sized)
    skipped = tuple(sorted(chosen & there))
    return LoadPlan(taken, tuple(batches), skipped, len(sized), sum(edges for _, _, edges in sized), message)
