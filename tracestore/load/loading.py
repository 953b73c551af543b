"""Load what the archive holds and the store does not.

1. Plan from the manifests (`planning.py`).
2. For each batch: read its traces, package by package, a bounded way ahead of the writing where the engine wants that; hand them to the
   store, which makes all of them visible or none. A damaged package is noted and the rest goes on; a package that was compacted away
   meanwhile is looked up again.
3. A trace that was forgotten while it was loaded is deleted again.
4. What was in another loader's hands is tried once more: it may have died.
5. Apply the annotations (further input lines, knockouts) to the traces that are there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from tracestore.archive import PackageGoneError
from tracestore.errors import ArchiveError, PartialSuccessError
from tracestore.load.planning import Batch, LoadPlan, plan_load, plan_packages
from tracestore.load.reading_ahead import read_ahead
from tracestore.store.base import LoadLevel, LoadReport, Progress, Store, TraceBundle

if TYPE_CHECKING:
    from tracestore.archive import Archive, Package, PackageTables

_ROUNDS: Final = 5
"""How often the archive is looked at again because a compaction moved packages away."""

_ANNOTATION_ROWS: Final = 50_000
_ALL_ROWS: Final = 1 << 40


@dataclass(frozen=True, slots=True)
class PackageLoad:
    """What became of the traces that were wanted of one package: how many were loaded, or are in another loader's hands; `failure` is a
    sentence when the package could not be read.
    """

    package_id: str
    wanted: int
    loaded: int
    busy: int
    failure: str = ""


@dataclass(frozen=True, slots=True)
class LoadSummary(LoadReport):
    """What a load did: `level` taken and why (`message`, empty when asked for), a sentence for each package that failed, and what became
    of each package that had something to load.
    """

    level: LoadLevel = "summary"
    message: str = ""
    failures: tuple[str, ...] = ()
    packages: tuple[PackageLoad, ...] = ()

    def raise_for_failures(self) -> None:
        """Raise PartialLoadError when packages could not be loaded."""
        if self.failures:
            done = f"{len(self.loaded):,} traces were loaded, {len(self.failures):,} packages were not"
            raise PartialLoadError(f"{done}: {' '.join(self.failures)}", self)


class PartialLoadError(PartialSuccessError):
    """Some packages could not be loaded; `summary` says what was."""

    def __init__(self, message: str, summary: LoadSummary) -> None:
        super().__init__(message)
        self.summary = summary


@dataclass(slots=True)
class _Tally:
    """What was done so far."""

    started: float = field(default_factory=time.perf_counter)
    loaded: list[str] = field(default_factory=list)
    busy: dict[str, None] = field(default_factory=dict)  # in the hands of another loader
    wanted: dict[str, dict[str, None]] = field(default_factory=dict)  # trace ids by package
    nodes: int = 0
    edges: int = 0
    failures: dict[str, str] = field(default_factory=dict)  # by package

    def add(self, report: LoadReport) -> None:
        self.nodes += report.nodes
        self.edges += report.edges

    def note_plan(self, plan: LoadPlan) -> None:
        """Remember what is wanted of each package."""
        for batch in plan.batches:
            for part in batch.parts:
                self.wanted.setdefault(part.package_id, {}).update(dict.fromkeys(part.trace_ids))

    def packages(self) -> tuple[PackageLoad, ...]:
        """Give what became of each package."""
        loaded = set(self.loaded)
        return tuple(
            PackageLoad(
                package_id,
                len(ids),
                sum(name in loaded for name in ids),
                sum(name in self.busy for name in ids),
                self.failures.get(package_id, ""),
            )
            for package_id, ids in self.wanted.items()
        )


def _read_parts(archive: Archive, batch: Batch, level: LoadLevel, tally: _Tally) -> Iterator[PackageTables]:
    """Read a batch, leaving out packages that are damaged."""
    for part in batch.parts:
        if part.package_id in tally.failures:
            continue
        try:
            yield from archive.bundles(part.package_id, level=level, trace_ids=part.trace_ids, max_rows=_ALL_ROWS)
        except PackageGoneError:
            raise
        except ArchiveError as error:
            tally.failures[part.package_id] = str(error)


def _joined(parts: list[PackageTables]) -> TraceBundle:
    """Make one bundle of several: ordinals go on."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if len(parts) == 1:
        return TraceBundle(parts[0].trace_ids, parts[0].tables)
    ids: list[str] = []
    tables: dict[str, list[pa.Table]] = {}
    for part in parts:
        shift = pa.scalar(len(ids), pa.int64())
        for name, table in part.tables.items():
            moved = table.set_column(0, table.schema.field(0), pc.add(table.column(0), shift))
            tables.setdefault(name, []).append(moved)
        ids.extend(part.trace_ids)
    return TraceBundle(tuple(ids), {name: pa.concat_tables(found) for name, found in tables.items()})


