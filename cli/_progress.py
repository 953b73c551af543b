"""Progress on stderr: a bar with rate and time left on a terminal, a plain line every few seconds otherwise, nothing under a second."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

QUIET_SECONDS: Final = 1.0
"""Work shorter than this shows nothing."""

LINE_SECONDS: Final = 5.0
"""Time between plain lines."""


class Reporter(Protocol):
    """What running work tells."""

    def advance(self, count: int = 1) -> None:
        """Say that `count` more units are done."""
        ...

    def expect(self, total: int) -> None:
        """Say how many units there will be in all."""
        ...


@contextmanager
def progress(what: str, unit: str, total: int | None = None, *, quiet: bool = False) -> Iterator[Reporter]:
    """Show the progress of the block: `what` names the work (`tracing`), `unit` what is counted (`traces`)."""
    reporter: _Silent | _Lines | _Bar = _Silent() if quiet else (_Bar if sys.stderr.isatty() else _Lines)(what, unit, total)
    try:
        yield reporter
    finally:
        reporter.close()


def rate_text(done: int, total: int | None, seconds: float, unit: str) -> str:
    """Say `12 of 60 traces, 3.1/s, 15 s left`."""
    rate = done / seconds if seconds > 0 else 0.0
    parts = [f"{done:,} of {total:,} {unit}" if total is not None else f"{done:,} {unit}"]
    if rate > 0:
        parts.append(f"{rate:,.1f}/s" if rate < 100 else f"{rate:,.0f}/s")
        if total is not None and done < total:
            parts.append(f"{(total - done) / rate:,.0f} s left")
    return ", ".join(parts)


class _Silent:
    def advance(self, count: int = 1) -> None:
        pass

    def expect(self, total: int) -> None:
        pass

    def close(self) -> None:
        pass


class _Lines:
    def __init__(self, what: str, unit: str, total: int | None) -> None:
        self._what, self._unit, self._total = what, unit, total
        self._done = 0
        self._start = time.monotonic()
        self._next = self._start + LINE_SECONDS

    def advance(self, count: int = 1) -> None:
        self._done += count
        now = time.monotonic()
        if now >= self._next:
            self._next = now + LINE_SECONDS
            self._write(now)

    def expect(self, total: int) -> None:
        self._total = total

    def close(self) -> None:
        now = time.monotonic()
        if now - self._start >= QUIET_SECONDS and self._done:
            self._write(now)

    def _write(self, now: float) -> None:
        line = rate_text(self._done, self._total, now - self._start, self._unit)
        sys.stderr.write(f"{self._what}: {line}\n")
        sys.stderr.flush()


class _Bar:
    def __init__(self, what: str, unit: str, total: int | None) -> None:
        self._what, self._unit, self._total = what, unit, total
        self._done = 0
        self._start = time.monotonic()
        self._bar: Progress | None = None
        self._task: TaskID | None = None

    def advance(self, count: int = 1) -> None:
        self._done += count
        elapsed = time.monotonic() - self._start
        if self._bar is None and elapsed >= QUIET_SECONDS:
            self._open()
        if self._bar is not None and self._task is not None:
            text = rate_text(self._done, self._total, elapsed, self._unit)
            self._bar.update(self._task, completed=self._done, total=self._total, rate=text)

    def expect(self, total: int) -> None:
        self._total = total

    def close(self) -> None:
        if self._bar is not None:
            self._bar.stop()

    def _open(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[rate]}"))
        self._bar = Progress(*columns, console=Console(stderr=True))
        self._task = self._bar.add_task(self._what, total=self._total, rate="")
        self._bar.start()
