"""An output folder that is there whole or not at all, private to the user (0700, files 0600).

1. Fill a temporary folder beside the target, under a lock, so that leftovers of a killed export can be told from one at work.
2. Have every file on disk, then rename.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tracestore.archive import PackageGoneError
from tracestore.archive.layout import is_abandoned, make_private_folder, storage_errors, sync_folder
from tracestore.errors import BadInputError
from tracestore.export.base import ExportReport, ExportRequest
from tracestore.load import LoadPlan, plan_empty

Write = Callable[[ExportRequest, LoadPlan, Path], tuple[int, int, int]]
"""Fill a folder; give how many traces, nodes and relationships were written."""

_ROUNDS: Final = 5
_PARTIAL: Final = ".partial-"
_TAKEN: Final = frozenset({errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR})


def export_folder(format: str, request: ExportRequest, write: Write) -> ExportReport:
    """Plan an export, let `write` fill its folder, and report. Begins anew when a compaction takes packages away meanwhile."""
    started = time.perf_counter()
    target = request.target.expanduser().absolute()
    plan = plan_empty(request.archive, level=request.level)
    if not plan.traces:
        raise BadInputError(f"the archive {request.archive.path} holds no traces: there is nothing to export")
    if request.on_plan is not None:
        request.on_plan(plan)
    for attempt in range(_ROUNDS):
        try:
            with new_folder(target) as folder:
                traces, nodes, edges = write(request, plan, folder)
                size = sum(path.stat().st_size for path in folder.iterdir())
            break
        except PackageGoneError:
            if attempt == _ROUNDS - 1:
                raise
    return ExportReport(format, target, plan.level, traces, nodes, edges, size, time.perf_counter() - started, message=plan.message)


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Give a folder to fill; it becomes `target` when the block ends without an error, and is deleted otherwise.

    Raises BadInputError when something is at `target` already, ResourceError when the disk is full.
    """
    target = target.expanduser().absolute()
    _require_free(target)
    with storage_errors(f"the export {target}", "Nothing of it was kept."):
        make_private_folder(target.parent)
        _remove_leftovers(target)
        temporary = target.parent / f".{target.name}{_PARTIAL}{os.getpid()}-{secrets.token_hex(4)}"
        make_private_folder(temporary)
        descriptor = os.open(temporary, os.O_RDONLY | os.O_DIRECTORY)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        try:
            yield temporary
            _sync_files(temporary)
            _publish(temporary, target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
            os.close(descriptor)


def _require_free(target: Path) -> None:
    try:
        taken = any(target.iterdir())
    except FileNotFoundError:
        return
    except OSError:
        taken = True
    if taken:
        raise BadInputError(f"{target} is there already: name a folder that is not, or delete it")


def _publish(temporary: Path, target: Path) -> None:
    try:
        temporary.rename(target)  # takes the place of an empty folder, of nothing else
    except OSError as error:
        if error.errno in _TAKEN:
            raise BadInputError(f"{target} was made by somebody else meanwhile: name another folder") from None
        raise
    sync_folder(target.parent)


def _remove_leftovers(target: Path) -> None:
    """Delete what killed exports to the same target left."""
    for path in target.parent.glob(f".{target.name}{_PARTIAL}*"):
        if path.is_dir() and is_abandoned(path):
            shutil.rmtree(path, ignore_errors=True)


def _sync_files(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
    sync_folder(folder)
