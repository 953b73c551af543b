"""The engine's database object with its rules, each learnt by breaking the engine.

- A transaction that contains COPY contains nothing else; each ingest transaction gets a new connection.
- COPY of relationships as a statement of its own writes the lists of a new group of nodes packed; inside BEGIN ... COMMIT the same rows
  pass through the log, and the place and length of every node's list take 16 bytes instead of about 2 (`ingest.py`).
- `auto_checkpoint` stays on: without it a committed COPY is lost when the process dies, although later commits survive.
- No read of this process is open while a transaction commits (`gate.py`).
- A reader's pages can change under it while another process checkpoints: a read counts only if the file was the same before and after.
- After a write that failed on its way to the disk nothing more is written until the store is opened again: deleting the half-written rows
  at once left a file that crashed the engine on opening; leaving them to be cleaned on the next opening never did.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

from tracestore.errors import ResourceError, StoreError, StoreLockedError, StoreUnavailableError
from tracestore.store.background import engine_threads
from tracestore.store.ladybug.files import StoreFiles, no_room, require_room, take_lock
from tracestore.store.ladybug.gate import Gate

if TYPE_CHECKING:
    import ladybug

BUFFER_POOL_BYTES: Final = 512 * 2**20
"""The engine's page cache and its room for uncommitted rows; its own default is 80 % of the machine."""

LEAST_ROOM_BYTES: Final = 4 * 2**20
"""Free bytes without which nothing is written: the smallest write takes a log, and pages beside the file."""

_PATIENCE_S: Final = 30.0
"""How long a reader waits for another process's checkpoint."""

_PASSING: Final = ("checkpoint recovery is pending", "WAL file is corrupted", "Corrupted wal", "Corrupted WAL", "Reading past the end")
"""What a reader meets while another process writes. For a writer the same words mean damage."""


_DISK: Final = ("Cannot write to file", "No space left", "File too large", "quota", "checkpoint failed")
_MEMORY: Final = ("Buffer manager exception", "Unable to allocate memory", "bad_alloc")


class EngineError(Exception):
    """What the engine said. Never leaves this folder: callers translate it, since the text may hold values."""


def rows(connection: ladybug.Connection, cypher: str, params: Mapping[str, Any] | None = None) -> list[list[Any]]:
    """Run one statement to its end and give its rows. Raises EngineError."""
    try:
        result = connection.execute(cypher, dict(params or {}))
        try:
            found: list[list[Any]] = result.get_all()
        finally:
            result.close()
    except RuntimeError as error:
        raise EngineError(str(error)) from error
    return found


def _translate_open(files: StoreFiles, message: str) -> StoreError:
    path = files.database
    if "Could not set lock" in message:
        return StoreLockedError(f"{path} is being written by another process; wait until it is done")
    if "different version" in message:
        return StoreError(f"{path} was written by another version of the engine; tracestore store rebuild --archive DIR --store {path}")
    if any(word in message.lower() for word in ("corrupt", "wal replay", "checksum")):
        return StoreError(f"{path} is damaged; build it anew from the archive: tracestore store rebuild --archive DIR --store {path}")
    return StoreError(f"{path} cannot be opened: {message.splitlines()[0]}")


def _open(files: StoreFiles, *, read_only: bool) -> ladybug.Database:
    import ladybug

    return ladybug.Database(str(files.database), buffer_pool_size=BUFFER_POOL_BYTES, read_only=read_only, throw_on_wal_replay_failure=True)


def _recovered(files: StoreFiles) -> bool:
    """Finish what a writer that died has left, which only a writer can; False while one is alive, or when it may not be written here.
    Raises ResourceError when there is no room for it.
    """
    require_room(files, LEAST_ROOM_BYTES)
    try:
        lock = take_lock(files)
    except StoreError:
        return False
    try:
        _open(files, read_only=False).close()
    except RuntimeError as error:
        raise _translate_open(files, str(error)) from None
    finally:
        lock.release()
    return True


