"""Read tables out of packages, checked: a file's hash is compared once in a process, before its first row is used.

Only the row groups that hold the wanted traces are decoded.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tracestore import schema
from tracestore.archive.hashing import file_hash
from tracestore.archive.manifest import FileEntry, Package, PackageKind
from tracestore.errors import ArchiveError

if TYPE_CHECKING:
    import pyarrow as pa

BATCH_ROWS: Final = 1_000_000


class PackageGoneError(ArchiveError):
    """A package was compacted away while it was being read: list the packages again."""

    retryable = True


@dataclass(frozen=True, slots=True)
class PackageTables:
    """Whole traces of one package: tables with `schema.package_schema`, and the trace id of each ordinal in the `trace` column."""

    package_id: str
    kind: PackageKind
    trace_ids: tuple[str, ...]
    tables: Mapping[str, pa.Table]

    @property
    def rows(self) -> int:
        """Rows of all tables."""
        return sum(table.num_rows for table in self.tables.values())


class Reader:
    """Reads packages and remembers which files were found sound."""

    def __init__(self) -> None:
        self._sound: set[tuple[Path, int, int]] = set()

    def forget_cache(self) -> None:
        """Compare every hash again."""
        self._sound.clear()

    def check_file(self, package: Package, entry: FileEntry) -> Path:
        """Raise ArchiveError naming the package unless a file has the size and hash that the manifest says."""
        path = package.path / entry.name
        try:
            stat = path.stat()
            key = (path, stat.st_size, stat.st_mtime_ns)
            if key in self._sound:
                return path
            sound = stat.st_size == entry.bytes and file_hash(path) == entry.sha256
        except FileNotFoundError:
            if not package.path.exists():
                raise PackageGoneError(
                    f"Package {package.package_id} was compacted away while it was read: list the packages again."
                ) from None
            raise ArchiveError(f"Package {package.package_id} is damaged: its file {entry.name} is missing. {REPAIR}") from None
        except OSError as error:
            raise ArchiveError(
                f"Package {package.package_id} cannot be read: {entry.name}: {error.strerror}. Check disk and permissions."
            ) from error
        if not sound:
            raise ArchiveError(f"Package {package.package_id} is damaged: its file {entry.name} is not what was written. {REPAIR}")
        self._sound.add(key)
        return path

    def read_table(
        self, package: Package, table: str, ordinals: Sequence[int] | None = None, columns: Sequence[str] | None = None
    ) -> pa.Table:
        """Read the rows of some traces (None: all), with the package's own first column and ordinals."""
        import pyarrow as pa
        import pyarrow.compute as pc
        import pyarrow.parquet as pq

        entry = package.file(table)
        if entry is None:
            raise KeyError(table)
        path = self.check_file(package, entry)
        owner = "trace" if package.kind == "traces" else "trace_id"
        wanted: set[Any] | None = None
        if ordinals is not None:
            wanted = set(ordinals) if owner == "trace" else {package.traces[ordinal].trace_id for ordinal in ordinals}
        try:
            with pq.ParquetFile(path) as file:
                groups = _groups(file.metadata, wanted)
                names = None if columns is None else [owner, *columns]
                found = file.read_row_groups(groups, columns=names, use_threads=False)
        except (OSError, pa.ArrowException) as error:
            raise ArchiveError(f"Package {package.package_id} is damaged: {entry.name} cannot be decoded. {REPAIR}") from error
        if wanted is not None:
            value_set = pa.array(sorted(wanted), type=found.schema.field(owner).type)
            found = found.filter(pc.is_in(found[owner], value_set=value_set))
        return found

    def read_trace(self, package: Package, ordinal: int) -> dict[str, pa.Table]:
        """Read the tables of one trace, each with `schema.arrow_schema`."""
        entry = package.traces[ordinal]
        tables = {}
        for name, count in entry.rows.items():
            found = self.read_table(package, name, [ordinal])
            if found.num_rows != count:
                raise ArchiveError(
                    f"Package {package.package_id} is damaged: {name} has {found.num_rows} rows of a trace, not {count}. {REPAIR}"
                )
            tables[name] = found.drop_columns([found.column_names[0]]).combine_chunks().cast(schema.arrow_schema(name))
        return tables

    def bundles(
        self, package: Package, ordinals: Sequence[int], tables: Sequence[str], max_rows: int = BATCH_ROWS
    ) -> Iterator[PackageTables]:
        """Read traces of one package in groups of at most `max_rows` rows (but at least one trace)."""
        for group in _row_groups_of(package, ordinals, tables, max_rows):
            found = {}
            for name in tables:
                count = sum(package.traces[ordinal].rows.get(name, 0) for ordinal in group)
                if count:
                    table = _renumber(self.read_table(package, name, group), package, group, name)
                    if table.num_rows != count:
                        raise ArchiveError(
                            f"Package {package.package_id} is damaged: {name} has {table.num_rows} rows, not {count}. {REPAIR}"
                        )
                    found[name] = table
            yield PackageTables(package.package_id, package.kind, tuple(package.traces[ordinal].trace_id for ordinal in group), found)


