"""The files of an embedded store, and what is decided before the engine sees them.

graph.lbug               the database: magic, storage version, pages
graph.lbug.wal           the engine's write-ahead log, when there is one
graph.lbug.engine.json   which engine version wrote it
graph.lbug.lock          held by the one process that writes
graph.lbug.building      an unfinished rebuild, worth nothing
graph.lbug.next          a finished rebuild that has yet to take the place of the database (its presence is the commit)
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote, urlsplit

from tracestore.archive.layout import FULL
from tracestore.errors import ResourceError, StoreError, StoreLockedError, StoreUnavailableError, StoreVersionError

if TYPE_CHECKING:
    from filelock import FileLock

MAGIC: Final = b"LBUG"
_HEADER_BYTES: Final = 12  # magic, then the storage version as a little-endian 64-bit integer
_ENGINE_FILES: Final = (".wal", ".shadow", ".pinned", ".checkpoint")


@dataclass(frozen=True, slots=True)
class StoreFiles:
    """The paths that belong to one store."""

    database: Path

    def beside(self, suffix: str) -> Path:
        """Give the file whose name is the database's with a suffix."""
        return self.database.with_name(self.database.name + suffix)

    @property
    def marker(self) -> Path:
        return self.beside(".engine.json")

    @property
    def next(self) -> Path:
        return self.beside(".next")

    @property
    def building(self) -> StoreFiles:
        return StoreFiles(self.beside(".building"))

    def engine_files(self) -> list[Path]:
        """List what the engine keeps beside the database file."""
        prefixes = tuple(self.database.name + suffix for suffix in _ENGINE_FILES)
        if not self.database.parent.is_dir():
            return []
        return [path for path in self.database.parent.iterdir() if path.name.startswith(prefixes)]

    def size(self) -> int:
        """Sum the bytes of the database and of its log."""
        return sum(path.stat().st_size for path in [self.database, *self.engine_files()] if path.exists())

    def make_private(self) -> None:
        """Take everybody else's access away: prompts are sensitive."""
        for path in [self.database, *self.engine_files()]:
            if path.exists():
                path.chmod(0o600)


def locate(url: str) -> StoreFiles:
    """Turn a path or `ladybug:///path` into the store's files. Raises StoreError for a URL that names a host or no path."""
    path = url
    if url.lower().startswith("ladybug:"):
        parts = urlsplit(url)
        if parts.netloc:
            raise StoreError(f"{url} names a host; an embedded store is a file: ladybug:///path/graph.lbug")
        path = unquote(parts.path)
    if not path:
        raise StoreError("the store's path is empty; give the path of a file, such as graph.lbug")
    return StoreFiles(Path(path).expanduser().absolute())


def storage_version() -> int:
    """Give the storage version of the installed engine."""
    import ladybug

    return int(ladybug.Database.get_storage_version())


def engine_version() -> str:
    """Give the version of the installed engine, without importing it."""
    return version("ladybug")


def _rebuild_message(files: StoreFiles, found: str) -> str:
    return (
        f"{files.database} was written by {found}; this is engine {engine_version()}. "
        f"Build it anew from the archive: tracestore store rebuild --archive DIR --store {files.database}"
    )


def write_marker(files: StoreFiles) -> None:
    """Record beside the database which engine writes it. Raises ResourceError for a full disk, StoreError."""
    text = json.dumps({"engine": "ladybug", "engine_version": engine_version(), "storage_version": storage_version()}) + "\n"
    temporary = files.beside(".engine.json.tmp")
    try:
        if files.marker.exists() and files.marker.read_text(encoding="utf-8") == text:
            return
        temporary.write_text(text, encoding="utf-8")
        temporary.chmod(0o600)
        temporary.replace(files.marker)
    except OSError as error:
        if error.errno in FULL:
            raise ResourceError(no_room(files)) from error
        raise StoreError(f"{files.marker} cannot be written: {error.strerror}") from error


def no_room(files: StoreFiles) -> str:
    """Say that a write failed for lack of room."""
    return f"{files.database} could not be written, for lack of room or by a limit; make room and run it again"