class Handle:
    """An open database: one writer, or a reader that follows what a writer in another process commits."""

    def __init__(self, files: StoreFiles, *, read_only: bool) -> None:
        self.files = files
        self.read_only = read_only
        self._broken = False
        self.gate = Gate()
        self._database: ladybug.Database | None = None
        self._stamp: tuple[object, ...] = ()
        self.open()

    def open(self) -> None:
        """Open the database; a reader waits for a checkpoint of another process. Raises StoreError and its kinds."""
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            self._stamp = self._look()
            try:
                self._database = _open(self.files, read_only=self.read_only)
                return
            except RuntimeError as error:
                message = str(error)
            if not (self.read_only and any(word in message for word in _PASSING)):
                raise _translate_open(self.files, message) from None
            if time.monotonic() <= deadline and _recovered(self.files):
                continue
            if time.monotonic() > deadline:
                raise StoreUnavailableError(
                    f"{self.files.database} cannot be read while another process writes, or was left in the middle of a write: "
                    f"try again, or run tracestore store check --store {self.files.database}"
                )
            time.sleep(0.02)

    def close(self) -> None:
        """Close the database; a writer's log is folded into the file."""
        if self._database is not None:
            self._database.close()
            self._database = None

    @property
    def database(self) -> ladybug.Database:
        """The engine's object. Raises StoreError after close."""
        if self._database is None:
            raise StoreError(f"the store {self.files.database} is closed; open it again")
        return self._database

    @contextmanager
    def connection(self) -> Iterator[ladybug.Connection]:
        """Give a fresh connection."""
        import ladybug

        connection = ladybug.Connection(self.database, num_threads=engine_threads())
        try:
            yield connection
        finally:
            connection.close()

    @property
    def broken(self) -> bool:
        """Has a write failed on its way to the disk: nothing more may be written before the store is opened again."""
        return self._broken

    def _note(self, error: EngineError) -> None:
        if any(word in str(error) for word in _DISK) or str(error).startswith("IO exception"):
            self._broken = True

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Translate what goes wrong in a block that writes. Raises ResourceError (disk, memory) and StoreError."""
        path = self.files.database
        if self._broken:
            raise StoreError(f"an earlier write to {path} failed; close the store and open it again")
        require_room(self.files, LEAST_ROOM_BYTES)
        try:
            yield
        except EngineError as error:
            message = str(error).splitlines()[0]
            if any(word in str(error) for word in _DISK):
                raise ResourceError(no_room(self.files)) from error
            if any(word in str(error) for word in _MEMORY):
                raise ResourceError(f"the engine's {BUFFER_POOL_BYTES >> 20} MB ran out for {path}; load fewer traces at a time") from error
            raise StoreError(f"the engine refused to write to {path}: {message}") from error

    @contextmanager
    def transaction(self) -> Iterator[ladybug.Connection]:
        """Give a connection inside a transaction of its own; an exception rolls it back. Raises EngineError from the commit."""
        with self.connection() as connection:
            rows(connection, "BEGIN TRANSACTION")
            try:
                yield connection
            except BaseException as error:
                if isinstance(error, EngineError):
                    self._note(error)
                with suppress(EngineError):  # the engine may have rolled back on its own
                    rows(connection, "ROLLBACK")
                raise
            try:
                with self.gate.committing():
                    rows(connection, "COMMIT")
            except EngineError:
                self._broken = True
                raise

    @contextmanager
    def single_statement(self) -> Iterator[ladybug.Connection]:
        """Give a connection for one statement that is a transaction of its own; nobody reads until it has ended. Raises EngineError."""
        with self.connection() as connection, self.gate.committing():
            try:
                yield connection
            except EngineError:
                self._broken = True  # it may have failed in its commit
                raise

    def rows(self, cypher: str, params: Mapping[str, Any] | None = None) -> list[list[Any]]:
        """Run one reading statement on a connection of its own."""
        with self.connection() as connection:
            try:
                return rows(connection, cypher, params)
            except EngineError as error:
                self._note(error)
                raise

    def change(self, cypher: str, params: Mapping[str, Any] | None = None) -> None:
        """Run one statement that writes, a transaction of its own."""
        with self.gate.committing():
            self.rows(cypher, params)

    def _look(self) -> tuple[object, ...]:
        """Describe the files as they are: what differs later was written in between."""
        found: list[object] = []
        for path in (self.files.database, self.files.beside(".wal")):
            try:
                stat = path.stat()
                found.append((stat.st_ino, stat.st_size, stat.st_mtime_ns))
            except FileNotFoundError:
                found.append(None)
        return tuple(found)

    def is_stale(self) -> bool:
        """Tell whether a reader's files have changed since it was opened."""
        return self.read_only and self._look() != self._stamp

    def reopen(self) -> None:
        """Open again, at what is committed now. No connection may be in use."""
        self.close()
        self.open()

    def pages_unchanged(self) -> bool:
        """Tell whether the pages that a reader may have read are those it opened (a writer's own reads are always sound)."""
        return not self.read_only or self._look()[0] == self._stamp[0]
