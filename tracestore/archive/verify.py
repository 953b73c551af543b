"""Compare an archive with what its manifests say.

1. Every folder in `packages/` is a valid package, or a problem; what killed processes left is a note.
2. Every file of a package is there, with its size and hash; none is there that the manifest does not name.
3. Every table has the schema's columns and the rows that the manifest counts.
4. Deep: every trace's own rows have the hash that was recorded, its Trace row bears its id, and every edge joins nodes that exist; so do
   the edges of annotations (knockouts), whose nodes are the trace's or appended ones.
5. A trace in two packages is a note (the first wins); so is an annotation of a trace that no package holds.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tracestore import schema
from tracestore.archive.catalogue import Catalogue, Contents
from tracestore.archive.hashing import trace_hash
from tracestore.archive.layout import MANIFEST, TEMPORARY, Layout, is_abandoned
from tracestore.archive.manifest import FileEntry, Package
from tracestore.archive.package import annotation_schema
from tracestore.archive.reader import REPAIR, PackageGoneError, Reader, split_traces
from tracestore.errors import ArchiveError

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What was found, a sentence each: `problems` (damage) and `notes` (untidy, nothing is wrong); and what was looked at."""

    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    packages: int = 0
    traces: int = 0
    bytes: int = 0
    deep: bool = True

    @property
    def ok(self) -> bool:
        """True without problems."""
        return not self.problems


@dataclass(slots=True)
class _Findings:
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def verify(layout: Layout, *, deep: bool = True) -> VerifyReport:
    """Check an archive; damage is reported, never raised."""
    findings = _Findings()
    try:
        contents = Catalogue(layout).look()
    except ArchiveError as error:
        return VerifyReport(problems=(str(error),), deep=deep)
    findings.problems.extend(contents.problems)
    _note_leftovers(layout, contents, findings)
    reader = Reader()
    packages = (*contents.packages, *contents.annotations)
    for package in packages:
        try:
            sound = len(findings.problems)
            findings.problems.extend(_package_problems(reader, package, deep=deep))
            if deep and package.kind == "annotations" and sound == len(findings.problems):
                findings.problems.extend(_dangling_annotations(reader, contents, package))
        except PackageGoneError:
            findings.notes.append(f"Package {package.package_id} was compacted away during the check; its traces are in a newer package.")
    _note_duplicates(contents, findings)
    size = sum(package.bytes for package in packages)
    return VerifyReport(tuple(findings.problems), tuple(findings.notes), len(packages), len(contents.winners), size, deep)


def _note_leftovers(layout: Layout, contents: Contents, findings: _Findings) -> None:
    for name in contents.leftovers:
        if name.startswith(TEMPORARY) and (layout.packages / name).is_dir() and not is_abandoned(layout.packages / name):
            continue  # somebody is writing it now
        findings.notes.append(f"{name} was left by a process that was killed and is not read: `archive compact` deletes it.")
    for name in contents.replaced:
        findings.notes.append(f"Package {name} was replaced by a newer one and is not read: `archive compact` deletes it.")


def _note_duplicates(contents: Contents, findings: _Findings) -> None:
    for package in contents.packages:
        doubled = [
            e.trace_id for n, e in enumerate(package.traces) if e.trace_id not in contents.forgotten and not contents.serves(package, n)
        ]
        if doubled:
            first = contents.winners[doubled[0]][0].package_id
            findings.notes.append(
                f"Package {package.package_id} holds {len(doubled)} traces that an earlier one holds (such as {doubled[0]}, in {first}); "
                "the first is used, `archive compact` removes the other."
            )
    for package in contents.annotations:
        lost = [e.trace_id for e in package.traces if e.trace_id not in contents.winners and e.trace_id not in contents.forgotten]
        if lost:
            findings.notes.append(
                f"Package {package.package_id} annotates {len(lost)} traces that no package holds (such as {lost[0]}): trace them again."
            )


def _package_problems(reader: Reader, package: Package, *, deep: bool) -> Iterator[str]:
    damaged = f"Package {package.package_id} is damaged:"
    known = {entry.name for entry in package.files} | {MANIFEST}
    for extra in sorted(_names(package) - known):
        yield f"Package {package.package_id} holds {extra}, which its manifest does not name and nothing reads: delete that file."
    if len(set(package.trace_ids)) != len(package.traces):
        yield f"{damaged} its manifest names a trace twice. {REPAIR}"
    sound = True
    for entry in package.files:
        try:
            reader.check_file(package, entry)
            problem = _table_problem(package, entry)
        except PackageGoneError:
            raise
        except ArchiveError as error:
            problem = str(error)
        if problem is not None:
            sound = False
            yield problem
    counted = {name for entry in package.traces for name in entry.rows}
    for name in sorted(counted - {entry.table for entry in package.files}):
        sound = False
        yield f"{damaged} its manifest counts rows of {name} but names no file for them. {REPAIR}"
    if deep and sound:
        yield from _content_problems(reader, package)


