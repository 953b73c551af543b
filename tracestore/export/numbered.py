"""An archive's rows as a store would hold them: traces numbered from 1, local numbers turned into uids, OF edges made.

Memory does not grow with the archive: a bundle of rows at a time, and what tells appended rows apart.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from tracestore import schema
from tracestore.store.base import LoadLevel, TraceBundle
from tracestore.store.staging import Staged, Stager, of_edges, stage

if TYPE_CHECKING:
    import pyarrow as pa

    from tracestore.archive import Archive, Package

_BUNDLE_ROWS: Final = 250_000
_ANNOTATION_ROWS: Final = 50_000


@dataclass(slots=True)
class NumberedArchive:
    """The rows of an archive at a level; `since` leaves out packages closed before it, ms since 1970; `only` all other traces.

    `tables` names the tables to read, if not those of the level. Traces have the same numbers whatever is read of them. Ask for
    `traces()` first: appended rows belong to traces that have a number by then.
    """

    archive: Archive
    level: LoadLevel
    since: int | None = None
    only: Collection[str] | None = None
    tables: Sequence[str] | None = None
    numbers: dict[str, int] = field(default_factory=dict)

    def packages(self) -> list[Package]:
        """List the packages of traces that are wanted."""
        return packages_since(self.archive, self.since)

    def traces(self) -> Iterator[tuple[tuple[str, ...], Staged]]:
        """Give the traces of every package, bundle by bundle: their ids and their rows."""
        for package in self.packages():
            for part in self.archive.bundles(package, level=self.level, trace_ids=self.only, tables=self.tables, max_rows=_BUNDLE_ROWS):
                first = len(self.numbers) + 1
                numbers = {ordinal: first + ordinal for ordinal in range(len(part.trace_ids))}
                self.numbers.update(zip(part.trace_ids, numbers.values(), strict=True))
                yield part.trace_ids, stage(TraceBundle(part.trace_ids, part.tables), numbers, self.level)

    def annotations(self) -> Iterator[tuple[tuple[str, ...], Staged]]:
        """Give the appended rows (further input lines, knockouts) of those traces, each row once."""
        seen: set[tuple[Any, ...]] = set()
        for package in self.archive.annotations():
            for part in self.archive.bundles(package, tables=self.tables, max_rows=_ANNOTATION_ROWS):
                numbers = {ordinal: self.numbers[name] for ordinal, name in enumerate(part.trace_ids) if name in self.numbers}
                stager = Stager(TraceBundle(part.trace_ids, part.tables), numbers)
                nodes, edges = {}, {}
                for node in schema.NODES:
                    if (table := stager.nodes(node.label)) is not None and (table := _fresh(table, ["uid"], node.label, seen)) is not None:
                        nodes[node.label] = table
                        if node.of is not None:
                            edges[schema.edge_table("OF", node.label, node.of)] = of_edges(node, table)
                for name in schema.EDGE_TABLES:
                    if (table := stager.edges(name)) is not None and (table := _fresh(table, None, name, seen)) is not None:
                        edges[name] = table
                yield part.trace_ids, Staged(nodes, edges)


def packages_since(archive: Archive, since: int | None) -> list[Package]:
    """List the packages of traces that were closed at `since` (ms since 1970) or later; None lists all."""
    return [package for package in archive.packages() if since is None or package.created_at >= since]


def made_ready(staged: Staged) -> Mapping[str, pa.Table]:
    """Give all tables, nodes first, with the Trace rows visible: an export is complete or not there at all."""
    tables = {**staged.nodes, **staged.edges}
    if "Trace" in tables:
        tables["Trace"] = _ready(tables["Trace"])
    return tables


def _ready(traces: pa.Table) -> pa.Table:
    import pyarrow as pa

    names = traces.column_names
    shown = traces.set_column(names.index("ready_id"), "ready_id", traces.column("trace_id"))
    return shown.set_column(names.index("status"), "status", pa.array(["READY"] * traces.num_rows))


def _fresh(table: pa.Table, keys: list[str] | None, name: str, seen: set[tuple[Any, ...]]) -> pa.Table | None:
    """Leave out rows that were appended before: nodes by their key, relationships by everything they hold (as a load does)."""
    import pyarrow as pa

    columns = [table.column(column).to_pylist() for column in keys or table.column_names]
    keep = []
    for key in zip(*columns, strict=True):
        keep.append((name, *key) not in seen)
        seen.add((name, *key))
    fresh = table.filter(pa.array(keep))
    return fresh.combine_chunks() if fresh.num_rows else None