def split_traces(bundle: PackageTables, package: Package) -> Iterator[tuple[str, dict[str, pa.Table]]]:
    """Cut a bundle into its traces, without copying: rows of a trace lie together, in the order of the ordinals.

    Raises ArchiveError where they do not.
    """
    import pyarrow.compute as pc

    counts = {entry.trace_id: entry.rows for entry in package.traces}
    start = dict.fromkeys(bundle.tables, 0)
    for place, trace_id in enumerate(bundle.trace_ids):
        tables = {}
        for name, table in bundle.tables.items():
            count = counts[trace_id].get(name, 0)
            if not count:
                continue
            rows = table.slice(start[name], count)
            start[name] += count
            if not pc.unique(rows["trace"]).to_pylist() == [place]:
                raise ArchiveError(f"Package {package.package_id} is damaged: {name} does not hold its traces in order. {REPAIR}")
            tables[name] = rows.drop_columns(["trace"])
        yield trace_id, tables


REPAIR: Final = "Restore the package from a copy, or delete its folder and trace again what it held; other packages are not affected."


def _groups(metadata: Any, wanted: set[Any] | None) -> list[int]:
    """List the row groups that may hold wanted traces, by the statistics of the first column."""
    if wanted is None:
        return list(range(metadata.num_row_groups))
    low, high = min(wanted, default=None), max(wanted, default=None)
    if low is None or high is None:
        return []
    chosen = []
    for group in range(metadata.num_row_groups):
        statistics = metadata.row_group(group).column(0).statistics
        if statistics is None or not statistics.has_min_max or (statistics.max >= low and statistics.min <= high):
            chosen.append(group)
    return chosen


def _row_groups_of(package: Package, ordinals: Iterable[int], tables: Sequence[str], max_rows: int) -> Iterator[list[int]]:
    group: list[int] = []
    rows = 0
    names = set(tables)
    for ordinal in ordinals:
        size = sum(count for name, count in package.traces[ordinal].rows.items() if name in names)
        if group and rows + size > max_rows:
            yield group
            group, rows = [], 0
        group.append(ordinal)
        rows += size
    if group:
        yield group


def _renumber(table: pa.Table, package: Package, group: list[int], name: str) -> pa.Table:
    """Replace the first column by the place of its trace in the group."""
    import pyarrow as pa
    import pyarrow.compute as pc

    owner = table.schema.field(0)
    owners: list[Any] = list(group) if package.kind == "traces" else [package.traces[ordinal].trace_id for ordinal in group]
    places = pc.index_in(table.column(0), value_set=pa.array(owners, type=owner.type)).cast(pa.int64())
    columns: list[Any] = [places, *table.columns[1:]]
    return pa.Table.from_arrays(columns, schema=schema.package_schema(name)).combine_chunks()
