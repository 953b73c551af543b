"""Forget traces, and tidy up packages, so that a process killed at any moment leaves a correct archive.

Compaction:
1. Delete what killed processes left: abandoned temporary folders, half-deleted packages, packages that a newer one replaces.
2. Latest package first: rewrite each that holds forgotten traces, or traces that an earlier package holds too, without them. (Latest first,
   so that the winner of a doubled trace is never the one that moves behind the other.)
3. Merge neighbouring small packages.

A rewritten package names in its manifest those that it `replaces`; readers leave those out from the moment it is there, and only then are
they deleted. Damaged packages are left alone and named in the report.
"""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from tracestore import schema
from tracestore.archive.catalogue import Catalogue, Contents, dump_tombstone
from tracestore.archive.layout import TEMPORARY, Layout, is_abandoned, make_private_folder, remove_package, storage_errors, write_atomically
from tracestore.archive.manifest import Package
from tracestore.archive.package import Part, make_part, new_token, write_package
from tracestore.archive.reader import Reader, split_traces
from tracestore.archive.writer import MAX_TRACES, merge_parts
from tracestore.errors import ArchiveError, BadInputError

SMALL_TRACES: Final = MAX_TRACES // 2
SMALL_BYTES: Final = 16 * 2**20
MERGED_BYTES: Final = 32 * 2**20
"""On disk; about four times that in memory while the package is written."""


@dataclass(frozen=True, slots=True)
class CompactReport:
    """What a compaction did: traces removed for good, packages before and after, bytes on disk before and after, and what it left alone."""

    removed_traces: int = 0
    packages_before: int = 0
    packages_after: int = 0
    bytes_before: int = 0
    bytes_after: int = 0
    leftovers: int = 0
    problems: tuple[str, ...] = ()


@dataclass(slots=True)
class _Work:
    """One compaction as it goes."""

    layout: Layout
    catalogue: Catalogue
    reader: Reader
    removed: int = 0
    damaged: dict[str, str] = field(default_factory=dict)  # package id -> what is wrong


def forget(layout: Layout, catalogue: Catalogue, trace_ids: Iterable[str]) -> int:
    """Write a tombstone; see `Archive.forget`."""
    wanted = list(dict.fromkeys(trace_ids))
    with storage_errors(f"a tombstone in the archive {layout.root}"), layout.lock():
        contents = catalogue.look()
        unknown = [one for one in wanted if one not in contents.winners and one not in contents.forgotten]
        if unknown:
            raise BadInputError(f"The archive {layout.root} has no trace {unknown[0]}; nothing was forgotten. See `archive list`.")
        fresh = [one for one in wanted if one not in contents.forgotten]
        if fresh:
            make_private_folder(layout.tombstones)
            write_atomically(layout.tombstones / f"{secrets.token_hex(16)}.json", dump_tombstone(fresh))
        return len(fresh)


def compact(layout: Layout) -> CompactReport:
    """Tidy up; see `Archive.compact`."""
    from filelock import Timeout

    with storage_errors(f"the archive {layout.root}"):
        try:
            with layout.compact_lock().acquire(timeout=0):
                return _compact(layout)
        except Timeout:
            raise ArchiveError(f"The archive {layout.root} is being compacted by another process: wait until it is done.") from None


def _compact(layout: Layout) -> CompactReport:
    work = _Work(layout, Catalogue(layout), Reader())
    before = work.catalogue.look()
    leftovers = _delete_leftovers(layout, before)
    contents = work.catalogue.look()
    contents.require_readable()
    for package in reversed((*contents.packages, *contents.annotations)):
        now = work.catalogue.look()
        keep = [ordinal for ordinal in range(len(package.traces)) if _stays(now, package, ordinal)]
        if len(keep) < len(package.traces):
            _rewrite(work, [(package, keep)])
    contents = work.catalogue.look()
    for kind in (contents.packages, contents.annotations):
        for group in _small_groups([package for package in kind if package.package_id not in work.damaged]):
            _rewrite(work, [(package, list(range(len(package.traces)))) for package in group])
    after = work.catalogue.look()
    return CompactReport(
        work.removed,
        len(before.packages) + len(before.annotations),
        len(after.packages) + len(after.annotations),
        sum(package.bytes for package in (*before.packages, *before.annotations)),
        sum(package.bytes for package in (*after.packages, *after.annotations)),
        leftovers,
        (*after.problems, *work.damaged.values()),
    )


def _delete_leftovers(layout: Layout, contents: Contents) -> int:
    count = 0
    with layout.lock():
        for name in contents.leftovers:
            for path in (layout.packages / name, layout.tombstones / name):
                if path.is_file():
                    path.unlink()
                    count += 1
                elif path.is_dir() and (not name.startswith(TEMPORARY) or is_abandoned(path)):
                    shutil.rmtree(path)
                    count += 1
        for name in contents.replaced:
            remove_package(layout, name)
            count += 1
    return count


def _stays(contents: Contents, package: Package, ordinal: int) -> bool:
    """Annotations go with forgotten traces only: a trace that is merely lost may come back."""
    if package.kind == "annotations":
        return package.traces[ordinal].trace_id not in contents.forgotten
    return contents.serves(package, ordinal)


def _small_groups(packages: Sequence[Package]) -> list[list[Package]]:
    """Group neighbouring small packages up to the limits of one package."""
    groups: list[list[Package]] = []
    traces = size = 0
    for package in packages:
        if len(package.traces) > SMALL_TRACES or package.bytes > SMALL_BYTES:
            continue
        if groups and traces + len(package.traces) <= MAX_TRACES and size + package.bytes <= MERGED_BYTES:
            groups[-1].append(package)
        else:
            groups.append([package])
            traces = size = 0
        traces, size = traces + len(package.traces), size + package.bytes
    return [group for group in groups if len(group) > 1]


def _rewrite(work: _Work, sources: Sequence[tuple[Package, list[int]]]) -> None:
    """Write what is kept of some packages as one, then delete them; damaged ones stay as they are."""
    parts: list[Part] = []
    read: list[tuple[Package, list[int]]] = []
    for package, keep in sources:
        try:
            parts.extend(_read_parts(work.reader, package, keep))
            read.append((package, keep))
        except ArchiveError as error:
            work.damaged[package.package_id] = str(error)
    kind = sources[0][0].kind
    replaced = [package.package_id for package, _ in read]
    if parts:
        write_package(work.layout, kind, parts if kind == "traces" else merge_parts(parts), token=new_token(), replaces=replaced)
    with work.layout.lock():
        for package_id in replaced:
            remove_package(work.layout, package_id)
    work.removed += sum(len(package.traces) - len(keep) for package, keep in read if kind == "traces")


def _read_parts(reader: Reader, package: Package, keep: Sequence[int]) -> list[Part]:
    entries = {entry.trace_id: entry for entry in package.traces}
    parts = []
    for bundle in reader.bundles(package, keep, schema.ARCHIVE_TABLES):
        for trace_id, tables in split_traces(bundle, package):
            part = make_part(trace_id, tables)
            if part.entry.sha256 != entries[trace_id].sha256:
                raise ArchiveError(
                    f"Package {package.package_id} is damaged: the rows of trace {trace_id} are not those that were written."
                )
            parts.append(part)
    return parts
