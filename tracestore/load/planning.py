"""What a load will do, known from manifests before the first row is read.

1. Wanted: what the archive holds (each trace once, forgotten ones left out), less what the store has as READY or EVICTED.
2. Level: as asked; else mechanism while the store would hold at most 1 000 outputs, summary above.
3. Batches: whole traces, over package borders, so that a transaction holds ten traces or more and its rows stay bounded.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from tracestore import schema
from tracestore.errors import ArchiveError
from tracestore.store.base import BundleSize, Limits, LoadLevel, Store

if TYPE_CHECKING:
    from tracestore.archive import Archive, Package

MECHANISM_OUTPUTS: Final = 1_000
"""Up to this many outputs in a store, a load brings the mechanism level unless told otherwise."""

MIN_TRACES: Final = 10
"""Fewer traces a transaction are several times slower."""

MAX_TRACES: Final = 512
BATCH_ROWS: Final = 5_000_000
"""Nodes and relationships at which a batch of MIN_TRACES or more is closed. Every checkpoint rewrites the groups of nodes that are not
full yet, so larger batches are cheaper (half the processor time of batches a quarter as large); this one takes about 0.8 GB."""

MAX_ROWS: Final = 6_000_000
"""The same for a batch of fewer traces."""


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


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A trace to load: how many relationships (OF included) and rows it will have in the store."""

    package_id: str
    trace_id: str
    edges: int
    rows: int


def _sizes(counts: Mapping[str, int], level: LoadLevel) -> tuple[int, int]:
    """Count the relationships and the rows that a trace will have in a store, from its rows by table."""
    nodes = sum(counts.get(node.label, 0) for node in schema.NODES if level in ("mechanism", node.level))
    owned = sum(counts.get(node.label, 0) for node in schema.NODES if node.of is not None)
    archived = (name for name, (edge, _, _) in schema.EDGE_TABLES.items() if edge.archived and level in ("mechanism", edge.level))
    edges = owned + sum(counts.get(name, 0) for name in archived)
    return edges, edges + nodes


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


def _batch(group: list[_Wanted]) -> Batch:
    by_package: dict[str, list[str]] = {}
    for trace in group:
        by_package.setdefault(trace.package_id, []).append(trace.trace_id)
    parts = tuple(Part(package_id, tuple(ids)) for package_id, ids in by_package.items())
    return Batch(parts, len(group), sum(trace.edges for trace in group))


def _batches(wanted: Sequence[_Wanted], size: BundleSize) -> list[Batch]:
    """Group traces in order."""
    batches: list[Batch] = []
    group: list[_Wanted] = []
    rows = 0
    for trace in wanted:
        limit = size.rows if len(group) >= size.min_traces else size.max_rows
        if group and (rows + trace.rows > limit or len(group) >= size.max_traces):
            batches.append(_batch(group))
            group, rows = [], 0
        group.append(trace)
        rows += trace.rows
    if group:
        batches.append(_batch(group))
    return batches


def plan_load(archive: Archive, store: Store, *, level: LoadLevel | None = None, only: Collection[str] | None = None) -> LoadPlan:
    """Plan a load; `only` names the traces that are wanted (None: all).

    The plan's `message` names a package that does not count (of an older schema, without a manifest). Raises ArchiveError for an archive
    that cannot be read, and where no package of it counts.
    """
    return _plan(archive, store.ready() | store.evicted(), lambda: outputs_in(store), level, only, store.capabilities.bundle)


def plan_empty(archive: Archive, *, level: LoadLevel | None = None) -> LoadPlan:
    """Plan a load of everything into a store that holds nothing. Raises ArchiveError for an archive that cannot be read."""
    return _plan(archive, frozenset(), lambda: 0, level, None, None)


def plan_packages(packages: Sequence[Package], store: Store, *, level: LoadLevel | None, outputs_there: int) -> LoadPlan:
    """Plan to load packages that were just written, from their manifests alone; the store holds `outputs_there` outputs.

    What the store has already, or the archive has forgotten, is found out while loading.
    """
    return _of(_first_of_each(packages), level, lambda: outputs_there, (), store.capabilities.bundle)


def _plan(
    archive: Archive,
    there: frozenset[str],
    outputs_there: Callable[[], int],
    level: LoadLevel | None,
    only: Collection[str] | None,
    bundle: BundleSize | None,
) -> LoadPlan:
    servable = frozenset(archive.trace_ids())
    chosen = servable if only is None else servable & frozenset(only)
    wanted = {name: found for name, found in _first_of_each(archive.packages()).items() if name in chosen and name not in there}
    unread = archive.problems()
    if unread and not servable:
        raise ArchiveError(unread[0])
    plan = _of(wanted, level, outputs_there, tuple(sorted(chosen & there)), bundle)
    return replace(plan, message=" ".join(filter(None, (plan.message, _unread_message(unread)))))


def _unread_message(problems: Sequence[str]) -> str:
    return f"Packages that were not read: {len(problems)}. {problems[0]}" if problems else ""


def _first_of_each(packages: Sequence[Package]) -> dict[str, tuple[str, Mapping[str, int]]]:
    """Find for each trace the first package that holds it, and its rows by table."""
    found: dict[str, tuple[str, Mapping[str, int]]] = {}
    for package in packages:
        if package.kind == "traces":
            for entry in package.traces:
                found.setdefault(entry.trace_id, (package.package_id, entry.rows))
    return found


def _of(
    wanted: Mapping[str, tuple[str, Mapping[str, int]]],
    level: LoadLevel | None,
    outputs_there: Callable[[], int],
    skipped: tuple[str, ...],
    bundle: BundleSize | None,
) -> LoadPlan:
    coming = sum(rows.get("Output", 0) for _, rows in wanted.values())
    taken, message = _level(level, outputs_there() if level is None and wanted else 0, coming)
    sized = [_Wanted(package_id, trace_id, *_sizes(rows, taken)) for trace_id, (package_id, rows) in wanted.items()]
    size = bundle or BundleSize(BATCH_ROWS, MIN_TRACES, MAX_ROWS, MAX_TRACES)
    return LoadPlan(taken, tuple(_batches(sized, size)), skipped, len(sized), sum(trace.edges for trace in sized), message)