def require_room(files: StoreFiles, needed: int) -> None:
    """Refuse a write of about so many bytes before it begins: on a disk that is full to the last byte the engine ends the process.
    Raises ResourceError.
    """
    free = shutil.disk_usage(files.database.parent).free
    if free < needed:
        raise ResourceError(f"{no_room(files)} (about {-(-needed >> 20)} MB are needed, {free >> 20} MB are free)")


def check_place(files: StoreFiles, *, write: bool) -> None:
    """Refuse a directory, a file of something else, a missing or an unwritable place. Raises StoreError."""
    path = files.database
    if path.is_dir():
        raise StoreError(f"{path} is a directory; give the path of a file, such as {path / 'graph.lbug'}")
    if not path.parent.is_dir():
        raise StoreError(f"{path.parent} does not exist or is no directory; make it first")
    try:
        if path.exists():
            with path.open("rb") as file:
                head = file.read(_HEADER_BYTES)
        else:
            head = b""
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror}") from error
    if head and (len(head) < _HEADER_BYTES or not head.startswith(MAGIC)):
        raise StoreError(f"{path} is a file of something else, not a store; give another path (it was left as it is)")
    if write and not (os.access(path.parent, os.W_OK) and (not path.exists() or os.access(path, os.W_OK))):
        raise StoreError(f"{path} cannot be written: permission denied")


def check_versions(files: StoreFiles) -> None:
    """Refuse a database of another storage version, by its own header and by the record beside it. Raises StoreVersionError."""
    ours = storage_version()
    with files.database.open("rb") as file:
        head = file.read(_HEADER_BYTES)
    if head:
        theirs = int.from_bytes(head[len(MAGIC) :], "little")
        if theirs != ours:
            raise StoreVersionError(_rebuild_message(files, f"storage version {theirs} (this one is {ours})"))
    if files.marker.exists():
        try:
            record = json.loads(files.marker.read_text(encoding="utf-8"))
            found = (str(record["engine_version"]), int(record["storage_version"]))
        except (ValueError, KeyError, TypeError) as error:
            raise StoreVersionError(_rebuild_message(files, f"an unknown engine ({files.marker.name} is unreadable)")) from error
        if found[1] != ours:
            raise StoreVersionError(_rebuild_message(files, f"engine {found[0]}, storage version {found[1]}"))


def take_lock(files: StoreFiles) -> FileLock:
    """Take the writer's lock. Raises StoreLockedError at once when another process (or this one) holds it."""
    from filelock import FileLock, Timeout

    path = files.beside(".lock")
    lock = FileLock(path, timeout=0, mode=0o600)
    try:
        path.touch(mode=0o600)  # where this fails, acquire would only say that it waited in vain
        lock.acquire()
    except Timeout:
        raise StoreLockedError(
            f"{files.database} is being written by another process; wait until it is done (readers are not held up)"
        ) from None
    except OSError as error:
        raise StoreError(f"{files.database} cannot be locked: {error.strerror}") from error
    return lock


def remove_store(files: StoreFiles) -> None:
    """Delete a database with what the engine keeps beside it, log first."""
    for path in [*files.engine_files(), files.marker, files.database]:
        path.unlink(missing_ok=True)


def remove_building(files: StoreFiles) -> None:
    """Delete an unfinished rebuild. Call under the store's lock."""
    remove_store(files.building)
    files.building.beside(".lock").unlink(missing_ok=True)


def finish_swap(files: StoreFiles) -> None:
    """Let a finished rebuild take the store's place. Call under the lock; repeating it after a crash is safe.

    The old log must go before the new database arrives, or the engine would replay it there; `.next` makes that safe, for whoever
    finds it finishes the job.
    """
    if not files.next.exists():
        return
    for path in [*files.engine_files(), files.marker]:
        path.unlink(missing_ok=True)
    files.next.replace(files.database)
    sync_folder(files.database.parent)


def sync_folder(folder: Path) -> None:
    """Make renames in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def finish_swap_for_reader(files: StoreFiles) -> None:
    """Do the same before reading, when nobody writes. Raises StoreUnavailableError when it cannot be done now."""
    if not files.next.exists():
        return
    try:
        lock = take_lock(files)
    except StoreError as error:
        raise StoreUnavailableError(f"{files.database} is being replaced by its rebuild; try again") from error
    try:
        finish_swap(files)
    finally:
        lock.release()