def _names(package: Package) -> set[str]:
    try:
        return set(os.listdir(package.path))
    except OSError:  # what is wrong with the folder shows when its files are read
        return set()


def _table_problem(package: Package, entry: FileEntry) -> str | None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    damaged = f"Package {package.package_id} is damaged: {entry.name}"
    try:
        metadata = pq.read_metadata(package.path / entry.name)
        found = pq.read_schema(package.path / entry.name)
    except (OSError, pa.ArrowException):
        return f"{damaged} is no Parquet file. {REPAIR}"
    if entry.table not in schema.ARCHIVE_TABLES:
        return f"{damaged} is a table {entry.table!r} that the schema does not define. {REPAIR}"
    expected = schema.package_schema(entry.table) if package.kind == "traces" else annotation_schema(entry.table)
    if not found.equals(expected):
        return f"{damaged} does not have the schema's columns. {REPAIR}"
    counted = sum(trace.rows.get(entry.table, 0) for trace in package.traces)
    if not metadata.num_rows == entry.rows == counted:
        return f"{damaged} has {metadata.num_rows} rows, the manifest says {entry.rows} and counts {counted} by trace. {REPAIR}"
    return None


def _content_problems(reader: Reader, package: Package) -> Iterator[str]:
    damaged = f"Package {package.package_id} is damaged:"
    entries = {entry.trace_id: entry for entry in package.traces}
    changed: list[str] = []
    try:
        for bundle in reader.bundles(package, range(len(package.traces)), schema.ARCHIVE_TABLES):
            for trace_id, tables in split_traces(bundle, package):
                if trace_hash(tables) != entries[trace_id].sha256:
                    changed.append(trace_id)
                elif package.kind == "traces":
                    problem = _trace_problem(trace_id, tables)
                    if problem is not None:
                        yield f"{damaged} trace {trace_id} {problem}. {REPAIR}"
    except PackageGoneError:
        raise
    except ArchiveError as error:
        yield str(error)
    if changed:
        yield f"{damaged} the rows of {len(changed)} traces (such as {changed[0]}) are not those that were written. {REPAIR}"


def _dangling_annotations(reader: Reader, contents: Contents, package: Package) -> Iterator[str]:
    """Find appended edges whose ends are neither nodes of their trace nor appended to it."""
    for entry in package.traces:
        edges = [name for name in entry.rows if name in schema.EDGE_TABLES]
        if not edges or entry.trace_id not in contents.winners:
            continue
        holders = [contents.winners[entry.trace_id], *contents.annotated[entry.trace_id]]
        ends: dict[tuple[str, str], str] = {}
        for name in edges:
            _, ends[name, "src"], ends[name, "dst"] = schema.EDGE_TABLES[name]
        locals_of: dict[str, set[object]] = {label: set() for label in ends.values()}
        try:
            for holder, ordinal in holders:
                for label in locals_of.keys() & holder.traces[ordinal].rows.keys():
                    locals_of[label] |= set(reader.read_table(holder, label, [ordinal], ["local"])["local"].to_pylist())
            ordinal = package.trace_ids.index(entry.trace_id)
            for (name, end), label in ends.items():
                found = reader.read_table(package, name, [ordinal], [end])[end].to_pylist()
                if not set(found) <= locals_of[label]:
                    yield (
                        f"Package {package.package_id} annotates trace {entry.trace_id} with edges in {name} whose {end} is no {label} of "
                        f"it. {REPAIR}"
                    )
        except PackageGoneError:
            raise
        except ArchiveError:
            continue  # damage of another package, which is reported there


def _trace_problem(trace_id: str, tables: Mapping[str, pa.Table]) -> str | None:
    import pyarrow as pa
    import pyarrow.compute as pc

    header = tables.get("Trace")
    if header is None or header["trace_id"].to_pylist() != [trace_id]:
        return "has no Trace row with its id"
    nodes = {label: tables[label]["local"].combine_chunks() for label in schema.NODE_BY_LABEL if label in tables}
    every = pa.concat_arrays(list(nodes.values()))
    if len(pc.unique(every)) != len(every):
        return "has two nodes of one number"
    for name, (_, src_label, dst_label) in schema.EDGE_TABLES.items():
        if name not in tables:
            continue
        for end, label in (("src", src_label), ("dst", dst_label)):
            if label not in nodes or not pc.all(pc.is_in(tables[name][end], value_set=nodes[label])).as_py():
                return f"has edges in {name} whose {end} is no {label} of the trace"
    return None
