"""The archive: every trace that was ever computed, in packages that are written once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tracestore import schema
from tracestore.archive.catalogue import Catalogue, Contents
from tracestore.archive.layout import Layout
from tracestore.archive.manifest import Package
from tracestore.archive.reader import BATCH_ROWS, PackageGoneError, PackageTables, Reader, split_traces
from tracestore.archive.writer import MAX_BYTES, MAX_SECONDS, MAX_TRACES, ArchiveWriter
from tracestore.errors import ArchiveError, BadInputError
from tracestore.model import Trace

if TYPE_CHECKING:
    import pyarrow as pa

    from tracestore.archive.maintenance import CompactReport
    from tracestore.archive.verify import VerifyReport


class Archive:
    """A folder of packages. Reading takes no lock; several processes may write at once.

    Raises ArchiveError when the folder cannot be used, and with `create=False` when it is not an archive.
    """

    def __init__(self, path: str | Path, *, create: bool = True) -> None:
        self.path = Path(path).expanduser()
        self._layout = Layout(self.path)
        if create:
            self._layout.create()
        elif not self._layout.packages.is_dir():
            raise ArchiveError(f"{self.path} is not an archive: it has no folder named packages. Check the path, or trace into it first.")
        self._catalogue = Catalogue(self._layout)
        self._reader = Reader()

    def __repr__(self) -> str:
        return f"Archive({str(self.path)!r})"

    # --- what it holds -----------------------------------------------------------------------------------------------------------------

    def packages(self) -> tuple[Package, ...]:
        """List the packages of traces, in order of creation. Raises ArchiveError when one was written by a newer version."""
        return self._readable().packages

    def annotations(self) -> tuple[Package, ...]:
        """List the packages of annotations, in order of creation."""
        return self._readable().annotations

    def trace_ids(self) -> tuple[str, ...]:
        """List every trace once, in order of creation, without the forgotten ones."""
        return tuple(self._readable().winners)

    def forgotten(self) -> frozenset[str]:
        """Give the ids of the traces that were forgotten."""
        return self._catalogue.look().forgotten

    def missing(self, trace_ids: Iterable[str]) -> list[str]:
        """Give those ids, in order and once, that are neither in a package nor forgotten: what is still to be traced."""
        contents = self._readable()
        return [one for one in dict.fromkeys(trace_ids) if one not in contents.winners and one not in contents.forgotten]

    def problems(self) -> tuple[str, ...]:
        """Say, a sentence each, which folders are not valid packages. `verify` looks deeper."""
        return self._catalogue.look().problems

    def __contains__(self, trace_id: object) -> bool:
        return trace_id in self._catalogue.look().winners

    def __len__(self) -> int:
        return len(self._readable().winners)

    def _readable(self) -> Contents:
        contents = self._catalogue.look()
        contents.require_readable()
        return contents

    # --- writing -----------------------------------------------------------------------------------------------------------------------

    def writer(self, *, max_traces: int = MAX_TRACES, max_bytes: int = MAX_BYTES, max_seconds: float = MAX_SECONDS) -> ArchiveWriter:
        """Open a writer, to be used as a context manager."""
        self._layout.create()
        return ArchiveWriter(self._layout, max_traces=max_traces, max_bytes=max_bytes, max_seconds=max_seconds)

    def write(self, traces: Iterable[Trace]) -> list[str]:
        """Write traces that the archive does not hold and has not forgotten; give the ids of those written."""
        written = []
        with self.writer() as writer:
            for trace in traces:
                if self.missing([trace.trace_id]) and writer.add(trace):
                    written.append(trace.trace_id)
        return written

    def append_items(self, items: Iterable[tuple[str, Mapping[str, Any]]]) -> None:
        """Append Item rows (trace id, properties without `local`) for further input lines that ask for archived traces."""
        with self.writer() as writer:
            for trace_id, item in items:
                writer.add_items(trace_id, [item])

    # --- reading -----------------------------------------------------------------------------------------------------------------------

    def read_trace(self, trace_id: str) -> Trace:
        """Read one trace with its annotations. Raises BadInputError for an unknown id, ArchiveError for a damaged package."""
        for attempt in (0, 1):
            contents = self._catalogue.look()
            if trace_id not in contents.winners:
                raise BadInputError(self._unknown(trace_id, contents))
            package, ordinal = contents.winners[trace_id]
            try:
                return Trace(trace_id, self._merged(contents, trace_id, self._reader.read_trace(package, ordinal)))
            except PackageGoneError:
                if attempt:
                    raise
                self._catalogue.forget_cache()
        raise AssertionError("unreachable")

    def _unknown(self, trace_id: str, contents: Contents) -> str:
        if trace_id in contents.forgotten:
            return f"Trace {trace_id} was forgotten."
        hint = f" Some packages cannot be read: {contents.problems[0]}" if contents.problems else ""
        return f"The archive {self.path} has no trace {trace_id}: see `archive list`.{hint}"

    def read_traces(self, trace_ids: Iterable[str] | None = None) -> Iterator[Trace]:
        """Read traces one after the other: those named, or all in order of creation, which is much faster than one by one."""
        if trace_ids is not None:
            yield from map(self.read_trace, trace_ids)
            return
        for package in self.packages():
            contents = self._catalogue.look()
            for bundle in self.bundles(package):
                for trace_id, tables in split_traces(bundle, package):
                    yield Trace(trace_id, self._merged(contents, trace_id, tables))

    def bundles(
        self,
        package: Package | str,
        *,
        level: schema.Level = "mechanism",
        trace_ids: Iterable[str] | None = None,
        tables: Sequence[str] | None = None,
        max_rows: int = BATCH_ROWS,
    ) -> Iterator[PackageTables]:
        """Read the traces of one package in groups of at most `max_rows` rows, never more than that in memory.

        `level="summary"` leaves out State, Head, Mlp and their edges; `tables` names the tables to read instead. Forgotten traces and those
        that an earlier package holds too are left out. Annotation packages are read in the same shape, without forgotten traces.
        """
        contents = self._catalogue.look()
        package_id = package if isinstance(package, str) else package.package_id
        found = next((one for one in (*contents.packages, *contents.annotations) if one.package_id == package_id), None)
        if found is None:
            raise PackageGoneError(f"The archive {self.path} has no package {package_id} (any more): list the packages again.")
        wanted = None if trace_ids is None else frozenset(trace_ids)
        ordinals = [
            ordinal
            for ordinal, entry in enumerate(found.traces)
            if (wanted is None or entry.trace_id in wanted) and contents.serves(found, ordinal)
        ]
        names = (
            tables
            if tables is not None
            else [t for t in schema.ARCHIVE_TABLES if level == "mechanism" or schema.table_level(t) == "summary"]
        )
        for bundle in self._reader.bundles(found, ordinals, names, max_rows):
            yield bundle if found.kind == "traces" else self._without_known_items(contents, bundle)

    def _without_known_items(self, contents: Contents, bundle: PackageTables) -> PackageTables:
        """Leave out appended Items that the trace itself has."""
        if "Item" not in bundle.tables:
            return bundle
        known = set()
        for place, trace_id in enumerate(bundle.trace_ids):
            package, ordinal = contents.winners[trace_id]
            if "Item" in package.traces[ordinal].rows:
                rows = self._reader.read_table(package, "Item", [ordinal], ["item_id"])
                known |= {(place, item_id) for item_id in rows["item_id"].to_pylist()}
        items = bundle.tables["Item"]
        pairs = zip(items["trace"].to_pylist(), items["item_id"].to_pylist(), strict=True)
        fresh = items.take([row for row, pair in enumerate(pairs) if pair not in known])
        return replace(bundle, tables={**bundle.tables, "Item": fresh})

    def item_keys(self) -> frozenset[tuple[str, str]]:
        """Give (trace id, item id) of every input line that the archive knows: a resumed run skips them."""
        contents = self._readable()
        keys: set[tuple[str, str]] = set()
        for package in (*contents.packages, *contents.annotations):
            if package.file("Item") is None:
                continue
            rows = self._reader.read_table(package, "Item", columns=["item_id"])
            for owner, item_id in zip(*(column.to_pylist() for column in rows.columns), strict=True):
                trace_id = owner if package.kind == "annotations" else package.traces[owner].trace_id
                if trace_id in contents.winners:
                    keys.add((trace_id, item_id))
        return frozenset(keys)

    def _merged(self, contents: Contents, trace_id: str, tables: dict[str, pa.Table]) -> dict[str, pa.Table]:
        import pyarrow as pa

        for package, ordinal in contents.annotated.get(trace_id, ()):
            for name, rows in self._reader.read_trace(package, ordinal).items():
                known = tables.get(name)
                fresh = _without_known(rows, known) if known is not None else rows
                tables[name] = fresh if known is None else pa.concat_tables([known, fresh]).combine_chunks()
        return tables

    # --- care --------------------------------------------------------------------------------------------------------------------------

    def verify(self, *, deep: bool = True) -> VerifyReport:
        """Check every package; with `deep` every trace's content hash as well. Never raises for damage: it reports it."""
        from tracestore.archive.verify import verify

        return verify(self._layout, deep=deep)

    def forget(self, trace_ids: Iterable[str]) -> int:
        """Forget traces for good; give how many were known and not forgotten yet. Their bytes go with `compact`.

        Raises BadInputError, and forgets nothing, when an id is unknown.
        """
        from tracestore.archive.maintenance import forget

        return forget(self._layout, self._catalogue, trace_ids)

    def compact(self) -> CompactReport:
        """Rewrite packages that hold forgotten or doubled traces, merge small ones, delete what killed processes left."""
        from tracestore.archive.maintenance import compact

        return compact(self._layout)

    def redaction_key(self, key_file: str | Path | None = None) -> bytes:
        """Read the key of `--no-text`, from a file of the caller's or from the archive; it is made at the first use."""
        from tracestore.archive.redact import load_key

        return load_key(self._layout.key_file if key_file is None else Path(key_file))


def _without_known(rows: pa.Table, known: pa.Table) -> pa.Table:
    """Leave out nodes whose number, or Items whose id, is there already (an appended line that was appended twice)."""
    import pyarrow.compute as pc

    column = "item_id" if "item_id" in rows.column_names else "local"
    if column not in rows.column_names:
        return rows
    return rows.filter(pc.invert(pc.is_in(rows[column], value_set=known[column].combine_chunks())))
