"""What an archive holds, from its manifests and tombstones alone.

1. List the package folders; read the manifests that were not read before (a package never changes).
2. Leave out packages that a valid package replaces, and remember a sentence for every folder without a valid manifest.
3. Walk the packages in the order of their names (the order of creation): the first that holds a trace wins.
4. Take away what tombstones forget.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from tracestore.archive.layout import REMOVED, TEMPORARY, Layout, storage_errors
from tracestore.archive.manifest import NewerSchemaError, Package, load_manifest
from tracestore.errors import ArchiveError

_TOMBSTONE_FORMAT: Final = "tracestore-tombstone"
_LOOKS: Final = 20


class _ChangedError(Exception):
    """The folder changed while it was read."""


@dataclass(frozen=True, slots=True)
class Contents:
    """One look at an archive.

    `winners` gives for each trace the package and its ordinal there, forgotten ones left out; `annotated` the same for annotations, which
    may be several; `problems` a sentence for each folder that is
    not a valid package; `newer` those of them that a newer version wrote; `leftovers` names of what a killed process left.
    """

    packages: tuple[Package, ...]
    winners: Mapping[str, tuple[Package, int]]
    annotations: tuple[Package, ...]
    annotated: Mapping[str, tuple[tuple[Package, int], ...]]
    forgotten: frozenset[str]
    problems: tuple[str, ...]
    newer: tuple[str, ...]
    replaced: tuple[str, ...]
    leftovers: tuple[str, ...]

    def serves(self, package: Package, ordinal: int) -> bool:
        """Tell whether rows of a trace in a package count: known, not forgotten, and in no earlier package."""
        trace_id = package.traces[ordinal].trace_id
        if package.kind == "annotations":
            return trace_id in self.winners
        winner = self.winners.get(trace_id)
        return winner is not None and winner[0].package_id == package.package_id

    def require_readable(self) -> None:
        """Raise ArchiveError where a package is too new: lists of traces would be silently short."""
        if self.newer:
            raise ArchiveError(self.newer[0])


class Catalogue:
    """Reads an archive's manifests and tombstones and remembers them."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._manifests: dict[str, Package] = {}
        self._tombstones: dict[str, frozenset[str]] = {}
        self._last: tuple[object, Contents] | None = None

    def forget_cache(self) -> None:
        """Read everything anew at the next look."""
        self._manifests.clear()
        self._tombstones.clear()
        self._last = None

    def look(self) -> Contents:
        """Give what the archive holds now."""
        for _ in range(_LOOKS):
            try:
                return self._look()
            except _ChangedError:
                continue  # a package was compacted away between the listing and the reading
        raise ArchiveError(f"The archive {self._layout.root} changes faster than it can be read: try again.")

    def _look(self) -> Contents:
        with storage_errors(f"the archive {self._layout.root}"):
            names = sorted(os.listdir(self._layout.packages))
            tombstones = sorted(os.listdir(self._layout.tombstones)) if self._layout.tombstones.is_dir() else []
        state = (tuple(names), tuple(tombstones))
        if self._last is not None and self._last[0] == state and not self._last[1].problems:
            return self._last[1]
        contents = self._build(names, tombstones)
        self._last = (state, contents)
        return contents

    def _build(self, names: list[str], tombstones: list[str]) -> Contents:
        problems, newer = [], []
        packages: dict[str, Package] = {}
        for name in names:
            if name.startswith((TEMPORARY, REMOVED)):
                continue
            try:
                packages[name] = self._manifests.get(name) or load_manifest(self._layout.packages / name)
            except ArchiveError as error:
                if not (self._layout.packages / name).exists():
                    raise _ChangedError from None
                problems.append(str(error))
                if isinstance(error, NewerSchemaError):
                    newer.append(str(error))
        self._manifests = dict(packages)
        gone = {old for package in packages.values() for old in package.replaces}
        live = [package for name, package in packages.items() if name not in gone]
        forgotten = self._forgotten(tombstones)
        winners: dict[str, tuple[Package, int]] = {}
        for package in live:
            if package.kind == "traces":
                for ordinal, entry in enumerate(package.traces):
                    if entry.trace_id not in forgotten:
                        winners.setdefault(entry.trace_id, (package, ordinal))
        annotations = tuple(package for package in live if package.kind == "annotations")
        leftovers = [name for name in names if name.startswith((TEMPORARY, REMOVED))]
        leftovers += [name for name in tombstones if name.startswith(TEMPORARY)]
        return Contents(
            tuple(package for package in live if package.kind == "traces"),
            winners,
            annotations,
            _annotated(annotations),
            forgotten,
            tuple(problems),
            tuple(newer),
            tuple(name for name in packages if name in gone),
            tuple(leftovers),
        )

    def _forgotten(self, names: Iterable[str]) -> frozenset[str]:
        found = [self._tombstone(name) for name in names if not name.startswith(TEMPORARY)]
        return frozenset().union(*found)

    def _tombstone(self, name: str) -> frozenset[str]:
        if name not in self._tombstones:
            try:
                value = json.loads((self._layout.tombstones / name).read_bytes())
                if value["format"] != _TOMBSTONE_FORMAT:
                    raise ValueError(name)
                self._tombstones[name] = frozenset(value["trace_ids"])
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise ArchiveError(
                    f"Tombstone {name} cannot be read, so it is unknown which traces were forgotten: restore it from a copy, or forget "
                    "those traces again and delete the file."
                ) from error
        return self._tombstones[name]


def _annotated(packages: Iterable[Package]) -> dict[str, tuple[tuple[Package, int], ...]]:
    """Find the annotations of each trace, in order of creation."""
    found: dict[str, tuple[tuple[Package, int], ...]] = {}
    for package in packages:
        for ordinal, entry in enumerate(package.traces):
            found[entry.trace_id] = (*found.get(entry.trace_id, ()), (package, ordinal))
    return found


def dump_tombstone(trace_ids: Iterable[str]) -> bytes:
    """Write a tombstone as bytes."""
    return json.dumps({"format": _TOMBSTONE_FORMAT, "trace_ids": sorted(trace_ids)}).encode()
