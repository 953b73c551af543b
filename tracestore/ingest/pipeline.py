"""Trace into the archive and load into the store at the same time.

1. A loader thread loads what the archive holds and the store does not: what an earlier run left.
2. The calling thread traces. Every package that is closed (and so on disk) goes into a bounded queue; the loader takes what is there and
   loads it. The store therefore never holds what the archive does not.
3. A full queue holds the tracing up; a loader that fails stops it at the next package, and its error is raised.
4. When the tracing ends, so does the queue, and the loader loads the rest. On Ctrl-C the open package is closed, the loader finishes the
   load it is at, and the rest is left to the next run.

The loader works in the background (`store.background`), so that it takes little but idle time from the tracing. A damaged package does not
end the run: everything else is traced and loaded, and the summary names it.

Packages are closed early enough that the last one is a small part of the whole: what is loaded after the tracing's end is waited for.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tracestore.archive import Archive, Package
from tracestore.errors import TracestoreError
from tracestore.ingest.runner import Progress, trace_to_archive
from tracestore.ingest.summary import TraceSummary
from tracestore.load import LoadSummary, PartialLoadError, load_archive, load_packages, outputs_in
from tracestore.model import Item, TraceOptions
from tracestore.store.background import in_background
from tracestore.store.base import LoadLevel, Store

if TYPE_CHECKING:
    from tracestore.extract.items import ItemFailure
    from tracestore.extract.loading import LoadedModel

WAITING_PACKAGES: Final = 4
"""Closed packages that may wait for the loader before the tracing waits for it."""

LEAST_TRACES: Final = 10
"""Traces in a package at least: the store takes ten at a time three times faster than one."""

PARTS: Final = 8
"""Packages that a run of known size is cut into, within these bounds."""


@dataclass(frozen=True, slots=True)
class IngestSummary:
    """What the tracing and the loading did; `seconds` for both together."""

    traced: TraceSummary
    loaded: LoadSummary
    seconds: float

    def raise_for_failures(self) -> None:
        """Raise PartialSuccessError when items could not be traced or packages not be loaded, BadInputError when no item could."""
        try:
            self.traced.raise_for_failures()
        except TracestoreError as error:
            for failure in self.loaded.failures:
                error.add_note(failure)
            raise
        self.loaded.raise_for_failures()


def ingest_items(
    items: Iterable[Item | ItemFailure],
    loaded: LoadedModel,
    archive: Archive,
    store: Store,
    options: TraceOptions | None = None,
    *,
    level: LoadLevel | None = None,
    expected_items: int | None = None,
    writers: int | None = None,
    progress: Progress | None = None,
    load_progress: Progress | None = None,
    errors_path: Path | None = None,
    text_key: bytes | None = None,
    strict: bool = False,
) -> IngestSummary:
    """Trace what the archive lacks and load what the store lacks, overlapped.

    `expected_items` (where known) sets how many traces a package takes; `writers` load side by side on a server; `progress` counts items,
    `load_progress` edges. Raises what `trace_to_archive` and `load_archive` raise, except that items and packages that failed alone are
    left to the summary's `raise_for_failures`. Whatever happens, finished packages stay.
    """
    start = time.monotonic()
    loader = _Loader(archive, store, level, load_progress, writers)
    loader.start()
    try:
        summary = trace_to_archive(
            items,
            loaded,
            archive,
            options,
            progress=progress,
            errors_path=errors_path,
            text_key=text_key,
            strict=strict,
            max_traces=package_traces(expected_items),
            on_packages=loader.offer,
        )
    except BaseException:
        loader.abandon()
        raise
    report = loader.finish()
    return IngestSummary(summary, report, time.monotonic() - start)


def package_traces(expected_items: int | None) -> int | None:
    """Give the traces of a package for a run of so many items; None leaves it to the archive."""
    from tracestore.archive.writer import MAX_TRACES

    return None if expected_items is None else min(MAX_TRACES, max(LEAST_TRACES, expected_items // PARTS))


class _Loader:
    """The loading thread and its queue."""

    def __init__(self, archive: Archive, store: Store, level: LoadLevel | None, progress: Progress | None, writers: int | None) -> None:
        self._archive, self._store, self._level, self._progress, self._writers = archive, store, level, progress, writers
        self._queue: queue.Queue[Package | None] = queue.Queue(WAITING_PACKAGES)
        self._stop = threading.Event()
        self._error: BaseException | None = None
        self._reports: list[LoadSummary] = []
        self._outputs = 0  # in the store
        self._thread = threading.Thread(target=self._run, name="tracestore-loader")

    def start(self) -> None:
        """Begin with what the archive holds already."""
        self._thread.start()

    def offer(self, packages: Sequence[Package]) -> None:
        """Hand over closed packages; wait while the queue is full. Raises the loader's error."""
        for package in packages:
            self._put(package)

    def finish(self) -> LoadSummary:
        """Load the rest; give the sum of all loads. Raises the loader's error."""
        self._put(None)
        self._thread.join()
        self._raise()
        reports = self._reports
        return LoadSummary(
            loaded=tuple(name for report in reports for name in report.loaded),
            skipped=reports[0].skipped,
            nodes=sum(report.nodes for report in reports),
            edges=sum(report.edges for report in reports),
            seconds=sum(report.seconds for report in reports),
            busy=reports[-1].busy,  # the last load looked at everything again
            level=next((report.level for report in reversed(reports) if report.loaded), reports[-1].level),
            message=" ".join(dict.fromkeys(report.message for report in reports if report.message)),
            failures=reports[-1].failures,
            packages=tuple(package for report in reports for package in report.packages),
        )

    def abandon(self) -> None:
        """Stop after the load that is under way."""
        self._stop.set()
        self._thread.join()

    def _put(self, package: Package | None) -> None:
        while True:
            self._raise()
            try:
                self._queue.put(package, timeout=0.2)
            except queue.Full:
                continue
            return

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        in_background()
        try:
            self._load_archive()
            self._outputs = outputs_in(self._store)
            while not self._stop.is_set():
                try:
                    package = self._queue.get(timeout=0.2)
                except queue.Empty:
                    continue
                waiting = [package]
                while not self._queue.empty():  # one load for all that wait
                    waiting.append(self._queue.get_nowait())
                self._load_packages([each for each in waiting if each is not None])
                if None in waiting:
                    self._load_archive()  # what is left, and the input lines that joined traces loaded earlier
                    return
        except BaseException as error:  # noqa: BLE001  raised again in the calling thread
            self._error = error

    def _load_archive(self) -> None:
        load = partial(load_archive, self._archive, self._store, level=self._level, progress=self._progress, writers=self._writers)
        self._note(load)

    def _load_packages(self, packages: Sequence[Package]) -> None:
        load = partial(load_packages, self._archive, self._store, packages, level=self._level, progress=self._progress)
        self._note(partial(load, outputs_there=self._outputs, writers=self._writers))
        self._outputs += sum(entry.rows.get("Output", 0) for package in packages for entry in package.traces)

    def _note(self, load: Callable[[], LoadSummary]) -> None:
        """Keep the report; damaged packages do not end the run: the last load of all reports them."""
        try:
            self._reports.append(load())
        except PartialLoadError as error:
            self._reports.append(error.summary)