def _bundles(archive: Archive, plan: LoadPlan, tally: _Tally) -> Iterator[TraceBundle]:
    for batch in plan.batches:
        parts = list(_read_parts(archive, batch, plan.level, tally))
        if parts:
            bundle = _joined(parts)
            del parts
            yield bundle
            del bundle


def _load_batches(archive: Archive, store: Store, plan: LoadPlan, tally: _Tally, progress: Progress | None, writers: int | None) -> None:
    tally.note_plan(plan)
    with closing(read_ahead(_bundles(archive, plan, tally), store.capabilities.read_ahead)) as bundles:
        for bundle in bundles:
            report = store.load(bundle, level=plan.level, progress=progress, writers=writers)
            del bundle
            tally.add(report)
            gone = archive.forgotten() & set(report.loaded)
            if gone:
                store.evict(sorted(gone))
            tally.loaded += [name for name in report.loaded if name not in gone]
            tally.busy.update(dict.fromkeys(report.busy))


def _load_busy(archive: Archive, store: Store, level: LoadLevel, tally: _Tally, progress: Progress | None, writers: int | None) -> None:
    """Try once more what another loader had: done by now, or its holder died and it is ours."""
    if tally.busy:
        again = tuple(tally.busy)
        tally.busy.clear()
        _load_batches(archive, store, plan_load(archive, store, level=level, only=again), tally, progress, writers)


def _annotate(archive: Archive, store: Store, tally: _Tally, only: Collection[str] | None) -> None:
    for package in archive.annotations():
        try:
            for part in archive.bundles(package, trace_ids=only, max_rows=_ANNOTATION_ROWS):
                tally.add(store.annotate(TraceBundle(part.trace_ids, part.tables)))
        except PackageGoneError:
            raise
        except ArchiveError as error:
            tally.failures[package.package_id] = str(error)


def _busy_message(count: int) -> str:
    if not count:
        return ""
    return f"{count} traces are being loaded by another process; run the same command again later to make sure of them."


def load_archive(
    archive: Archive,
    store: Store,
    *,
    level: LoadLevel | None = None,
    progress: Progress | None = None,
    only: Collection[str] | None = None,
    on_plan: Callable[[LoadPlan], None] | None = None,
    writers: int | None = None,
) -> LoadSummary:
    """Load what is missing; safe to repeat, and to go on with after a crash.

    `level` None takes mechanism up to 1 000 outputs in the store, summary above (the summary's `message` says so). `only`: these traces.
    `on_plan` is told what will be done (edges in total) before anything is; `progress` the number of edges just stored. `writers` work side
    by side where the engine has parallel loaders (None: as the store was opened).
    Raises PartialLoadError when packages were damaged (the others are loaded), StoreError and its kinds.
    """
    tally = _Tally()
    first: LoadPlan | None = None
    for attempt in range(_ROUNDS):
        plan = plan_load(archive, store, level=level if first is None else first.level, only=only)
        if first is None:
            first = plan
            if on_plan is not None:
                on_plan(plan)
        try:
            _load_batches(archive, store, plan, tally, progress, writers)
            _load_busy(archive, store, plan.level, tally, progress, writers)
            _annotate(archive, store, tally, only)
            break
        except PackageGoneError:
            if attempt == _ROUNDS - 1:
                raise
    assert first is not None
    return _summary(tally, first)


def load_packages(
    archive: Archive,
    store: Store,
    packages: Sequence[Package],
    *,
    level: LoadLevel | None = None,
    progress: Progress | None = None,
    outputs_there: int = 0,
    writers: int | None = None,
) -> LoadSummary:
    """Load packages that were just written without looking at the rest of the archive, which `load_archive` does once afterwards.

    That also brings annotations, and traces of packages that were compacted away meanwhile. `outputs_there`: outputs in the store, which
    decide the level when none is asked for. Raises PartialLoadError, StoreError and its kinds.
    """
    tally = _Tally()
    plan = plan_packages(packages, store, level=level, outputs_there=outputs_there)
    with suppress(PackageGoneError):
        _load_batches(archive, store, plan, tally, progress, writers)
    return _summary(tally, plan)


def _summary(tally: _Tally, plan: LoadPlan) -> LoadSummary:
    """Say what was done. Raises PartialLoadError when something was damaged."""
    summary = LoadSummary(
        loaded=tuple(tally.loaded),
        skipped=plan.skipped,
        nodes=tally.nodes,
        edges=tally.edges,
        seconds=time.perf_counter() - tally.started,
        busy=tuple(tally.busy),
        level=plan.level,
        message=" ".join(filter(None, (plan.message, _busy_message(len(tally.busy))))),
        failures=tuple(tally.failures.values()),
        packages=tally.packages(),
    )
    summary.raise_for_failures()
    return summary
