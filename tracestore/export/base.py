"""What every export format is asked for, and what it answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tracestore.store.base import LoadLevel, Progress

if TYPE_CHECKING:
    from tracestore.archive import Archive
    from tracestore.load import LoadPlan


@dataclass(frozen=True, slots=True)
class ExportRequest:
    """What to export and where to. `target` must not exist yet (or be an empty folder); `level` None decides as a load does.

    `since` (ms since 1970): packages closed before it are left out, so that a dashboard fetches increments. `on_plan` is told what will be
    done before anything is; `progress` the number of relationships just written.
    """

    archive: Archive
    target: Path
    level: LoadLevel | None = None
    since: int | None = None
    progress: Progress | None = None
    on_plan: Callable[[LoadPlan], None] | None = None


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What was written. `commands`: what to run next, line by line, as it would be typed; `message`: why this level was taken."""

    format: str
    path: Path
    level: LoadLevel
    traces: int
    nodes: int
    edges: int
    bytes: int
    seconds: float
    commands: tuple[str, ...] = ()
    message: str = ""


Exporter = Callable[[ExportRequest], ExportReport]
