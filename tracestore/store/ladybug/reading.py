"""Read-only statements: bounded in time and rows, their errors in our words, repeated when another process changed the pages meanwhile."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

from tracestore.errors import QueryError, QueryTimeoutError, StoreUnavailableError
from tracestore.store.base import Limits, Result
from tracestore.store.ladybug.files import StoreFiles
from tracestore.store.ladybug.handle import EngineError, Handle, rows

if TYPE_CHECKING:
    import ladybug
    import pyarrow as pa

_USES_PER_CONNECTION: Final = 1_000
"""A connection keeps every prepared statement; it is replaced before that grows."""

_PATIENCE_S: Final = 20.0
_WITH_TEXT: Final = ("Parser exception", "Binder exception", "Catalog exception")
"""Errors that speak of the statement. The others can quote values, and so are not passed on."""


_QUOTED: Final = re.compile(r"""'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*"|`[^`]*`|//[^\n]*|/\*.*?\*/""", re.DOTALL)


def _require_one_statement(cypher: str) -> None:
    """Refuse several statements before any runs: the first could end the read-only transaction. Raises QueryError."""
    if ";" in _QUOTED.sub(" ", cypher).rstrip().removesuffix(";"):
        raise QueryError("one statement at a time, please")


def _query_error(message: str, params: Mapping[str, Any], limits: Limits) -> QueryError:
    if message.startswith("Interrupted"):
        return QueryTimeoutError(f"the query took longer than {limits.timeout_s:g} s; narrow it or allow more time")
    if "read-only" in message:
        return QueryError("the statement would change the store; queries only read")
    if message.startswith(_WITH_TEXT):
        for value in params.values():
            if isinstance(value, str) and value:
                message = message.replace(value, "...")
        return QueryError(f"the engine refused the query: {message}")
    kind = message.split(":", 1)[0] if ":" in message else "error"
    return QueryError(f"the query failed while it ran ({kind}); check the types of its parameters")


class Reader:
    """Runs read-only statements on an open database, from any thread."""

    def __init__(self, handle: Handle) -> None:
        self._handle = handle
        self._guard = threading.Condition()
        self._idle: list[tuple[ladybug.Connection, int]] = []
        self._busy = 0

    @property
    def files(self) -> StoreFiles:
        """The files that are read."""
        return self._handle.files

    def close(self) -> None:
        """Close the idle connections."""
        with self._guard:
            idle, self._idle = self._idle, []
        for connection, _ in idle:
            connection.close()

    @contextmanager
    def _connection(self) -> Iterator[ladybug.Connection]:
        """Lend a connection. A reader whose files have changed is reopened first, once nobody uses it."""
        import ladybug

        with self._guard:
            while self._handle.is_stale() and self._busy:
                self._guard.wait()  # whoever comes now waits too, so the last one out lets us reopen
            if self._handle.is_stale():
                self._reopen()
            connection, uses = self._idle.pop() if self._idle else (ladybug.Connection(self._handle.database), 0)
            self._busy += 1
        sound = False
        try:
            yield connection
            sound = True
        finally:
            with self._guard:
                self._busy -= 1
                if sound and uses + 1 < _USES_PER_CONNECTION:
                    self._idle.append((connection, uses + 1))
                else:
                    connection.close()
                self._guard.notify_all()

    def _reopen(self) -> None:
        for connection, _ in self._idle:
            connection.close()
        self._idle.clear()
        self._handle.reopen()

    def run(self, cypher: str, params: Mapping[str, Any], limits: Limits) -> Result:
        """Run one statement. Raises QueryError, StoreUnavailableError."""
        _require_one_statement(cypher)
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            failure: QueryError | None = None
            with self._handle.gate.reading(), self._connection() as connection:
                try:
                    result = self._once(connection, cypher, params, limits)
                except EngineError as error:
                    failure = _query_error(str(error), params, limits)
                sound = self._handle.pages_unchanged()
            if sound and failure is not None:
                raise failure
            if sound:
                return result
            if time.monotonic() > deadline:
                raise StoreUnavailableError(f"{self._handle.files.database} is being written all the time; try again when the load is done")

    def _once(self, connection: ladybug.Connection, cypher: str, params: Mapping[str, Any], limits: Limits) -> Result:
        connection.set_query_timeout(max(1, round(limits.timeout_s * 1000)))
        rows(connection, "BEGIN TRANSACTION READ ONLY")
        try:
            table = _table(connection, cypher, params)
        finally:
            with suppress(EngineError):  # after an error the engine has already ended it
                rows(connection, "ROLLBACK")
        if limits.max_rows is not None and table.num_rows > limits.max_rows:
            return Result(table.slice(0, limits.max_rows), truncated=True)
        return Result(table)


def _table(connection: ladybug.Connection, cypher: str, params: Mapping[str, Any]) -> pa.Table:
    try:
        result = connection.execute(cypher, dict(params))
        try:
            table: pa.Table = result.get_as_arrow(chunk_size=-1)  # one chunk: the default makes room for ten million elements first
        finally:
            result.close()
    except RuntimeError as error:
        raise EngineError(str(error)) from None
    return table
